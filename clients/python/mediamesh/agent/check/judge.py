"""The frames that a run gave, against the contract and the agent's manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import protovalidate

from mediamesh.agent.pins import check_at_agent
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.wire import chunks
from mediamesh.wire.pins import MEDIA_TYPES, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, PinEnd, PinMedia, PinValue, RunResponse
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["Judgement", "judge"]

_SENTENCES = 4  # of one kind; the rest says nothing new


class Judgement:
    """The faults of one run, by what they break: rules, finish, pins, types, sequences, whole."""

    def __init__(self) -> None:
        self._faults: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, kind: str, text: str) -> None:
        """Note a fault."""
        self._faults[kind][text] = None

    def faults(self, kind: str) -> str:
        """Return the faults of a kind as a text; empty when there are none."""
        found = list(self._faults[kind])
        more = [f"and {len(found) - _SENTENCES} more"] if len(found) > _SENTENCES else []
        return "; ".join(found[:_SENTENCES] + more)


def judge(manifest: Manifest, frames: Iterable[RunResponse]) -> Judgement:
    """Return what is wrong with the frames of a run that ended with OK."""
    walk = _Walk(manifest)
    for frame in frames:
        walk.take(frame)
    walk.end()
    return walk.judgement


class _Walk:
    """From the first frame to the last, and what was seen so far."""

    def __init__(self, manifest: Manifest) -> None:
        self.judgement = Judgement()
        self._pins: Mapping[str, Pin] = {pin.name: pin for pin in manifest.outputs}
        self._finished = False
        self._chunks: Counter[str] = Counter()  # sequence number of the last chunk
        self._ended: dict[str, str] = {}  # by stream, what ended it
        self._offsets: Counter[str] = Counter()
        self._given: set[str] = set()
        self._open_media: set[str] = set()

    def take(self, frame: RunResponse) -> None:
        kind = frame.WhichOneof("message") or "an empty frame"
        if self._finished:
            self.judgement.add("finish", f"{kind} came after finished")
        self._rules(frame, kind)
        handlers: dict[str, Callable[[], None]] = {
            "output": lambda: self._value(frame.output),
            "media": lambda: self._media(frame.media),
            "chunk": lambda: self._chunk(frame.chunk),
            "end": lambda: self._end(frame.end),
        }
        if kind in handlers:
            handlers[kind]()
        self._finished = self._finished or kind == "finished"

    def end(self) -> None:
        if not self._finished:
            self.judgement.add("finish", "the call ended with OK and without finished")
        for name, pin in self._pins.items():
            if pin.type == PinType.PIN_TYPE_STREAM:
                if self._ended.get(name) != "end":
                    self.judgement.add("whole", f"the stream {name} has no end frame")
            elif name not in self._given and not pin.optional:
                self.judgement.add("whole", f"output {name} is missing")
        for name in sorted(self._open_media):
            self.judgement.add("whole", f"the media on {name} has no last piece")

    def _rules(self, frame: RunResponse, kind: str) -> None:
        try:
            protovalidate.validate(frame)
        except protovalidate.ValidationError as error:
            broken = {violation.proto.message for violation in error.violations}
            self.judgement.add("rules", f"{kind}: {', '.join(sorted(broken))}")
        if frame.HasField("chunk") and frame.chunk.HasField("chunk"):
            for path, text in chunks.problems(frame.chunk.chunk, fields_checked=True):
                self.judgement.add("rules", f"chunk on {frame.chunk.pin}: {path}: {text}")

    def _pin(self, name: str, frame: str) -> Pin | None:
        """Return the pin where it takes such a frame, else None after noting it."""
        pin = self._pins.get(name)
        if pin is None:
            self.judgement.add("pins", f"output {name!r} is not in the manifest, which has {', '.join(self._pins)}")
            return None
        fits = {
            "output": pin.type != PinType.PIN_TYPE_STREAM,
            "media": pin.type in MEDIA_TYPES,
            "chunk": pin.type == PinType.PIN_TYPE_STREAM,
            "end": pin.type == PinType.PIN_TYPE_STREAM,
        }
        if not fits[frame]:
            self.judgement.add("types", f"{name} is {type_name(pin.type)} and got a frame of the kind {frame}")
            return None
        return pin

    def _once(self, name: str) -> None:
        if name in self._given:
            self.judgement.add("whole", f"output {name} was given twice")
        self._given.add(name)

    def _value(self, frame: PinValue) -> None:
        pin = self._pin(frame.pin, "output")
        if pin is not None:
            self._once(pin.name)
            for violation in check_at_agent(pin, frame.value):
                self.judgement.add("types", f"{pin.name} {violation.text}")

    def _media(self, frame: PinMedia) -> None:
        pin = self._pin(frame.pin, "media")
        if pin is None:
            return
        if pin.name not in self._open_media:
            self._once(pin.name)
            self._open_media.add(pin.name)
        if frame.type != MEDIA_TYPES[pin.type]:
            self.judgement.add("types", f"{pin.name} is {type_name(pin.type)} and got other media")
        if frame.offset != self._offsets[pin.name]:
            expected = self._offsets[pin.name]
            self.judgement.add("sequences", f"media on {pin.name} at offset {frame.offset}, expected {expected}")
        self._offsets[pin.name] = frame.offset + len(frame.data)
        if 0 < pin.constraints.max_size_bytes < self._offsets[pin.name]:
            self.judgement.add("types", f"{pin.name} must be at most {pin.constraints.max_size_bytes} bytes")
        if frame.last:
            self._open_media.discard(pin.name)
            if not self._offsets[pin.name]:
                self.judgement.add("whole", f"the media on {pin.name} is empty")

    def _chunk(self, frame: PinChunk) -> None:
        pin = self._pin(frame.pin, "chunk")
        if pin is None:
            return
        if ended := self._ended.get(pin.name):
            self.judgement.add("sequences", f"a chunk on {pin.name} came after its {ended}")
        self._chunks[pin.name] += 1
        expected, has = self._chunks[pin.name], frame.chunk.sequence_number
        if has != expected:
            self.judgement.add("sequences", f"chunk {has} on {pin.name}, expected {expected}")
            self._chunks[pin.name] = has
        if chunks.is_terminal(frame.chunk):
            self._ended[pin.name] = f"{chunks.kind_of(frame.chunk)} chunk"

    def _end(self, frame: PinEnd) -> None:
        pin = self._pin(frame.pin, "end")
        if pin is not None:
            if self._ended.get(pin.name) == "end":
                self.judgement.add("sequences", f"{pin.name} ended twice")
            self._ended[pin.name] = "end"
