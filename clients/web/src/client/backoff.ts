/** How long to wait between tries. */
export interface BackoffPolicy {
  /** Longest first wait in milliseconds. */
  readonly firstMs: number;
  /** Longest wait in milliseconds. */
  readonly longestMs: number;
  /** Tries in a row without any progress after which to give up. */
  readonly tries: number;
}

export const BACKOFF: BackoffPolicy = { firstMs: 200, longestMs: 10_000, tries: 10 };

/**
 * Returns the wait before a try in milliseconds: exponential, with full jitter, so that readers cut off together do not
 * come back together.
 *
 * @param tried How often it was tried without success, from 1.
 */
export function backoff(policy: BackoffPolicy, tried: number, random: () => number = Math.random): number {
  return random() * Math.min(policy.longestMs, policy.firstMs * 2 ** (tried - 1));
}

/** Waits; rejects with the reason of the signal when it is aborted first. */
export function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
