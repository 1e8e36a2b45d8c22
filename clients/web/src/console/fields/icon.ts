import { MediaType } from "@mediamesh/contracts/media/v1/media_pb.js";
import { svg } from "../element.js";

// Outlines in a square of 48.
const OUTLINES: Record<MediaType, string> = {
  [MediaType.UNSPECIFIED]: "M12 5h16l9 9v29H12zM28 5v9h9",
  [MediaType.FILE]: "M12 5h16l9 9v29H12zM28 5v9h9",
  [MediaType.DOCUMENT]: "M12 5h16l9 9v29H12zM28 5v9h9M18 22h13M18 28h13M18 34h8",
  [MediaType.IMAGE]: "M10 9h28a5 5 0 0 1 5 5v20a5 5 0 0 1-5 5H10a5 5 0 0 1-5-5V14a5 5 0 0 1 5-5zM16.5 16a3.5 3.5 0 1 0 .01 0M6 34l11-9 7 6 8-9 10 10",
  [MediaType.AUDIO]: "M8 21v6M14 15v18M20 9v30M26 17v14M32 12v24M38 19v10",
  [MediaType.VIDEO]: "M10 11h28a5 5 0 0 1 5 5v16a5 5 0 0 1-5 5H10a5 5 0 0 1-5-5V16a5 5 0 0 1 5-5zM20 18v12l10-6z",
};

/** Returns the outline that stands for a kind of media. */
export function icon(type: MediaType): SVGSVGElement {
  return svg("svg", { viewBox: "0 0 48 48", width: "40", height: "40", class: "icon", "aria-hidden": "true" }, svg("path", { d: OUTLINES[type] }));
}
