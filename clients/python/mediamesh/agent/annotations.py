"""What the annotations of a function say about pins.

=============================================  ============================================================
annotation                                     pin
=============================================  ============================================================
``str``, ``float``, ``int``, ``bool``,         ``string``, ``number``, ``number``, ``boolean``,
``bytes``                                      ``binary``
``dict``, ``list``, ``Mapping``, ``Any``...    ``json``
``Literal["a", "b"]``                          ``string`` with ``enum``
``Image``, ``Audio``, ``Video``, ``Document``  media, read on demand
``Annotated[bytes, Image]``                    media, all of its bytes
``AsyncIterator[str]``, or of ``Chunk``        ``stream``
``X | None``                                   that of ``X``, optional
``Annotated[X, "text", PinConstraints(...)]``  that of ``X``, with its description and its limits
=============================================  ============================================================
"""

from __future__ import annotations

import collections.abc
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mediamesh.agent.media_input import MediaInput
from mediamesh.api.agent.v1.pin_pb2 import Pin, PinConstraints, PinType
from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["Meaning", "meaning"]

_PLAIN: dict[object, PinType.ValueType] = {
    str: PinType.PIN_TYPE_STRING,
    float: PinType.PIN_TYPE_NUMBER,
    int: PinType.PIN_TYPE_NUMBER,
    bool: PinType.PIN_TYPE_BOOLEAN,
    bytes: PinType.PIN_TYPE_BINARY,
}
_JSON = (dict, list, tuple, collections.abc.Mapping, collections.abc.Sequence)
_ASYNC_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)
_STREAMS = (*_ASYNC_STREAMS, collections.abc.Iterator, collections.abc.Generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What one annotation says.

    Attributes:
        pin: The pin, without its name.
        python: What the function wants or gives: str, int, bytes, a class of MediaInput, Chunk...
        blocking: Whether it is an iterator that is not asynchronous.
    """

    pin: Pin
    python: Any
    blocking: bool = False


def meaning(annotation: Any) -> Meaning:
    """Return what an annotation says.

    Raises:
        TypeError: no pin carries such values; the text goes on from a name.
    """
    annotation, optional = _without_none(annotation)
    notes: tuple[Any, ...] = ()
    if get_origin(annotation) is Annotated:
        annotation, *rest = get_args(annotation)
        notes = tuple(rest)
        annotation, also = _without_none(annotation)
        optional = optional or also
    found = _of_type(annotation, notes)
    found.pin.optional = optional
    for note in notes:
        if isinstance(note, str):
            found.pin.description = note
        elif isinstance(note, PinConstraints):
            found.pin.constraints.MergeFrom(note)
    return found


def _of_type(annotation: Any, notes: tuple[Any, ...]) -> Meaning:
    media = next((note for note in (annotation, *notes) if _is_media(note)), None)
    if media is not None:
        if annotation not in {media, bytes}:
            raise TypeError(f"must be {media.__name__} or bytes, is {_called(annotation)}")
        return Meaning(pin=Pin(type=media.pin_type), python=annotation)
    if annotation in _PLAIN:
        return Meaning(pin=Pin(type=_PLAIN[annotation]), python=annotation)
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return _of_literal(get_args(annotation))
    if origin in _STREAMS:
        return _of_stream(annotation, blocking=origin not in _ASYNC_STREAMS)
    if annotation is Any or annotation is object or origin in _JSON or typing.is_typeddict(annotation):
        return Meaning(pin=Pin(type=PinType.PIN_TYPE_JSON), python=annotation)
    raise TypeError(f"is {_called(annotation)}, and no pin carries that")


def _of_literal(values: tuple[Any, ...]) -> Meaning:
    if not all(isinstance(value, str) for value in values):
        raise TypeError("is a Literal of something else than texts")
    constraints = PinConstraints(enum_values=values)
    return Meaning(pin=Pin(type=PinType.PIN_TYPE_STRING, constraints=constraints), python=str)


def _of_stream(annotation: Any, *, blocking: bool) -> Meaning:
    item = next(iter(get_args(annotation)), Chunk)
    if item not in {str, Chunk}:
        raise TypeError(f"is a stream of {_called(item)}, and chunks are str or Chunk")
    return Meaning(pin=Pin(type=PinType.PIN_TYPE_STREAM), python=item, blocking=blocking)


def _is_media(note: Any) -> bool:
    return isinstance(note, type) and issubclass(note, MediaInput)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Return ``X`` of ``X | None``, and whether None was there."""
    if get_origin(annotation) not in {Union, types.UnionType}:
        return annotation, False
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    if len(kinds) == 1:
        return kinds[0], True
    if set(kinds) <= {int, float}:
        return float, len(kinds) < len(get_args(annotation))
    raise TypeError(f"is {_called(annotation)}, one of several types")


def _called(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
