import { MeshError } from "../../client/index.js";
import type { Acceptance } from "./accept.js";
import { takes } from "./accept.js";
import { toWav } from "./wav.js";

// In the order of preference: Opus is small, and every browser that has it in WebM or Ogg says so.
const CANDIDATES = ["audio/webm;codecs=opus", "audio/ogg;codecs=opus", "audio/mp4"];
/** Samples per second of a recording that is converted: what speech models hear. */
const SPEECH_RATE = 16_000;
const ENDINGS: Record<string, string> = { "audio/webm": "webm", "audio/ogg": "ogg", "audio/mp4": "m4a", "audio/wav": "wav" };

/** A recording from the microphone that goes on. */
export interface Recording {
  /** How long it is, in seconds. */
  readonly seconds: number;
  /** Returns how loud it is now, from 0 (-60 dB and less) to 1 (full scale). */
  level(): number;
  /** Ends it and returns what was heard. */
  stop(): Promise<File>;
  /** Ends it and throws away what was heard. */
  discard(): void;
}

/**
 * Begins to record from the microphone.
 *
 * @throws MeshError that says why there is no sound to be had.
 */
export async function record(acceptance: Acceptance): Promise<Recording> {
  const stream = await microphone();
  let context: AudioContext | undefined;
  const release = () => {
    for (const track of stream.getTracks()) track.stop();
    void context?.close().catch(() => {});
  };
  try {
    context = new AudioContext();
    return begun(stream, context, release, acceptance);
  } catch (thrown) {
    release(); // else the microphone would stay on
    throw thrown;
  }
}

function begun(stream: MediaStream, context: AudioContext, release: () => void, acceptance: Acceptance): Recording {
  const type = CANDIDATES.find((one) => MediaRecorder.isTypeSupported(one) && takes(acceptance, one)) ?? "";
  const recorder = new MediaRecorder(stream, { ...(type && { mimeType: type }), audioBitsPerSecond: 64_000 });
  const pieces: Blob[] = [];
  recorder.addEventListener("dataavailable", ({ data }) => pieces.push(data));
  const analyser = context.createAnalyser();
  analyser.fftSize = 1024;
  context.createMediaStreamSource(stream).connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const began = performance.now();
  recorder.start(500);
  return {
    get seconds() {
      return (performance.now() - began) / 1000;
    },
    level: () => {
      analyser.getFloatTimeDomainData(samples);
      return loudness(samples);
    },
    stop: async () => {
      if (recorder.state !== "inactive") {
        const ended = new Promise((resolve) => recorder.addEventListener("stop", resolve, { once: true }));
        recorder.stop();
        await ended;
      }
      release();
      return fileOf(new Blob(pieces, { type: recorder.mimeType }), acceptance);
    },
    discard: () => {
      if (recorder.state !== "inactive") recorder.stop();
      release();
    },
  };
}

/** Returns how loud samples are, from 0 (-60 dB and less) to 1 (full scale). */
export function loudness(samples: Float32Array): number {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const decibels = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-12);
  return Math.max(0, Math.min(1, 1 + decibels / 60));
}

async function microphone(): Promise<MediaStream> {
  // Browsers hide it from pages that came over plain HTTP from another machine.
  if (!navigator.mediaDevices) {
    throw new MeshError("The browser gives the microphone only to pages over HTTPS or from this machine; choose a file.", "");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (thrown) {
    const name = thrown instanceof DOMException ? thrown.name : "";
    throw new MeshError(REFUSALS[name] ?? `The microphone cannot be used (${String(thrown)}); choose a file.`, "PERMISSION_DENIED");
  }
}

const REFUSALS: Record<string, string> = {
  NotAllowedError: "The microphone was refused: allow it for this page in the browser, or choose a file.",
  NotFoundError: "There is no microphone; choose a file.",
  NotReadableError: "The microphone is in use by another program; close that, or choose a file.",
};

async function fileOf(sound: Blob, acceptance: Acceptance): Promise<File> {
  const bare = sound.type.split(";")[0] ?? "";
  const fit = takes(acceptance, bare) ? sound : await toWav(sound, SPEECH_RATE);
  const type = fit.type.split(";")[0] ?? "";
  return new File([fit], `recording.${ENDINGS[type] ?? "webm"}`, { type });
}
