"""Checks of a run that goes well."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from mediamesh.agent.check.findings import Broken, Unclear
from mediamesh.agent.check.judge import judge
from mediamesh.api.agent.v1.agent_service_pb2 import RunResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mediamesh.agent.check.subject import Subject

__all__ = ["RUNNING"]

_AT_ONCE = 4


async def finished(subject: Subject) -> str:
    """A run that succeeds ends with exactly one `finished`, and nothing follows it."""
    return _judged(subject, "finish") or f"after {subject.outcome.seconds * 1000:.0f} ms"


async def frame_rules(subject: Subject) -> str:
    """Every frame keeps the rules of its fields, and every chunk those of its kind."""
    return _judged(subject, "rules") or f"{len(subject.outcome.frames)} frames"


async def declared_outputs(subject: Subject) -> str:
    """Outputs are those of the manifest."""
    return _judged(subject, "pins") or "those of the manifest"


async def output_types(subject: Subject) -> str:
    """An output is of its pin's type and within its limits."""
    return _judged(subject, "types") or "of their types"


async def whole_outputs(subject: Subject) -> str:
    """Every output that is not optional is given, once; every stream has its end, all media its last piece."""
    return _judged(subject, "whole") or "given once"


async def sequences(subject: Subject) -> str:
    """Chunks count from 1 without gaps, pieces of media follow each other, and nothing follows an end."""
    return _judged(subject, "sequences") or "without gaps"


async def side_by_side(subject: Subject) -> str:
    """Runs at the same time do not disturb each other."""
    runs = (subject.probe.run(subject.sample.requests, what="the inputs of before") for _ in range(_AT_ONCE))
    for outcome in await asyncio.gather(*runs):
        if not outcome.succeeded:
            raise Broken(f"Of {_AT_ONCE} runs at once one {outcome.describe()}.")
        for kind in ("finish", "pins", "types", "whole", "sequences"):
            before = subject.judgement.faults(kind)
            if (faults := judge(subject.manifest, outcome.frames).faults(kind)) and not before:
                raise Broken(f"Of {_AT_ONCE} runs at once one went wrong: {faults}.")
    return f"{_AT_ONCE} at once"


async def cacheable(subject: Subject) -> str:
    """An agent that may be cached gives the same for the same."""
    if not subject.manifest.cache.enabled:
        raise Unclear("The manifest does not let results be cached.")
    again = await subject.probe.run(subject.sample.requests)
    if _content(subject.outcome.frames) != _content(again.frames):
        raise Broken("The manifest has cache.enabled, and two runs on the same inputs gave different results.")
    return "the same twice"


RUNNING = (finished, frame_rules, declared_outputs, output_types, whole_outputs, sequences, side_by_side, cacheable)
"""The checks of a run that goes well, in order."""


def _judged(subject: Subject, kind: str) -> str:
    if faults := subject.judgement.faults(kind):
        raise Broken(f"{faults}.")
    return ""


def _content(frames: Iterable[RunResponse]) -> set[bytes]:
    """Return what a run gave, without what differs from run to run: times, costs, and the turn of the pins."""
    content = set()
    for frame in frames:
        if frame.WhichOneof("message") in {"output", "media", "chunk"}:
            kept = RunResponse()
            kept.CopyFrom(frame)
            kept.chunk.chunk.ClearField("timestamp") if kept.HasField("chunk") else None
            content.add(kept.SerializeToString(deterministic=True))
    return content
