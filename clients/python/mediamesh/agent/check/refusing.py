"""Checks of what an agent must refuse before it does anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf import struct_pb2

from mediamesh.agent.check.findings import Broken, Unclear
from mediamesh.agent.check.material import beyond_limits, of_another_type
from mediamesh.api.agent.v1.agent_service_pb2 import PinEnd, RunRequest
from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.agent.v1.value_pb2 import StreamReference, Value
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.wire.modalities import refusal
from mediamesh.wire.pins import MEDIA_TYPES
from mediamesh.wire.responses import may_stream

if TYPE_CHECKING:
    from mediamesh.agent.check.subject import Subject

__all__ = ["REFUSING"]

_NO_SUCH = "no_such_thing"


async def unknown_agent(subject: Subject) -> str:
    """A run of an agent that is not there is NOT_FOUND."""
    opening = subject.opening()
    opening.agent_id = "conformance.no-such-agent"
    await subject.refuses(opening, "an unknown agent id", codes={grpc.StatusCode.NOT_FOUND})
    return "NOT_FOUND"


async def open_first(subject: Subject) -> str:
    """A run that does not begin with `open` is INVALID_ARGUMENT."""
    await subject.refuses([RunRequest(end=PinEnd(pin="words"))], "an end frame before open")
    return "INVALID_ARGUMENT"


async def no_frames(subject: Subject) -> str:
    """A caller that half-closes without a word is told INVALID_ARGUMENT, and is not kept waiting."""
    await subject.refuses([], "no frames at all")
    return "INVALID_ARGUMENT"


async def missing_inputs(subject: Subject) -> str:
    """A run without an input that is not optional is INVALID_ARGUMENT, and the status names the input."""
    needed = [pin for pin in subject.manifest.inputs if not pin.optional]
    for pin in needed:
        opening = subject.opening()
        frames = [frame for frame in subject.sample.frames if pin.name not in {frame.chunk.pin, frame.end.pin}]
        if pin.name in opening.stream_inputs:
            opening.stream_inputs.remove(pin.name)
        else:
            del opening.inputs[pin.name]
        await subject.refuses([RunRequest(open=opening), *frames], f"no input {pin.name}", field=f"inputs.{pin.name}")
    return _counted(len(needed), "required inputs")


async def unknown_input(subject: Subject) -> str:
    """An input that the manifest does not have is INVALID_ARGUMENT, whether a value or a stream."""
    opening = subject.opening()
    opening.inputs[_NO_SUCH].text = "x"
    await subject.refuses(opening, "an input that is not in the manifest", field=_NO_SUCH)
    opening = subject.opening()
    opening.stream_inputs.append(_NO_SUCH)
    await subject.refuses(opening, "a stream input that is not in the manifest", field=_NO_SUCH)
    return "INVALID_ARGUMENT"


async def input_types(subject: Subject) -> str:
    """A value of another type than its pin's is INVALID_ARGUMENT; chunks come as frames, never as a reference."""
    pins = [pin for pin in subject.manifest.inputs if pin.name not in subject.sample.opening.stream_inputs]
    for pin in pins:
        opening = subject.opening()
        opening.inputs[pin.name].CopyFrom(of_another_type(pin))
        await subject.refuses(opening, f"a value of the wrong type on {pin.name}", field=f"inputs.{pin.name}")
    for pin in subject.streams:
        opening = subject.opening()
        opening.stream_inputs.remove(pin.name)
        opening.inputs[pin.name].stream.CopyFrom(StreamReference(stream_id="elsewhere"))
        frames = [frame for frame in subject.sample.frames if pin.name not in {frame.chunk.pin, frame.end.pin}]
        await subject.refuses([RunRequest(open=opening), *frames], f"a reference to a stream on {pin.name}")
    return _counted(len(pins) + len(subject.streams), "inputs")


async def input_limits(subject: Subject) -> str:
    """A value beyond a limit of its pin is INVALID_ARGUMENT."""
    count = 0
    for pin in subject.manifest.inputs:
        for limit, value in beyond_limits(pin):
            opening = subject.opening()
            opening.inputs[pin.name].CopyFrom(value)
            await subject.refuses(opening, f"a value on {pin.name} beyond its {limit}", field=f"inputs.{pin.name}")
            count += 1
    return _counted(count, "limits")


