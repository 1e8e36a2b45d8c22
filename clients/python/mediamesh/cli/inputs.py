"""Values for a run, from the command line: ``--input upload.file=photo.jpg``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.api.media.v1 import media_service_pb2
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
        if not equals or name.count(".") != 1 or not all(name.split(".")):
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
        given: Text by ``node.pin``: a path for media, the value itself for the rest.
        flow: The flow as the mesh checked it.
        media: Where files go.
        workspace_id: Who they belong to.
        progress: Told the pin, the bytes sent and the bytes in all.

    Raises:
        InvalidRequest: a file cannot be read, or a text is not of its pin's type.
    """
    return {
        name: await _value(name, text, flow, media, workspace_id=workspace_id, progress=progress)
        for name, text in given.items()
    }


async def _value(
    name: str,
    text: str,
    flow: Flow,
    media: MediaClient,
    *,
    workspace_id: str,
    progress: Callable[[str, int, int], None],
) -> value_pb2.Value:
    wanted = _wanted_type(name, flow)
    if wanted in MEDIA_TYPES:
        path = Path(text).expanduser()  # noqa: ASYNC240 - a command reads its own disk, and nothing else waits
        if not path.is_file():
            raise InvalidRequest.of_field(name, f"there is no file {text}")
        node_id, pin = name.split(".")
        place = media_service_pb2.MediaPlace(
            workspace_id=workspace_id or "default",
            flow_id=flow.id,
            execution_id="uploads",
            node_id=node_id,
            pin_name=pin,
        )
        stored = await media.upload(
            _pieces(path, lambda sent, total: progress(name, sent, total)),
            media_type=MEDIA_TYPES[wanted],
            place=place,
            filename=path.name,
        )
        return value_pb2.Value(media=stored)
    try:
        return _plain(text, wanted)
    except ValueError as error:
        raise InvalidRequest.of_field(name, f"{text!r} is not a {type_name(wanted)}") from error


def _wanted_type(name: str, flow: Flow) -> PinType.ValueType:
    """Return the type of the pin that a value will enter: that of the first edge away from ``node.pin``."""
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
    if wanted == pin_pb2.PIN_TYPE_BINARY:
        return value_pb2.Value(binary=Path(text).expanduser().read_bytes())
    return value_pb2.Value(text=text)


async def _pieces(path: Path, sent: Callable[[int, int], None]) -> AsyncIterator[bytes]:
    total, done = path.stat().st_size, 0  # noqa: ASYNC240
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece
            done += len(piece)
            sent(done, total)
