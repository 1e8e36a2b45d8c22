"""Plain functions as agents: their signature is the manifest."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import inspect
import typing
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from google.protobuf import json_format

from mediamesh.agent.agent import Agent
from mediamesh.agent.annotations import Meaning, meaning
from mediamesh.agent.manifest import InvalidManifest, manifest_problems
from mediamesh.agent.media_input import MediaInput
from mediamesh.agent.run import Run
from mediamesh.api.agent.v1.manifest_pb2 import Manifest
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.pins import MEDIA_TYPES

if TYPE_CHECKING:
    from mediamesh.agent.output import Output
    from mediamesh.api.agent.v1.pin_pb2 import Pin
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk

__all__ = ["FunctionAgent", "agent"]

P = ParamSpec("P")
R = TypeVar("R")
_DONE = object()


def agent(
    id: str,  # noqa: A002 - named as in manifests
    *,
    version: str = "0.1.0",
    output: str = "result",
    manifest: Manifest | None = None,
) -> Callable[[Callable[P, R]], FunctionAgent[P, R]]:
    """Make an agent of a function; it can still be called as before.

    Parameters are inputs, those behind ``*`` are parameters of the node, and one annotated ``Run`` gets the run.
    What the function returns is the output: one pin, or one for each field of a TypedDict, NamedTuple or dataclass. The
    first paragraph of its docstring is the description. mediamesh.agent.annotations says which type is which pin. A
    function that is no ``async def`` runs in a thread, and goes on there when its run is cancelled.

    Args:
        id: Id of the agent.
        version: Its semantic version.
        output: Name of the output pin, where there is one.
        manifest: Whatever else is to be declared, such as resources, response and cache.

    Raises:
        TypeError: a parameter, or what is returned, has an annotation that no pin carries, or none.
        InvalidManifest: what comes of it is no manifest.
    """

    def decorate(function: Callable[P, R]) -> FunctionAgent[P, R]:
        declared = Manifest(id=id, version=version)
        declared.MergeFrom(manifest or Manifest())
        return FunctionAgent(function, declared, output=output)

    return decorate


class FunctionAgent(Agent, Generic[P, R]):
    """The agent that a function is; calling it calls the function.

    Args:
        function: The function.
        manifest: Id and version, and what the signature does not say.
        output: Name of the output pin, where there is one.
    """

    def __init__(self, function: Callable[P, R], manifest: Manifest, *, output: str) -> None:
        functools.update_wrapper(self, function)
        self._function, self._manifest = function, manifest
        self._work: Callable[..., Any] = function  # with arguments that only the manifest has checked
        self._is_async = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        hints = _hints(function)
        self._inputs: dict[str, Meaning] = {}  # by parameter of the function
        self._params: dict[str, Meaning] = {}
        self._run_parameter = ""
        for parameter in inspect.signature(function).parameters.values():
            self._declare(parameter, hints)
        self._outputs = _outputs(function, hints, output)
        self._single = len(self._outputs) == 1 and not _fields(hints.get("return"))
        manifest.inputs.extend(found.pin for found in self._inputs.values())
        manifest.params.extend(found.pin for found in self._params.values())
        manifest.outputs.extend(self._outputs)
        manifest.description = manifest.description or inspect.cleandoc(function.__doc__ or "").partition("\n\n")[0]
        if problems := manifest_problems(manifest):
            raise InvalidManifest.of_fields((f"{manifest.id}: {path}", text) for path, text in problems)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function."""
        return self._function(*args, **kwargs)

    def describe(self) -> Manifest:
        """Return the manifest that the signature is."""
        return self._manifest

    async def process(self, run: Run) -> Mapping[str, Output] | None:
        """Call the function with the inputs of the run."""
        arguments: dict[str, Any] = {}
        for name, found in self._inputs.items():
            if found.pin.type == PinType.PIN_TYPE_STREAM:
                arguments[name] = _texts(run.stream(found.pin.name), found)
            elif found.pin.name in run.inputs:
                arguments[name] = await _argument(run, found)
        for name, found in self._params.items():
            if found.pin.name in run.params:
                arguments[name] = _whole(run.params[found.pin.name], found, "params")
        if self._run_parameter:
            arguments[self._run_parameter] = run
        return self._named(await self._call(arguments))

    async def _call(self, arguments: Mapping[str, Any]) -> Any:
        if inspect.isasyncgenfunction(self._work):
            return self._work(**arguments)
        if self._is_async:
            return await self._work(**arguments)
        return await asyncio.to_thread(self._work, **arguments)

    def _named(self, result: Any) -> Mapping[str, Output] | None:
        given: Mapping[str, Any]
        if self._single:
            (pin,) = self._outputs
            given = {pin.name: _stepped(result) if isinstance(result, Iterator) else result}
            return given if result is not None or not pin.optional else {}
        names = [pin.name for pin in self._outputs]
        given = result if isinstance(result, Mapping) else {name: getattr(result, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    def _declare(self, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
        where = f"{self._function.__name__}: parameter {parameter.name}"
        if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
            raise TypeError(f"{where} is positional only or variadic; pins have names")
        if parameter.name not in hints:
            raise TypeError(f"{where} has no annotation")
        if hints[parameter.name] is Run:
            self._run_parameter = parameter.name
            return
        try:
            found = meaning(hints[parameter.name])
            self._check_taken(found)
        except TypeError as error:
            raise TypeError(f"{where} {error}") from None
        found.pin.name = parameter.name.removesuffix("_")
        if found.pin.optional and parameter.default is parameter.empty:
            raise TypeError(f"{where} may be None and has no default: what is not there is left out of the call")
        if parameter.kind == parameter.KEYWORD_ONLY:
            _take_default(found.pin, parameter)
            self._params[parameter.name] = found
        else:
            found.pin.optional = parameter.default is not parameter.empty
            self._inputs[parameter.name] = found

    def _check_taken(self, found: Meaning) -> None:
        if found.pin.type == PinType.PIN_TYPE_STREAM and (found.blocking or not self._is_async):
            raise TypeError("is a stream, which an `async def` takes as an AsyncIterator")
        if not self._is_async and isinstance(found.python, type) and issubclass(found.python, MediaInput):
            name = found.python.__name__
            raise TypeError(f"is read by an `async def`; annotate it Annotated[bytes, {name}] to get all of its bytes")


def _take_default(pin: Pin, parameter: inspect.Parameter) -> None:
    if parameter.default is parameter.empty:
        return
    if parameter.default is None:
        pin.optional = True
        return
    pin.optional = False
    json_format.ParseDict(parameter.default, pin.default_value)


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        text = f"{function.__name__}: its annotations must have a meaning when it runs, also those imported for types"
        raise TypeError(f"{text}: {error}") from None


def _outputs(function: Callable[..., object], hints: Mapping[str, Any], name: str) -> list[Pin]:
    if "return" not in hints:
        raise TypeError(f"{function.__name__}: what it returns has no annotation")
    returned = hints["return"]
    if returned is type(None):
        return []
    try:
        fields = _fields(returned) or {name: returned}
        pins = {field: meaning(annotation).pin for field, annotation in fields.items()}
    except TypeError as error:
        raise TypeError(f"{function.__name__}: what it returns {error}") from None
    for field, pin in pins.items():
        pin.name = field
        pin.optional = pin.optional or field in getattr(returned, "__optional_keys__", ())
    return list(pins.values())


def _fields(returned: Any) -> dict[str, Any]:
    """Return the annotations of something that has a pin for each field; empty for everything else."""
    is_tuple = isinstance(returned, type) and issubclass(returned, tuple) and hasattr(returned, "_fields")
    if is_tuple or typing.is_typeddict(returned) or dataclasses.is_dataclass(returned):
        hints = typing.get_type_hints(returned, include_extras=True)
        return {name: _required(annotation) for name, annotation in hints.items()}
    return {}


def _required(annotation: Any) -> Any:
    """Return the type of a field; with None where a TypedDict may leave it out."""
    origin, types = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.NotRequired:
        return types[0] | None
    return types[0] if origin is typing.Required else annotation


async def _argument(run: Run, found: Meaning) -> Any:
    pin = found.pin
    if pin.type in MEDIA_TYPES:
        return await run.download(pin.name) if found.python is bytes else found.python(run, pin.name)
    if pin.type == PinType.PIN_TYPE_BINARY:
        return await run.download(pin.name)
    return _whole(run.inputs[pin.name], found, "inputs")


def _whole(value: Any, found: Meaning, where: str) -> Any:
    if found.python is not int:
        return value
    if isinstance(value, float) and not value.is_integer():
        raise InvalidRequest.of_field(f"{where}.{found.pin.name}", f"must be a whole number, is {value}")
    return int(value)


async def _texts(chunks: AsyncIterator[Chunk], found: Meaning) -> AsyncIterator[Any]:
    """Yield what the function wants of a stream: the chunks, or of those that carry text, the text."""
    async for chunk in chunks:
        if found.python is not str:
            yield chunk
        elif chunk.HasField("content"):
            yield chunk.content.text


async def _stepped(pieces: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield what an iterator gives, each step in a thread."""
    while (piece := await asyncio.to_thread(next, pieces, _DONE)) is not _DONE:
        yield piece
