import { vi } from "vitest";

/** An element of a page that nobody sees: it has what the views of the console use. */
export class FakeElement extends EventTarget {
  readonly children: FakeElement[] = [];
  readonly dataset: Record<string, string> = {};
  readonly attributes = new Map<string, string>();
  readonly clientWidth = 100;
  readonly clientHeight = 10;
  parent: FakeElement | undefined;
  text = "";
  src = "";
  paused = true;
  currentTime = 0;
  duration = Number.NaN;

  constructor(readonly name: string) {
    super();
  }

  get textContent(): string {
    return this.text + this.children.map(({ textContent }) => textContent).join("");
  }

  set textContent(text: string) {
    this.replaceChildren(text);
  }

  setAttribute(name: string, value: string): void {
    this.attributes.set(name, value);
    if (name.startsWith("data-")) this.dataset[name.slice(5)] = value;
    if (name === "src") {
      this.src = value;
      this.dispatchEvent(new Event("emptied"));
    }
  }

  removeAttribute(name: string): void {
    this.attributes.delete(name);
    if (name === "src") this.src = "";
  }

  toggleAttribute(name: string, isSet: boolean): void {
    if (isSet) this.attributes.set(name, "");
    else this.attributes.delete(name);
  }

  append(...children: (FakeElement | string)[]): void {
    for (const child of children) {
      if (typeof child === "string") this.text += child;
      else this.insertBefore(child, null);
    }
  }

  prepend(child: FakeElement): void {
    this.insertBefore(child, this.children[0] ?? null);
  }

  after(next: FakeElement): void {
    this.parent?.append(next);
  }

  insertBefore(child: FakeElement, before: FakeElement | null): void {
    child.remove();
    child.parent = this;
    this.children.splice(before ? this.children.indexOf(before) : this.children.length, 0, child);
  }

  replaceChildren(...children: (FakeElement | string)[]): void {
    for (const child of [...this.children]) child.remove();
    this.text = "";
    this.append(...children);
  }

  remove(): void {
    const place = this.parent?.children.indexOf(this) ?? -1;
    if (place >= 0) this.parent?.children.splice(place, 1);
    this.parent = undefined;
  }

  hasChildNodes(): boolean {
    return this.textContent !== "";
  }

  /** Finds elements by their name, or `[attribute]`. */
  querySelectorAll(wanted: string): FakeElement[] {
    const attribute = /^\[(.*)\]$/.exec(wanted)?.[1];
    const below = this.children.flatMap((child) => [child, ...child.querySelectorAll(wanted)]);
    return [...new Set(below)].filter(({ name, attributes }) => (attribute ? attributes.has(attribute) : name === wanted));
  }

  querySelector(wanted: string): FakeElement | undefined {
    return this.querySelectorAll(wanted)[0];
  }

  /** Clicks, at a place in the element. */
  click(offsetX = 0): void {
    this.dispatchEvent(Object.assign(new Event("click"), { offsetX }));
  }

  getContext(): null {
    return null;
  }

  focus(): void {}

  pause(): void {
    this.paused = true;
  }

  async play(): Promise<void> {
    this.paused = false;
  }
}

class FakeMediaElement extends FakeElement {}
class FakeAudioElement extends FakeMediaElement {}
class FakeImageElement extends FakeElement {}

/** Stands in for the browser's page until `vi.unstubAllGlobals`. */
export function fakePage(): void {
  vi.stubGlobal("window", new EventTarget());
  vi.stubGlobal("document", {
    addEventListener: () => {},
    createElement: (name: string) => {
      if (name === "audio") return new FakeAudioElement(name);
      if (name === "img") return new FakeImageElement(name);
      return new (name === "video" ? FakeMediaElement : FakeElement)(name);
    },
    createElementNS: (_: string, name: string) => new FakeElement(name),
  });
  vi.stubGlobal("HTMLMediaElement", FakeMediaElement);
  vi.stubGlobal("HTMLAudioElement", FakeAudioElement);
  vi.stubGlobal("HTMLImageElement", FakeImageElement);
  vi.stubGlobal("ResizeObserver", class { observe(): void {} });
  vi.stubGlobal("devicePixelRatio", 1);
  vi.stubGlobal("requestAnimationFrame", () => 0);
  vi.stubGlobal("matchMedia", () => ({ matches: true }));
}

/** Gives the page a microphone whose recordings are silent, and returns it. */
export function fakeMicrophone() {
  const track = { stop: vi.fn() };
  const microphone = {
    track,
    /** Thrown as a recording begins. */
    broken: undefined as Error | undefined,
    /** Thrown when a recording that ended is to be converted. */
    unreadable: undefined as Error | undefined,
    closed: vi.fn(async () => {}),
  };
  vi.stubGlobal("navigator", { mediaDevices: { getUserMedia: async () => ({ getTracks: () => [track] }) } });
  class FakeRecorder extends EventTarget {
    static isTypeSupported = () => true;
    readonly mimeType = "audio/webm";
    state = "inactive";

    start(): void {
      if (microphone.broken) throw microphone.broken;
      this.state = "recording";
    }

    stop(): void {
      if (microphone.unreadable) throw microphone.unreadable;
      this.state = "inactive";
      queueMicrotask(() => this.dispatchEvent(new Event("stop")));
    }
  }
  class FakeContext {
    close = microphone.closed;
    createAnalyser = () => ({ fftSize: 0, getFloatTimeDomainData: () => {} });
    createMediaStreamSource = () => ({ connect: () => {} });
  }
  vi.stubGlobal("MediaRecorder", FakeRecorder);
  vi.stubGlobal("AudioContext", FakeContext);
  return microphone;
}
