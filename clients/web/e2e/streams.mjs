// node streams.mjs BASE_URL [PID]: publishes a stream over WebSocket from a page, which reads it back over gRPC-Web and by
// EventSource, and prints what came. In the middle of it the process is killed, when one is named.
import { fileURLToPath } from "node:url";
import { build } from "vite";
import { drive } from "./browser.mjs";

const [baseUrl, pid] = process.argv.slice(2);
const CHUNKS = 200;

await drive(async (page) => {
  await page.goto(baseUrl);
  // As the door's own, since its page lets no other in.
  await page.route("**/client.js", async (route) => route.fulfill({ contentType: "text/javascript", body: await client() }));
  await page.addScriptTag({ url: "/client.js" });
  await page.exposeFunction("half", () => void (pid && process.kill(Number(pid), "SIGKILL")));
  return page.evaluate(stream, CHUNKS);
});

/** Returns the TypeScript client as a script that puts it into `mediamesh`. */
async function client() {
  const [{ output }] = await build({
    configFile: false,
    logLevel: "error",
    resolve: { preserveSymlinks: true },
    build: {
      write: false,
      lib: {
        entry: fileURLToPath(new URL("../src/client/index.ts", import.meta.url)),
        formats: ["iife"],
        name: "mediamesh",
      },
    },
  });
  return output[0].code;
}

/** Runs in the page. */
async function stream(chunks) {
  const streams = mediamesh.createStreams(location.origin);
  const { streamId, publishToken, wsUrl } = await streams.open({ mimeType: "text/plain" });
  const watching = seen();
  const [published, read, sourced] = await Promise.all([publish(), subscribe(), source()]);
  const { lastSequence, state, end } = await streams.get(streamId);
  return {
    published,
    read,
    sourced,
    wsUrl,
    kept: { last: Number(lastSequence), state, reason: end.reason },
    watched: await watching,
    again: (await subscribe()).sequences.length,
    refused: await streams.publish(streamId, "wrong").catch(({ reason }) => reason),
  };

  async function publish() {
    await using producer = await streams.publish(streamId, publishToken);
    await producer.start({ mimeType: "text/plain" });
    for (let number = 1; number <= chunks; number += 1) {
      if (number === chunks / 2) await half();
      await producer.send(number % 10 ? text(`${number}`) : picture(number), { chunkIndex: BigInt(number) });
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    await producer.end("enough");
    return { acknowledged: Number(producer.acknowledged), epoch: Number(producer.epoch), dropped: producer.dropped };
  }

  async function subscribe() {
    const sequences = [];
    const values = [];
    for await (const item of streams.subscribe(streamId)) {
      if (mediamesh.isGap(item)) sequences.push(`${item.firstSequence}-${item.lastSequence}`);
      else sequences.push(Number(item.sequence));
      const { case: kind, value } = item.payload?.data?.payload ?? {};
      if (kind === "content") values.push(value.text);
      if (kind === "media") values.push([...value.data.value].join());
    }
    return { sequences, values };
  }

  function source() {
    return new Promise((resolve, reject) => {
      const result = { sequences: [], values: [], opens: 0 };
      const events = new EventSource(`/api/v1/streams/${streamId}`);
      events.onopen = () => (result.opens += 1);
      events.onerror = () => {
        if (events.readyState === EventSource.CLOSED) reject(new Error(`closed for ever: ${JSON.stringify(result)}`));
      };
      for (const kind of ["stream_start", "stream_data", "stream_end", "stream_error", "gap"]) {
        events.addEventListener(kind, ({ lastEventId, data }) => {
          result.sequences.push(kind === "gap" ? data : Number(lastEventId));
          const chunk = JSON.parse(data).payload?.data;
          if (chunk?.kind === "content") result.values.push(chunk.content.text);
          if (chunk?.kind === "media") result.values.push([...atob(chunk.media.data)].map((byte) => byte.charCodeAt(0)).join());
          if (kind !== "stream_end") return;
          events.close();
          resolve(result);
        });
      }
    });
  }

  async function seen() {
    const kinds = [];
    for await (const { frame } of streams.watchStreams()) {
      if (frame.value.stream.streamId === streamId) kinds.push(frame.case);
      if (kinds.at(-1) === "streamComplete") return kinds;
    }
  }

  function text(words) {
    return { payload: { case: "content", value: { text: words } } };
  }

  function picture(number) {
    const data = { case: "binary", value: Uint8Array.of(0, 255, number % 256) };
    return { payload: { case: "media", value: { mediaType: 1, encoding: 4, data } } };
  }
}
