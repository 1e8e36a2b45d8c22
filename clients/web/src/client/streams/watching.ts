import type { WatchStreamsResponse } from "@mediamesh/contracts/stream/v1/stream_service_pb.js";
import { MeshError } from "../errors.js";
import type { Tries } from "./reading.js";

/**
 * Yields which streams come and go, however often the connection breaks.
 *
 * @param read Watches from a token on, over one connection.
 */
export async function* watched(
  read: (resumeToken: string) => AsyncIterable<WatchStreamsResponse>,
  tries: Tries,
  resumeToken = "",
): AsyncGenerator<WatchStreamsResponse, void, undefined> {
  for (;;) {
    let failure = new MeshError("The server ended the watch.", "STREAM_INTERRUPTED");
    let isAlive = false;
    let isDismissed = false;
    try {
      for await (const response of read(resumeToken)) {
        resumeToken = response.resumeToken || resumeToken;
        if ((isDismissed = response.frame.case === "goAway")) break;
        isAlive = true;
        tries.heard();
        if (response.frame.case !== "heartbeat") yield response;
      }
    } catch (thrown) {
      failure = MeshError.from(thrown);
    }
    if (!(isAlive && isDismissed)) await tries.bear(failure);
  }
}
