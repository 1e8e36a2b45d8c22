/** The server's side of a WebSocket, and the socket as the client sees it. */
export class FakeSocket extends EventTarget {
  binaryType = "blob";
  readyState = 1;
  /** What the client sent: objects, and for binary frames the bytes beside them. */
  readonly sent: { spelled: Record<string, unknown>; data?: Uint8Array }[] = [];
  /** What the server does when the client sends. */
  onSent: (spelled: Record<string, unknown>) => void = () => {};

  constructor(readonly url: URL) {
    super();
  }

  send(frame: string | Uint8Array): void {
    if (typeof frame === "string") this.sent.push({ spelled: JSON.parse(frame) });
    else {
      const size = new DataView(frame.buffer).getUint32(0);
      const text = new TextDecoder().decode(frame.subarray(4, 4 + size));
      this.sent.push({ spelled: JSON.parse(text), data: frame.slice(4 + size) });
    }
    this.onSent(this.sent.at(-1)!.spelled);
  }

  /** Says something to the client. */
  say(spelled: object): void {
    if (this.readyState === 1) this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(spelled) }));
  }

  /** Closes, from either side. */
  close(code = 1006): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason: "" }));
  }

  get sequences(): unknown[] {
    return this.sent.map(({ spelled }) => spelled["sequence"]);
  }
}
