import type { Transport } from "@connectrpc/connect";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { MediaReference } from "@mediamesh/contracts/media/v1/media_pb.js";
import { MediaService } from "@mediamesh/contracts/media/v1/media_service_pb.js";
import type { CallInit } from "./call.js";
import { options, streamed } from "./call.js";

/** The stored media of a mesh as a browser reads it. Every failure is a `MeshError`. */
export interface MediaStore {
  /** Yields the bytes of an object, piece by piece. */
  read(reference: Pick<MediaReference, "url">, init?: ReadInit): AsyncIterable<Uint8Array>;
  /** Returns an object whole, with the type that was read from its bytes. */
  blob(reference: MediaReference, init?: CallInit): Promise<Blob>;
}

export interface ReadInit extends CallInit {
  /** First byte wanted. */
  readonly offset?: bigint;
  /** Most bytes wanted; 0 for all that follow. */
  readonly limit?: bigint;
}

/**
 * Opens the media of a mesh.
 *
 * @param baseUrl Address of the mesh, such as `http://127.0.0.1:8080`.
 */
export function createMedia(baseUrl: string, init: { readonly transport?: Transport } = {}): MediaStore {
  const client = createClient(MediaService, init.transport ?? createGrpcWebTransport({ baseUrl }));
  async function* read({ url }: Pick<MediaReference, "url">, call: ReadInit = {}): AsyncGenerator<Uint8Array, void, undefined> {
    const { offset = 0n, limit = 0n } = call;
    const pieces = streamed(call.signal, (signal) => client.download({ url, offset, limit }, options({ ...call, signal })));
    for await (const { data } of pieces) yield data;
  }
  return {
    read,
    blob: async (reference, call) => {
      const pieces: BlobPart[] = [];
      for await (const piece of read(reference, call)) pieces.push(Uint8Array.from(piece));
      return new Blob(pieces, { type: reference.metadata?.mimeType ?? "" });
    },
  };
}
