"""Values for a run, from the command line: ``--input upload.file=photo.jpg --input recorder.audio=speech.wav``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.media.v1 import media_pb2, media_service_pb2
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.pins import MEDIA_TYPES, type_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from mediamesh.api.agent.v1.pin_pb2 import PinType
    from mediamesh.api.flow.v1.flow_pb2 import Flow
    from mediamesh.client.media import MediaClient

__all__ = ["read", "values"]

_PIECE_BYTES = 256 * 1024


def read(arguments: Sequence[str]) -> dict[str, str]:
    """Return text by ``node.pin``.

    Raises:
        InvalidRequest: an argument is not ``node.pin=VALUE``, or names a pin twice.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or "." not in name or not all(name.split(".")):
            raise InvalidRequest.of_field("--input", f"{argument!r} is not of the form node.pin=VALUE")
        if name in given:
            raise InvalidRequest.of_field("--input", f"{name} is given twice")
        given[name] = text
    return given


async def values(
    given: Mapping[str, str],
    flow: Flow,
    media: MediaClient,
    *,
    workspace_id: str,
    progress: Callable[[str, int, int], None],
) -> dict[str, value_pb2.Value]:
    """Turn texts into values of the types that the flow's pins want; files for media pins are uploaded.

    Args:
        given: Text by ``node.pin``: a path for media, or an address in the store; the value itself for the rest.
        flow: The flow as the mesh checked it.
        media: Where files go.
        workspace_id: Who they belong to.
        progress: Told the pin, the bytes sent and the bytes in all.

    Raises:
        InvalidRequest: a file cannot be read, or a text is not of its pin's type.
    """
    store = _Store(media, flow.id, workspace_id or "default", progress)
    return {name: await _value(name, text, _wanted_type(name, flow), store) for name, text in given.items()}


async def _value(name: str, text: str, wanted: PinType.ValueType, store: _Store) -> value_pb2.Value:
    if wanted in MEDIA_TYPES:
        return value_pb2.Value(media=await store.media_of(name, text, MEDIA_TYPES[wanted]))
    if wanted == pin_pb2.PIN_TYPE_BINARY:
        return value_pb2.Value(binary=_content(name, text))
    try:
        return _plain(text, wanted)
    except ValueError as error:
        raise InvalidRequest.of_field(name, f"{text!r} is not a {type_name(wanted)}") from error


class _Store:
    """The media store, as the place that one flow's files go to."""

    def __init__(
        self, media: MediaClient, flow_id: str, workspace_id: str, progress: Callable[[str, int, int], None]
    ) -> None:
        self._media, self._flow_id, self._workspace_id, self._progress = media, flow_id, workspace_id, progress

    async def media_of(self, name: str, text: str, kind: media_pb2.MediaType.ValueType) -> media_pb2.MediaValue:
        """Return the media at an address in the store, or of a file, which is uploaded."""
        if text.startswith("s3://"):
            return media_pb2.MediaValue(type=kind, ref=media_pb2.MediaReference(url=text))
        path = _file(name, text)
        node_id, _, pin = name.rpartition(".")  # a node of a flow within the flow has dots in its id
        place = media_service_pb2.MediaPlace(
            workspace_id=self._workspace_id,
            flow_id=self._flow_id,
            execution_id="uploads",
            node_id=node_id,
            pin_name=pin,
        )
        try:
            return await self._media.upload(
                _pieces(path, lambda sent, total: self._progress(name, sent, total)),
                media_type=kind,
                place=place,
                filename=path.name,
            )
        except InvalidRequest as error:
            # The fields of an upload are no affair of who gave a file.
            what = "; ".join(description for _, description in error.violations) or error.text
            raise type(error).of_field(name, f"{path.name}: {what}", **error.metadata) from error
        except OSError as error:
            raise _unreadable(name, text, error) from error


def _file(name: str, text: str) -> Path:
    try:
        path = Path(text).expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # a RuntimeError where there is no such home
        raise _unreadable(name, text, error) from error
    raise InvalidRequest.of_field(name, f"there is no file {text}")


def _content(name: str, text: str) -> bytes:
    try:
        return Path(text).expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise _unreadable(name, text, error) from error


def _unreadable(name: str, text: str, error: OSError | RuntimeError) -> InvalidRequest:
    why = error.strerror if isinstance(error, OSError) else error
    return InvalidRequest.of_field(name, f"{text} cannot be read: {why}")


def _wanted_type(name: str, flow: Flow) -> PinType.ValueType:
    """Return the type of an input: that of the pin itself, or of the one that its first edge enters.

    The mesh gives the pin of an upload the type of the pin that it feeds.
    """
    outputs = {f"{node.id}.{pin.name}": pin.type for node in flow.nodes for pin in node.output_pins}
    if name in outputs:
        return outputs[name]
    pins = {(node.id, pin.name): pin.type for node in flow.nodes for pin in node.input_pins}
    for edge in flow.edges:
        source = getattr(edge, "from")  # a keyword of Python
        if f"{source.node_id}.{source.pin}" == name:
            return pins.get((edge.to.node_id, edge.to.pin), pin_pb2.PIN_TYPE_STRING)
    return pin_pb2.PIN_TYPE_STRING


def _plain(text: str, wanted: PinType.ValueType) -> value_pb2.Value:
    if wanted == pin_pb2.PIN_TYPE_NUMBER:
        return value_pb2.Value(number=float(text))
    if wanted == pin_pb2.PIN_TYPE_BOOLEAN:
        if text not in {"true", "false"}:
            raise ValueError(text)
        return value_pb2.Value(boolean=text == "true")
    if wanted == pin_pb2.PIN_TYPE_JSON:
        value = value_pb2.Value()
        json_format.ParseDict(json.loads(text), value.json)
        return value
    return value_pb2.Value(text=text)


async def _pieces(path: Path, sent: Callable[[int, int], None]) -> AsyncIterator[bytes]:
    total, done = path.stat().st_size, 0  # noqa: ASYNC240
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
            done += len(piece)
            sent(done, total)
