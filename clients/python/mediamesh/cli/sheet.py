"""A picture of what a run of the showcase found: frames with boxes, a photo with its labels, what was heard."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import av
from PIL import Image, ImageDraw, ImageFont

from mediamesh.wire.json import to_object

if TYPE_CHECKING:
    from pathlib import Path

    from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent

__all__ = ["Found", "draw"]

_COLUMNS, _ROWS = 3, 2
_WIDTH, _GAP, _MARGIN = 400, 14, 22
_GROUND, _INK, _SOFT, _ACCENT = "#0e1017", "#eceef5", "#9aa2b8", "#918bff"
_COLOURS = ("#5dd28b", "#ffb454", "#6cb6ff", "#ff8f8f", "#d2a8ff", "#ffd866")


@dataclass(slots=True)
class Found:
    """What a run found, gathered from its events.

    Attributes:
        frames: Results of the video, in order of their time.
        segments: Final segments of the recording, by number.
        labels: Labels of the photo with their probabilities, best first.
    """

    frames: list[dict[str, Any]] = field(default_factory=list)
    segments: dict[int, dict[str, Any]] = field(default_factory=dict)
    labels: list[tuple[str, float]] = field(default_factory=list)

    def add(self, event: ExecutionEvent) -> None:
        """Take the next event in."""
        if event.HasField("node_started") and event.node_started.attempt > 1:
            # What an earlier try of a node gave comes again.
            self.frames.clear()
            self.segments.clear()
        # What a sink was shown; the same chunk left the node before it, too.
        shown = event.HasField("node_chunk") and event.node_chunk.pin == "input"
        if shown and event.node_chunk.chunk.HasField("snapshot"):
            data = to_object(event.node_chunk.chunk.snapshot).get("data")
            if isinstance(data, dict) and data.get("type") == "combined":
                self._combined(data["result"])

    def _combined(self, result: Mapping[str, Any]) -> None:
        match result.get("type"):
            case "frame":
                self.frames.append(dict(result))
            case "transcript":
                self.segments[int(result["segment"])] = dict(result)
            case "image":
                self.labels = [(one["label"], one["probability"]) for one in result["classification"]]

    @property
    def text(self) -> str:
        """All that was heard."""
        return " ".join(self.segments[number]["text"].strip() for number in sorted(self.segments))


def draw(found: Found, *, photo: Path, video: Path) -> Image.Image:
    """Return the picture.

    Args:
        found: What the run found.
        photo: The photo that it classified.
        video: The video that it looked through.
    """
    chosen = _spread([frame for frame in found.frames if frame["objects"]] or found.frames)
    tiles = [_with_boxes(image, result) for image, result in _decoded(video, chosen)]
    height = max((tile.height for tile in tiles), default=0)
    rows = -(-len(tiles) // _COLUMNS)
    lines = textwrap.wrap(found.text, 108) or ["Nothing was heard."]
    top = 190
    size = (
        2 * _MARGIN + _COLUMNS * _WIDTH + (_COLUMNS - 1) * _GAP,
        2 * _MARGIN + top + rows * (height + _GAP) + 30 + 26 * len(lines),
    )
    sheet = Image.new("RGB", size, _GROUND)
    pen = ImageDraw.Draw(sheet)
    with Image.open(photo) as opened:
        small = opened.convert("RGB")
    small.thumbnail((240, top - _GAP))
    sheet.paste(small, (_MARGIN, _MARGIN))
    _bars(pen, found.labels[:5], _MARGIN + small.width + 24, size[0] - _MARGIN)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, _COLUMNS)
        sheet.paste(tile, (_MARGIN + column * (_WIDTH + _GAP), _MARGIN + top + row * (height + _GAP)))
    below = _MARGIN + top + rows * (height + _GAP) + 10
    for number, text in enumerate(lines):
        pen.text((_MARGIN, below + 26 * number), text, _INK, _font(18))
    return sheet


def _bars(pen: ImageDraw.ImageDraw, labels: Sequence[tuple[str, float]], left: int, right: int) -> None:
    for number, (label, probability) in enumerate(labels):
        y = _MARGIN + 4 + 33 * number
        pen.text((left, y), label, _INK, _font(17))
        pen.text((right - 56, y), f"{probability:.0%}", _SOFT, _font(17))
        pen.rounded_rectangle((left + 230, y + 8, right - 70, y + 16), 4, "#232342")
        pen.rounded_rectangle(
            (left + 230, y + 8, left + 230 + max(8, probability * (right - left - 300)), y + 16), 4, _ACCENT
        )


def _spread(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return some of the frames, over the whole length."""
    most = _COLUMNS * _ROWS
    if len(frames) <= most:
        return list(frames)
    return [frames[round(index * (len(frames) - 1) / (most - 1))] for index in range(most)]


def _decoded(video: Path, results: Sequence[dict[str, Any]]) -> Iterator[tuple[Image.Image, dict[str, Any]]]:
    waiting = list(results)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        start = float((stream.start_time or 0) * (stream.time_base or 0))
        for frame in container.decode(stream):
            if not waiting:
                return
            if frame.time is not None and frame.time - start >= waiting[0]["time"] - 0.001:
                yield Image.fromarray(frame.to_ndarray(format="rgb24")), waiting.pop(0)


def _with_boxes(image: Image.Image, result: Mapping[str, Any]) -> Image.Image:
    tile = image.resize((_WIDTH, round(image.height * _WIDTH / image.width)))
    pen = ImageDraw.Draw(tile)
    scale = _WIDTH / result["width"]
    for thing in result["objects"]:
        x, y, width, height = (scale * part for part in thing["box"])
        colour = _COLOURS[thing["class"] % len(_COLOURS)]
        pen.rectangle((x, y, x + width, y + height), outline=colour, width=2)
        said = f"{thing['label']} {thing['score']:.0%}"
        box = pen.textbbox((x + 3, max(0, y - 17)), said, _font(13))
        pen.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), colour)
        pen.text((x + 3, max(0, y - 17)), said, "#0e1017", _font(13))
    pen.text(
        (6, tile.height - 20), f"{result['time']:.2f} s", "#ffffff", _font(14), stroke_width=2, stroke_fill="#000000"
    )
    return tile


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
