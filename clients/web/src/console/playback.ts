/** What plays one sound, for as long as it does: the player of a field goes over to the next file that is given. */
export class Playback {
  readonly #source: string;

  constructor(readonly player: HTMLMediaElement) {
    this.#source = player.src;
  }

  /** Plays from a time in seconds. */
  play(from: number): void {
    if (!this.#isSame) return;
    this.player.currentTime = from;
    void this.player.play().catch(() => {});
  }

  /** Tells the time in seconds as it is played, undefined for that of another sound, until aborted. */
  follow(played: (seconds: number | undefined) => void, signal: AbortSignal): void {
    const tell = () => played(this.#isSame ? this.player.currentTime : undefined);
    for (const event of ["timeupdate", "emptied"]) this.player.addEventListener(event, tell, { signal });
  }

  get #isSame(): boolean {
    return this.player.src === this.#source;
  }
}
