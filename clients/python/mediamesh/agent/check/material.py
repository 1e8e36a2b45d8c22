"""Made-up values for the pins of any agent, right ones and wrong ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import json_format, struct_pb2

from mediamesh.agent.check.media_files import pdf, png, wav
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Media, MediaEncoding, MediaMetadata, Snapshot, TextContent
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.pins import MEDIA_TYPES, accepts, type_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin, PinConstraints

__all__ = ["Sample", "beyond_limits", "candidates", "chunk", "made_up", "of_another_type", "stream_frames"]

_TEXT = "mediamesh"
_RATE_HZ, _SECONDS = 16_000, 1.0
_CHUNKS = 2


class Sample(NamedTuple):
    """A run that an agent may be expected to finish."""

    opening: OpenRun
    frames: list[RunRequest]

    @property
    def requests(self) -> list[RunRequest]:
        """All frames, the opening first."""
        return [RunRequest(open=self.opening), *self.frames]


def candidates(manifest: Manifest, given: Mapping[str, Value], params: struct_pb2.Struct) -> Iterator[Sample]:
    """Yield runs to try: with all inputs, with one of the optional ones, with none of them.

    Args:
        manifest: What the agent takes.
        given: Values for input pins that are not to be made up.
        params: Parameters; those that are required and not there are made up.

    Raises:
        InvalidRequest: a value for a required pin cannot be made up.
    """
    needed = [pin for pin in manifest.inputs if not pin.optional or pin.name in given]
    optional = [pin for pin in manifest.inputs if pin.optional and pin.name not in given and _can_make(pin)]
    yield _sample(manifest, [*needed, *optional], given, params)
    if len(optional) > 1:
        for pin in optional:
            yield _sample(manifest, [*needed, pin], given, params)
    if optional:
        yield _sample(manifest, needed, given, params)


def stream_frames(pins: list[Pin], texts: Mapping[str, str] | None = None) -> list[RunRequest]:
    """Return two chunks for each stream pin, and its end."""
    frames = []
    for pin in pins:
        text = (texts or {}).get(pin.name, _TEXT)
        frames += [
            RunRequest(chunk=PinChunk(pin=pin.name, chunk=chunk(pin, number, text))) for number in range(1, _CHUNKS + 1)
        ]
        frames.append(RunRequest(end=PinEnd(pin=pin.name)))
    return frames


def chunk(pin: Pin, number: int, text: str = _TEXT, *, size: int = 0) -> Chunk:
    """Return a chunk that the stream pin takes: a tenth of a second of sound where it wants audio, else text.

    A text that is a JSON object becomes a snapshot, as results come on streams.

    Args:
        pin: The pin.
        number: Sequence number.
        text: The text, repeated to the size.
        size: Bytes wanted, roughly; as it is when 0.
    """
    if any(accepts(pattern, f"audio/pcm;rate={_RATE_HZ}") for pattern in pin.constraints.mime_types) or any(
        pattern.startswith("audio/") for pattern in pin.constraints.mime_types
    ):
        sound = bytes(size or _RATE_HZ // 5)
        media = Media(
            media_type=MediaType.MEDIA_TYPE_AUDIO,
            encoding=MediaEncoding.MEDIA_ENCODING_BINARY,
            binary=sound,
            metadata=MediaMetadata(mime_type=f"audio/pcm;rate={_RATE_HZ}"),
        )
        return Chunk(sequence_number=number, media=media)
    if text.startswith("{"):
        try:
            return Chunk(sequence_number=number, snapshot=Snapshot(data=json_format.Parse(text, struct_pb2.Value())))
        except json_format.ParseError as error:
            raise InvalidRequest.of_field(f"--input {pin.name}", f"is no JSON: {error}") from None
    repeated = f"{text} " * (size // (len(text.encode()) + 1)) or text
    return Chunk(sequence_number=number, content=TextContent(text=repeated))


def made_up(pin: Pin) -> Value:
    """Return a value that the pin takes.

    Raises:
        InvalidRequest: there is no telling what it takes.
    """
    limits = pin.constraints
    match pin.type:
        case PinType.PIN_TYPE_STRING:
            return Value(text=limits.enum_values[0] if limits.enum_values else _cut(_TEXT, limits))
        case PinType.PIN_TYPE_NUMBER:
            return Value(number=_number(limits))
        case PinType.PIN_TYPE_BOOLEAN:
            return Value(boolean=True)
        case PinType.PIN_TYPE_BINARY:
            return Value(binary=_cut(_TEXT, limits).encode())
        case kind if kind in MEDIA_TYPES:
            return Value(media=MediaValue(type=MEDIA_TYPES[kind], inline=_media(pin)))
    return Value(json=json_format.ParseDict({"text": _TEXT}, struct_pb2.Value()))


def of_another_type(pin: Pin) -> Value:
    """Return a value that no pin of this type takes."""
    if pin.type in {PinType.PIN_TYPE_STRING, PinType.PIN_TYPE_JSON}:
        return Value(number=1.0)
    return Value(text=_TEXT)


def beyond_limits(pin: Pin) -> Iterator[tuple[str, Value]]:
    """Yield values of the pin's type that break one of its limits each, and the limit's name."""
    limits = pin.constraints
    is_text, is_bytes = pin.type == PinType.PIN_TYPE_STRING, pin.type == PinType.PIN_TYPE_BINARY
    if is_text and limits.enum_values:
        yield "enum", Value(text="".join(limits.enum_values) + "-none-of-them")
    elif is_text and 0 < limits.max_size_bytes < 100_000:
        yield "maxSize", Value(text="x" * (limits.max_size_bytes + 1))
    if is_bytes and 0 < limits.max_size_bytes < 100_000:
        yield "maxSize", Value(binary=bytes(limits.max_size_bytes + 1))
    if pin.type == PinType.PIN_TYPE_NUMBER and limits.HasField("minimum"):
        yield "minimum", Value(number=limits.minimum - 1)
    if pin.type == PinType.PIN_TYPE_NUMBER and limits.HasField("maximum"):
        yield "maximum", Value(number=limits.maximum + 1)


def _sample(manifest: Manifest, pins: list[Pin], given: Mapping[str, Value], params: struct_pb2.Struct) -> Sample:
    streams = [pin for pin in pins if pin.type == PinType.PIN_TYPE_STREAM]
    opening = OpenRun(agent_id=manifest.id, stream_inputs=[pin.name for pin in streams], params=params)
    for pin in pins:
        if pin not in streams:
            opening.inputs[pin.name].CopyFrom(given[pin.name] if pin.name in given else made_up(pin))
    for param in manifest.params:
        needed = not param.optional and not param.HasField("default_value")
        if needed and param.name not in opening.params.fields:
            opening.params.fields[param.name].CopyFrom(_as_json(made_up(param)))
    texts = {name: value.text for name, value in given.items() if value.HasField("text")}
    return Sample(opening, stream_frames(streams, texts))


def _can_make(pin: Pin) -> bool:
    try:
        return bool(made_up(pin))
    except InvalidRequest:
        return False


def _as_json(value: Value) -> struct_pb2.Value:
    match value.WhichOneof("kind"):
        case "text":
            return struct_pb2.Value(string_value=value.text)
        case "number":
            return struct_pb2.Value(number_value=value.number)
        case "boolean":
            return struct_pb2.Value(bool_value=value.boolean)
    return value.json


def _cut(text: str, limits: PinConstraints) -> str:
    return text[: limits.max_size_bytes or None]


def _number(limits: PinConstraints) -> float:
    least = limits.minimum if limits.HasField("minimum") else min(1.0, limits.maximum or 1.0)
    return max(least, min(1.0, limits.maximum)) if limits.HasField("maximum") else max(least, 1.0)


def _media(pin: Pin) -> bytes:
    limits = pin.constraints
    patterns = list(limits.mime_types) or ["*/*"]
    if pin.type == PinType.PIN_TYPE_IMAGE and any(accepts(pattern, "image/png") for pattern in patterns):
        return png(limits.width or 64, limits.height or 48)
    if pin.type == PinType.PIN_TYPE_AUDIO and any(accepts(pattern, "audio/wav") for pattern in patterns):
        seconds = min(_SECONDS, limits.max_duration_seconds or _SECONDS)
        return wav(limits.sample_rate_hz or _RATE_HZ, limits.channels or 1, seconds)
    if pin.type == PinType.PIN_TYPE_DOCUMENT and any(accepts(pattern, "application/pdf") for pattern in patterns):
        return pdf(_TEXT)
    raise InvalidRequest.of_field(
        f"--input {pin.name}", f"must be a file: {type_name(pin.type)} of {', '.join(patterns)} is not made up"
    )
