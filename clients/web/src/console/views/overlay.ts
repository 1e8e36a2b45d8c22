import type { Detected, Frame } from "../../client/index.js";

/** A rectangle in pixels. */
export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Returns where a picture is within a larger or smaller place that holds the whole of it, as `object-fit: contain` does. */
export function contained(width: number, height: number, place: { width: number; height: number }): Rectangle {
  if (width <= 0 || height <= 0) return { x: 0, y: 0, ...place };
  const scale = Math.min(place.width / width, place.height / height);
  const fitted = { width: width * scale, height: height * scale };
  return { x: (place.width - fitted.width) / 2, y: (place.height - fitted.height) / 2, ...fitted };
}

/** Returns the colour of a label: the same one wherever it is found, and a different one for most others. */
export function hue(label: string): number {
  let hash = 0x811c9dc5;
  for (const character of label) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193) >>> 0; // FNV-1a
  return (hash >>> 8) % 360;
}

/** Draws the boxes of a frame over the place of its picture; nothing where there is no frame. */
export function draw(canvas: HTMLCanvasElement, frame: Frame | undefined): void {
  const { clientWidth, clientHeight } = canvas;
  const ratio = devicePixelRatio;
  canvas.width = Math.round(clientWidth * ratio);
  canvas.height = Math.round(clientHeight * ratio);
  const context = canvas.getContext("2d");
  if (!context || !frame) return;
  context.scale(ratio, ratio);
  const place = contained(frame.width, frame.height, { width: clientWidth, height: clientHeight });
  const scale = frame.width > 0 ? place.width / frame.width : 1;
  context.font = "600 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  // The surest are drawn last, and so on top.
  for (const object of frame.objects.toSorted((one, other) => one.score - other.score)) box(context, object, place, scale);
}

function box(context: CanvasRenderingContext2D, { label, score, box: [left, top, wide, tall] }: Detected, place: Rectangle, scale: number): void {
  const x = place.x + left * scale;
  const y = place.y + top * scale;
  const [width, height] = [wide * scale, tall * scale];
  const colour = `hsl(${hue(label)} 90% 66%)`;
  context.lineWidth = 4;
  context.strokeStyle = "rgb(0 0 0 / 45%)"; // a rim, for pictures as bright as the line
  rounded(context, x, y, width, height);
  context.lineWidth = 2;
  context.strokeStyle = colour;
  rounded(context, x, y, width, height);
  const text = `${label} ${Math.round(score * 100)}%`;
  const tag = { width: context.measureText(text).width + 12, height: 20 };
  const at = { x: Math.max(place.x, Math.min(x - 1, place.x + place.width - tag.width)), y: y - tag.height >= place.y ? y - tag.height : y };
  context.fillStyle = colour;
  context.beginPath();
  context.roundRect(at.x, at.y, tag.width, tag.height, 4);
  context.fill();
  context.fillStyle = "#0e1017";
  context.fillText(text, at.x + 6, at.y + tag.height / 2 + 0.5);
}

function rounded(context: CanvasRenderingContext2D, x: number, y: number, width: number, height: number): void {
  context.beginPath();
  context.roundRect(x, y, width, height, 4);
  context.stroke();
}
