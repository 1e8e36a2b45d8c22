"""What streams of results look like in a terminal: words that grow, objects in frames, pages, all of it combined."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from rich.console import Group, RenderableType
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["StreamView", "clean", "told"]

_LIVE_LINES = 6  # of what is said, while it is said
_OTHERS = 12  # chunks of no known kind that are kept
_NAMED = 4  # objects or classes named in a line
_MOST_TEXT = 4000  # characters of plain text shown


def told(data: Any) -> Text:
    """Return a result as one line: what it is about, at which time of the media, and what was found."""
    kind = data.get("type") if isinstance(data, dict) else None
    match kind:
        case "combined":
            late = Text("late ", style="yellow") if data.get("late") else Text()
            return late + told(data.get("result"))
        case "transcript":
            span = f"♪ {_number(data, 'start'):.2f}-{_number(data, 'end'):.2f} s "
            return Text.assemble((span, "dim"), (clean(data.get("text")), "" if data.get("final") else "italic dim"))
        case "frame":
            place = f"▶ {_number(data, 'time'):.2f} s #{_number(data, 'index'):.0f} "
            return Text.assemble((place, "dim"), _seen(data))
        case "image":
            return Text.assemble((f"▣ {_number(data, 'time'):.2f} s ", "dim"), _classes(data.get("classification")))
        case "page":
            lines = [clean(block.get("text")) for block in _objects(data.get("blocks"))]
            place = f"▤ page {_number(data, 'page'):.0f} of {_number(data, 'pages'):.0f}, {len(lines)} lines "
            return Text.assemble((place, "dim"), _shortened(" / ".join(lines)))
        case _:
            return Text(_shortened(clean(data)))


def clean(given: object) -> str:
    """Return what media made an agent say without what would move a terminal's cursor, or worse."""
    text = "" if given is None else str(given)
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


class StreamView:
    """What came on one stream so far."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._late = self._dropped = 0
        self._segments: dict[float, Any] = {}
        self._frame: Any = None
        self._objects: Counter[str] = Counter()
        self._most: Counter[str] = Counter()
        self._lines: deque[Any] = deque(maxlen=_OTHERS)  # images, pages and what is not known
        self._text = ""

    def see(self, chunk: Chunk) -> None:
        """Take note of a chunk."""
        if chunk.HasField("content"):
            self._text = (self._text + clean(chunk.content.text))[-_MOST_TEXT:]
        elif chunk.HasField("snapshot"):
            self._take(json_format.MessageToDict(chunk.snapshot.data))
        elif chunk.HasField("final"):
            self._lines.append(json_format.MessageToDict(chunk.final.data))

    def live(self) -> RenderableType:
        """Return what is to be seen while more comes: the newest, in few lines."""
        return Group(*self._shown(_LIVE_LINES))

    def result(self) -> RenderableType:
        """Return all that was said, and what was seen on the whole."""
        return Group(*self._shown(len(self._segments)), *self._tally())

    def _take(self, data: Any) -> None:
        if isinstance(data, dict) and data.get("type") == "combined":
            self._late += bool(data.get("late"))
            data = data.get("result")
        kind = str(data.get("type")) if isinstance(data, dict) else "value"
        self._kinds[kind] += 1
        if kind == "transcript":
            self._segments[_number(data, "segment")] = data
        elif kind == "frame":
            self._frame = data
            self._dropped += int(_number(data, "dropped"))
            labels = Counter(clean(one.get("label")) for one in _objects(data.get("objects")))
            self._objects.update(labels.keys())
            self._most |= labels
        else:
            self._lines.append(data)

    def _shown(self, segments: int) -> Iterable[RenderableType]:
        if self._text:
            yield Text(self._text)
        yield from map(told, self._lines)
        said = sorted(self._segments.items())[-segments:] if segments else []
        yield from (told(segment) for _, segment in said)
        if self._frame is not None:
            yield told(self._frame)

    def _tally(self) -> Iterable[RenderableType]:
        if frames := self._kinds["frame"]:
            seen = [f"{label} in {count} (up to {self._most[label]})" for label, count in self._objects.most_common(8)]
            dropped = f", {self._dropped} dropped" if self._dropped else ""
            yield Text.assemble((f"{frames} frames{dropped}", "bold"), ": " if seen else "", ", ".join(seen))
        if self._late:
            yield Text(f"{self._late} results were late", style="yellow")


def _seen(frame: dict[str, Any]) -> Text:
    """Return what is in a frame: objects with their places, classes, or what goes on."""
    found: list[str] = []
    if isinstance(activity := frame.get("activity"), dict):
        found.append(f"{clean(activity.get('label'))} {_number(activity, 'score'):.0%}")
    if labels := frame.get("labels"):
        found.append(_classes(labels).plain)
    objects = _objects(frame.get("objects"))
    found += [
        f"{clean(one.get('label'))} {_number(one, 'score'):.0%}{_place(one.get('box'))}" for one in objects[:_NAMED]
    ]
    if len(objects) > _NAMED:
        found.append(f"{len(objects) - _NAMED} more")
    return Text(" · ".join(found) or "nothing")


def _classes(classes: Any) -> Text:
    best = _objects(classes)[:_NAMED]
    return Text(", ".join(f"{clean(one.get('label'))} {_number(one, 'probability'):.1%}" for one in best) or "nothing")


def _objects(given: Any) -> list[dict[str, Any]]:
    return [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []


def _place(box: Any) -> str:
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(side, int | float) for side in box):
        return ""
    left, top, width, height = box
    return f" at {left:.0f},{top:.0f} {width:.0f}x{height:.0f}"


def _number(data: dict[str, Any], name: str) -> float:
    value = data.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
