import { PinType, type Pin } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { INLINE_LIMIT_BYTES } from "../../client/index.js";
import { bytes } from "../events.js";

/** What a pin takes, for a person who chooses a file for it. */
export interface Acceptance {
  readonly type: MediaType;
  /** What people call it, with its article. */
  readonly what: string;
  /** Media types, `image/png` or `image/*`. */
  readonly mimeTypes: readonly string[];
  /** For `<input accept>`. */
  readonly accept: string;
  readonly hint: string;
  readonly limitBytes: number;
  /** Longest duration in seconds; 0 for no limit. */
  readonly longest: number;
}

interface Kind {
  readonly type: MediaType;
  readonly what: string;
  readonly mimeTypes: readonly string[];
}

const KINDS = new Map<PinType, Kind>([
  [PinType.IMAGE, { type: MediaType.IMAGE, what: "a photo", mimeTypes: ["image/jpeg", "image/png", "image/webp", "image/gif"] }],
  [
    PinType.AUDIO,
    {
      type: MediaType.AUDIO,
      what: "a recording",
      mimeTypes: ["audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/webm"],
    },
  ],
  [PinType.VIDEO, { type: MediaType.VIDEO, what: "a video", mimeTypes: ["video/mp4", "video/webm"] }],
  [PinType.DOCUMENT, { type: MediaType.DOCUMENT, what: "a document", mimeTypes: ["application/pdf"] }],
  [PinType.BINARY, { type: MediaType.FILE, what: "a file", mimeTypes: [] }],
]);

// Systems know some files by their ending only.
const ENDINGS: Record<string, string> = {
  "audio/wav": ".wav",
  "audio/mpeg": ".mp3",
  "audio/ogg": ".ogg,.oga,.opus",
  "audio/flac": ".flac",
  "audio/webm": ".weba",
  "video/mp4": ".m4v",
};
const SAME: Record<string, string> = {
  "audio/mp3": "audio/mpeg",
  "audio/x-wav": "audio/wav",
  "audio/wave": "audio/wav",
  "audio/vnd.wave": "audio/wav",
  "audio/x-flac": "audio/flac",
};
const NAMES: Record<string, string> = { mpeg: "MP3", "image/*": "pictures", "audio/*": "sound", "video/*": "video", webp: "WebP", webm: "WebM" };

/** Returns what a pin takes; undefined for a pin that takes no file. */
export function accepted(pin: Pin): Acceptance | undefined {
  const kind = KINDS.get(pin.type);
  if (!kind) return undefined;
  const { mimeTypes: own = [], maxSizeBytes = 0n, maxDurationSeconds: longest = 0 } = pin.constraints ?? {};
  const mimeTypes = own.length > 0 ? [...new Set(own.map(plain))] : kind.mimeTypes;
  const limitBytes = Math.min(INLINE_LIMIT_BYTES, Number(maxSizeBytes) || INLINE_LIMIT_BYTES);
  const names = [...new Set(mimeTypes.map(named))];
  const limits = [listed(names), `${bytes(limitBytes)} at most`, longest > 0 ? `${Math.round(longest)} s at most` : ""];
  return {
    type: kind.type,
    what: kind.what,
    mimeTypes,
    accept: mimeTypes.flatMap((type) => [type, ENDINGS[type] ?? []].flat()).join(","),
    hint: limits.filter(Boolean).join(", "),
    limitBytes,
    longest,
  };
}

/** Whether a pin takes media of a type, such as `audio/webm;codecs=opus`. */
export function takes({ mimeTypes }: Pick<Acceptance, "mimeTypes">, type: string): boolean {
  const bare = plain(type.split(";")[0]?.trim() ?? "");
  const family = `${bare.split("/")[0]}/*`;
  return mimeTypes.length === 0 || mimeTypes.includes(bare) || mimeTypes.includes(family);
}

function plain(type: string): string {
  return SAME[type] ?? type;
}

function named(type: string): string {
  const [, short = type] = type.split("/");
  return NAMES[type] ?? NAMES[short] ?? short.toUpperCase();
}

function listed(names: readonly string[]): string {
  return names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : (names[0] ?? "");
}
