/** Returns sound as a mono WAV file of 16 bits, for pins that do not take what the browser records. */
export async function toWav(sound: Blob, rate: number): Promise<Blob> {
  // A context decodes to its own rate.
  const decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await sound.arrayBuffer());
  const channels = Array.from({ length: decoded.numberOfChannels }, (_, index) => decoded.getChannelData(index));
  const mixed = new Float32Array(decoded.length);
  for (const channel of channels) for (const [index, sample] of channel.entries()) mixed[index]! += sample / channels.length;
  return new Blob([wav(mixed, rate)], { type: "audio/wav" });
}

/** Returns samples from -1 to 1 as a WAV file (RIFF, PCM, 16 bits, mono). */
export function wav(samples: Float32Array, rate: number): ArrayBuffer {
  const bytes = new ArrayBuffer(44 + samples.length * 2);
  const view = new DataView(bytes);
  const text = (at: number, characters: string) => [...characters].forEach((one, index) => view.setUint8(at + index, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + samples.length * 2, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, rate * 2, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, samples.length * 2, true);
  for (const [index, sample] of samples.entries()) {
    view.setInt16(44 + index * 2, Math.round(Math.max(-1, Math.min(1, sample)) * 32767), true);
  }
  return bytes;
}
