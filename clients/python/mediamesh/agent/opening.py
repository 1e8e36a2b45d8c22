"""The frame that opens a run, against the agent's manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf import json_format

from mediamesh.agent.pins import check_at_agent, from_value
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.wire.errors import InvalidRequest
from mediamesh.wire.modalities import check_limits, refusal
from mediamesh.wire.pins import Violation, check_value, plain_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf import struct_pb2

    from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.agent.v1.pin_pb2 import Pin

__all__ = ["Opening", "check_opening"]


class Opening(NamedTuple):
    """What a run starts with, as its agent sees it."""

    inputs: dict[str, Any]
    params: dict[str, Any]


def check_opening(manifest: Manifest, open_run: OpenRun) -> Opening:
    """Return the inputs and the parameters of a run, defaults filled in.

    Raises:
        InvalidRequest: an input or a parameter is missing, not declared, of the wrong type or beyond a limit; one
            violation for each, its field being ``inputs.{pin}``, ``stream_inputs.{pin}`` or ``params.{name}``. It is a
            subclass where all violations are of that class.
        MultimodalNotSupported: media came for a pin that takes none, of a module that takes none of its kind.
    """
    _check_modalities(manifest, open_run)
    params = _params(manifest, open_run)
    seen = _seen(params)
    problems = [*_input_problems(manifest, open_run), *_param_problems(manifest.params, params)]
    if problems:
        kinds = {violation.kind for _, violation in problems}
        kind = kinds.pop() if len(kinds) == 1 else InvalidRequest
        raise kind.of_fields(((field, violation.text) for field, violation in problems), agent=manifest.id)
    return Opening({name: from_value(value) for name, value in open_run.inputs.items()}, seen)


def _check_modalities(manifest: Manifest, open_run: OpenRun) -> None:
    for pin in manifest.inputs:
        if pin.name in open_run.inputs and open_run.inputs[pin.name].HasField("media"):
            error = refusal(manifest, pin, open_run.inputs[pin.name].media.type)
            if error is not None:
                raise error


def _params(manifest: Manifest, open_run: OpenRun) -> dict[str, struct_pb2.Value]:
    defaults = {pin.name: pin.default_value for pin in manifest.params if pin.HasField("default_value")}
    return defaults | dict(open_run.params.fields)


def _seen(params: dict[str, struct_pb2.Value]) -> dict[str, Any]:
    try:
        return {name: _param(json_format.MessageToDict(value)) for name, value in params.items()}
    except ValueError:
        raise InvalidRequest.of_field("params", "has a number that JSON has not: infinity or NaN") from None


def _param(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _input_problems(manifest: Manifest, open_run: OpenRun) -> Iterator[tuple[str, Violation]]:
    pins = {pin.name: pin for pin in manifest.inputs}
    for name, value in open_run.inputs.items():
        if pin := pins.get(name):
            yield from ((f"inputs.{name}", violation) for violation in check_at_agent(pin, value))
            yield from ((f"inputs.{name}", violation) for violation in check_limits(manifest, value.media))
        else:
            yield f"inputs.{name}", _unknown("input", pins)
        if value.HasField("stream"):
            yield f"inputs.{name}", Violation(InvalidRequest, "its chunks must come as frames, not as a reference")
    for name in open_run.stream_inputs:
        if name not in pins:
            yield f"stream_inputs.{name}", _unknown("input", pins)
        elif pins[name].type != PinType.PIN_TYPE_STREAM:
            yield f"stream_inputs.{name}", Violation(InvalidRequest, "is no stream: it takes a single value")
    for name, pin in pins.items():
        if not pin.optional and name not in open_run.inputs and name not in open_run.stream_inputs:
            yield f"inputs.{name}", Violation(InvalidRequest, "is required")


def _param_problems(declared: Iterable[Pin], params: dict[str, struct_pb2.Value]) -> Iterator[tuple[str, Violation]]:
    pins = {pin.name: pin for pin in declared}
    for name, given in params.items():
        if pin := pins.get(name):
            value = plain_value(pin, given)
            yield from ((f"params.{name}", violation) for violation in check_value(pin, value))
        else:
            yield f"params.{name}", _unknown("parameter", pins)
    for name, pin in pins.items():
        if not pin.optional and name not in params:
            yield f"params.{name}", Violation(InvalidRequest, "is required")


def _unknown(what: str, known: Iterable[str]) -> Violation:
    return Violation(InvalidRequest, f"the agent has no such {what}; it has {', '.join(known) or 'none'}")
