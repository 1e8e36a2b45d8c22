/** Returns a place in media for people: `0:07.4`, `12:30.0`. */
export function clock(seconds: number, digits = 1): string {
  const rounded = Math.max(0, Number(seconds.toFixed(digits)));
  const minutes = Math.floor(rounded / 60);
  const rest = (rounded - minutes * 60).toFixed(digits);
  return `${minutes}:${rest.padStart(digits > 0 ? digits + 3 : 2, "0")}`;
}
