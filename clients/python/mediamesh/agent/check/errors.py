"""Checks of every status that the checks before have seen: how errors look, and what they give away."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
from google.rpc import error_details_pb2

from mediamesh.agent.check.findings import Broken, Unclear
from mediamesh.agent.check.material import made_up
from mediamesh.api.agent.v1.agent_service_pb2 import RunRequest
from mediamesh.api.agent.v1.pin_pb2 import PinType
from mediamesh.api.errors.v1.error_reason_pb2 import ErrorReason
from mediamesh.wire.errors import DOMAIN
from mediamesh.wire.pins import MEDIA_TYPES

if TYPE_CHECKING:
    from mediamesh.agent.check.probe import Outcome
    from mediamesh.agent.check.subject import Subject
    from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun

__all__ = ["ERRORS"]

# Lines of stack traces as Python, JavaScript and the JVM, Go, Rust and .NET print them, and the names of files in them.
_STACK = re.compile(
    r"Traceback \(most recent call last\)|File \"[^\"]+\", line \d+|^\s+at \S+.*[:(]\d+|goroutine \d+ \["
    r"|thread '[^']*' panicked|\.(?:py|ts|js|mjs|go|rs|java|cs):\d+",
    re.MULTILINE,
)
# gRPC's own library ends calls with these before an agent's code is asked, and adds no details.
_LIBRARY = frozenset({grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})
_PREFIX = "ERROR_REASON_"


async def damaged_values(subject: Subject) -> str:
    """Garbage in place of media, and strange texts, end a run with a result or an error of the contract, in time."""
    count = 0
    for pin in subject.manifest.inputs:
        if pin.name not in subject.sample.opening.inputs:
            continue
        for text in ("", "\x00\U0001f4a5" + "%s%n{}'\"<>" * 100) if pin.type == PinType.PIN_TYPE_STRING else ():
            opening = subject.opening()
            opening.inputs[pin.name].text = text
            await _survives(subject, opening, f"a strange text on {pin.name}")
            count += 1
        if pin.type in MEDIA_TYPES:
            opening = subject.opening()
            opening.inputs[pin.name].CopyFrom(subject.sample.opening.inputs[pin.name])
            whole = opening.inputs[pin.name].media.inline or made_up(pin).media.inline
            for data, what in ((b"garbage" * 100, "garbage"), (whole[: len(whole) // 2], "half of the media")):
                opening.inputs[pin.name].media.inline = data
                await _survives(subject, opening, f"{what} on {pin.name}")
                count += 1
    if not count:
        raise Unclear("No input takes texts or media.")
    return f"{count} survived"


async def error_form(subject: Subject) -> str:
    """An error has a code of the contract, and one ErrorInfo of mediamesh.dev whose reason the contract has."""
    for failure in _failures(subject):
        code = failure.code
        if code is grpc.StatusCode.UNKNOWN:
            raise Broken(f"A run with {failure.what} ended with UNKNOWN, which the contract does not have.")
        infos = [info for info in _infos(failure) if info.domain == DOMAIN]
        if len(infos) != 1 and code not in _LIBRARY:
            found = f"{len(infos)} ErrorInfo of {DOMAIN}"
            raise Broken(f"A run with {failure.what} ended with {code.name if code else ''} and {found}, not one.")
        for info in infos:
            if _PREFIX + info.reason not in ErrorReason.keys():  # noqa: SIM118 - an enum's wrapper is no mapping
                raise Broken(f"A run with {failure.what} gave the reason {info.reason!r}, which the contract has not.")
    return f"{len(_failures(subject))} errors"


async def no_stack_traces(subject: Subject) -> str:
    """No error gives away where in the agent's code it arose."""
    for failure in _failures(subject):
        if failure.status is not None and any(
            packed.TypeName() == "google.rpc.DebugInfo" for packed in failure.status.details
        ):
            raise Broken(f"A run with {failure.what} ended with a DebugInfo.")
        if found := _STACK.search(_text(failure)):
            raise Broken(f"A run with {failure.what} ended with a stack trace: {found[0].strip()[:100]!r}.")
    return f"{len(_failures(subject))} errors"


ERRORS = (damaged_values, error_form, no_stack_traces)
"""The checks of errors, in order; they come last, as they look at what came before."""


async def _survives(subject: Subject, opening: OpenRun, what: str) -> None:
    outcome = await subject.probe.run([RunRequest(open=opening), *subject.sample.frames], what=what)
    if outcome.status is None:
        raise Broken(f"A run with {what} {outcome.describe()}.")


def _failures(subject: Subject) -> list[Outcome]:
    return [failure for failure in subject.probe.failures if failure.status is not None]


def _infos(failure: Outcome) -> list[error_details_pb2.ErrorInfo]:
    infos = []
    for packed in failure.status.details if failure.status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info):
            infos.append(info)
    return infos


def _text(failure: Outcome) -> str:
    status = failure.status
    return "\n".join([status.message, *map(str, _infos(failure))]) if status is not None else ""