async def params(subject: Subject) -> str:
    """A parameter that is unknown, missing, of another type or beyond a limit is INVALID_ARGUMENT."""
    opening = subject.opening()
    opening.params.fields[_NO_SUCH].number_value = 1
    await subject.refuses(opening, "an unknown parameter", field=_NO_SUCH)
    count = 1
    for pin in subject.manifest.params:
        wrong = [(limit, _as_json(value)) for limit, value in beyond_limits(pin)]
        if pin.type != PinType.PIN_TYPE_JSON:
            wrong.append(("type", _as_json(of_another_type(pin))))
        for limit, value in wrong:
            opening = subject.opening()
            opening.params.fields[pin.name].CopyFrom(value)
            await subject.refuses(opening, f"a parameter {pin.name} beyond its {limit}", field=f"params.{pin.name}")
        if not pin.optional and not pin.HasField("default_value"):
            opening = subject.opening()
            del opening.params.fields[pin.name]
            await subject.refuses(opening, f"no parameter {pin.name}", field=f"params.{pin.name}")
        count += len(wrong)
    return _counted(count, "wrong parameters")


async def addresses(subject: Subject) -> str:
    """Media that is an address elsewhere is INVALID_ARGUMENT: an agent fetches nothing that its caller names."""
    pins = [pin for pin in subject.manifest.inputs if pin.type in MEDIA_TYPES]
    if not pins:
        raise Unclear("The agent takes no media.")
    for pin in pins:
        opening = subject.opening()
        media = MediaValue(type=MEDIA_TYPES[pin.type], url="https://conformance.invalid/x")
        opening.inputs[pin.name].media.CopyFrom(media)
        await subject.refuses(opening, f"an address elsewhere on {pin.name}")
    return "INVALID_ARGUMENT"


async def unwanted_media(subject: Subject) -> str:
    """Media for an agent that takes none of its kind is UNIMPLEMENTED, E4011."""
    for pin in subject.manifest.inputs:
        for kind in (MediaType.MEDIA_TYPE_VIDEO, MediaType.MEDIA_TYPE_IMAGE):
            if pin.name not in subject.sample.opening.inputs or refusal(subject.manifest, pin, kind) is None:
                continue
            opening = subject.opening()
            opening.inputs[pin.name].CopyFrom(Value(media=MediaValue(type=kind, inline=b"media")))
            codes = {grpc.StatusCode.UNIMPLEMENTED}
            await subject.refuses(opening, f"media on {pin.name}", codes=codes, field="E4011")
            return "E4011"
    raise Unclear("Every input takes media.")


async def response_mode(subject: Subject) -> str:
    """A stream asked of an agent that answers at once is UNIMPLEMENTED, E4010; any other agent grants it."""
    opening = subject.opening()
    opening.response_mode = ResponseMode.RESPONSE_MODE_STREAMING
    if may_stream(subject.manifest):
        outcome = await subject.probe.run([RunRequest(open=opening), *subject.sample.frames], what="streaming asked")
        if not outcome.succeeded:
            raise Broken(f"The manifest says that it streams, and a run that asked for it {outcome.describe()}.")
        return "streams"
    codes = {grpc.StatusCode.UNIMPLEMENTED}
    await subject.refuses(opening, "response_mode streaming", codes=codes, field="E4010")
    return "E4010"


REFUSING = (
    unknown_agent,
    open_first,
    no_frames,
    missing_inputs,
    unknown_input,
    input_types,
    input_limits,
    params,
    addresses,
    unwanted_media,
    response_mode,
)
"""The checks of refusals, in order."""


def _as_json(value: Value) -> struct_pb2.Value:
    if value.HasField("text"):
        return struct_pb2.Value(string_value=value.text)
    return struct_pb2.Value(number_value=value.number)


def _counted(count: int, what: str) -> str:
    if not count:
        raise Unclear(f"There are no {what}.")
    return f"{count} refused"
