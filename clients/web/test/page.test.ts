import { create } from "@bufbuild/protobuf";
import { PinSchema, PinType } from "@mediamesh/contracts/agent/v1/pin_pb.js";
import { MediaReferenceSchema } from "@mediamesh/contracts/media/v1/media_pb.js";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { resultIn, type MediaStore } from "../src/client/index.js";
import { accepted } from "../src/console/fields/accept.js";
import { RecorderField } from "../src/console/fields/recorder_field.js";
import { record } from "../src/console/fields/recording.js";
import { Frames } from "../src/console/frames.js";
import { InputsView } from "../src/console/inputs.js";
import { Playback } from "../src/console/playback.js";
import { ResultsView } from "../src/console/results.js";
import { Run } from "../src/console/run.js";
import { Speech } from "../src/console/speech.js";
import { LanesView } from "../src/console/views/lanes.js";
import { StoredView } from "../src/console/views/stored.js";
import { TranscriptView } from "../src/console/views/transcript.js";
import { numbered } from "./fake_flows.js";
import { fakeMicrophone, fakePage, FakeElement } from "./fake_page.js";
import { showcasing, SHOWCASE } from "./fake_streaming.js";

const SOUND = accepted(create(PinSchema, { name: "audio", type: PinType.AUDIO }))!;
const STORE: MediaStore = { async *read() {}, blob: async () => new Blob() };
const file = (name: string) => new File(["bytes"], name);
const hosted = () => new FakeElement("div") as unknown as HTMLElement;
/** Finds in what a view made. */
const within = (element: unknown) => element as FakeElement;

beforeEach(fakePage);
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("A click on a lane goes there in the video as long as it is by now", () => {
  const frames = new Frames();
  const frame = resultIn({ type: "frame", time: 0, objects: [{ label: "cat", score: 1, box: [0, 0, 1, 1] }] });
  if (frame?.type === "frame") frames.take(frame);
  const sought: number[] = [];
  const lanes = new LanesView((seconds) => sought.push(seconds));
  lanes.update(frames, 1e-3, false); // the video did not say yet how long it is
  lanes.update(frames, 10, false);
  within(lanes.element).querySelector("canvas")?.click(50);
  expect(sought).toEqual([5]);
});

describe("A recording", () => {
  const begun = async () => {
    vi.useFakeTimers();
    const heard = { changed: vi.fn(), failed: vi.fn(), microphone: fakeMicrophone() };
    const field = new RecorderField("recorder.audio", "Recorder", SOUND, heard.changed, heard.failed);
    field.give(file("before.wav"));
    heard.changed.mockClear();
    button(field, "Record").click();
    await vi.waitUntil(() => field.element.dataset["state"] === "recording");
    return { field, ...heard };
  };
  const button = ({ element }: RecorderField, name: string) =>
    within(element).querySelectorAll("button").find(({ textContent }) => textContent === name)!;

  it("that goes on is not ready, whatever was recorded before", async () => {
    const { field, changed, microphone } = await begun();
    expect([field.isReady, changed.mock.calls]).toEqual([false, [[false]]]);
    button(field, "Stop").click();
    expect(field.isReady).toBe(false);
    await vi.waitUntil(() => field.isReady);
    expect(field.file?.name).toBe("recording.webm");
    expect(changed).toHaveBeenCalledTimes(2);
    expect(microphone.track.stop).toHaveBeenCalledOnce();
  });

  it("that comes to nothing leaves the one before", async () => {
    const { field, changed, failed, microphone } = await begun();
    microphone.unreadable = new Error("no sound");
    button(field, "Stop").click();
    await vi.waitUntil(() => failed.mock.calls.length > 0);
    expect([field.isReady, field.file?.name]).toEqual([true, "before.wav"]);
    expect(changed).toHaveBeenCalledTimes(2);
  });

  it("that ends as a file is given does not take its place", async () => {
    const { field } = await begun();
    button(field, "Stop").click();
    field.give(file("given.wav"));
    await vi.advanceTimersByTimeAsync(100);
    expect(field.file?.name).toBe("given.wav");
  });

  it("that cannot begin gives the microphone back", async () => {
    const microphone = fakeMicrophone();
    microphone.broken = new Error("not supported");
    await expect(record(SOUND)).rejects.toThrow("not supported");
    expect(microphone.track.stop).toHaveBeenCalledOnce();
    expect(microphone.closed).toHaveBeenCalledOnce();
  });
});

describe("A transcript", () => {
  const speech = new Speech();
  const said = resultIn({ type: "transcript", segment: 0, start: 1, end: 2, text: "Hello", final: true, words: [{ text: "Hello", start: 1, end: 2, probability: 1 }] });
  if (said?.type === "transcript") speech.take(said);
  const shown = () => {
    const player = new FakeElement("audio");
    player.setAttribute("src", "blob:one");
    const view = new TranscriptView(new Playback(player as unknown as HTMLMediaElement));
    view.update(speech);
    const playTo = (seconds: number) => {
      player.currentTime = seconds;
      player.dispatchEvent(new Event("timeupdate"));
    };
    const isLit = () => within(view.element).querySelector("[data-start]")?.attributes.has("data-now");
    return { view, player, playTo, isLit };
  };

  it("lights up and is found in the sound that it is of", () => {
    const { view, player, playTo, isLit } = shown();
    playTo(1.5);
    expect(isLit()).toBe(true);
    within(view.element).querySelector("button")?.click();
    expect([player.currentTime, player.paused]).toEqual([1, false]);
  });

  it("is not found in the next sound of the same player", () => {
    const { view, player, playTo, isLit } = shown();
    playTo(1.5);
    player.setAttribute("src", "blob:two");
    expect(isLit()).toBe(false);
    playTo(1.5);
    expect(isLit()).toBe(false);
    within(view.element).querySelector("button")?.click();
    expect([player.currentTime, player.paused]).toEqual([1.5, true]);
  });

  it("that is left hears nothing of the player any more", () => {
    const { view, playTo, isLit } = shown();
    view.close();
    playTo(1.5);
    expect(isLit()).toBe(false);
  });
});

it("Results are about the files that the run was given, not those chosen since", () => {
  const made = vi.spyOn(URL, "createObjectURL");
  const inputs = new InputsView(hosted(), () => {}, () => {});
  inputs.show(SHOWCASE);
  const before = file("before.mp4");
  inputs.fields.at(-1)?.give(before);
  const run = new Run(inputs.given);
  inputs.fields.at(-1)?.give(file("after.mp4"));
  made.mockClear();
  for (const event of numbered(showcasing())) run.apply(event);
  new ResultsView(hosted(), STORE).update(run, false);
  expect(made.mock.calls).toEqual([[before]]);
});

it("Media that is being read as its view is left is not kept", async () => {
  const made = vi.spyOn(URL, "createObjectURL");
  const read = Promise.resolve(new Blob());
  const view = new StoredView({ ...STORE, blob: () => read });
  view.update(create(MediaReferenceSchema, { metadata: { mimeType: "image/png" } }));
  view.close();
  await read;
  await Promise.resolve();
  expect(made).not.toHaveBeenCalled();
});
