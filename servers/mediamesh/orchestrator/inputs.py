"""The values that the caller of a run gives for the client's ends of its flow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mediamesh.api.agent.v1 import pin_pb2, value_pb2
from mediamesh.orchestrator.builtin import SOURCES
from mediamesh.orchestrator.draft import among, quoted
from mediamesh.orchestrator.features import media_problems
from mediamesh.orchestrator.pins import misfit
from mediamesh.orchestrator.wiring import ends, is_constant
from mediamesh.wire.errors import InvalidFlow, InvalidRequest, MeshError, MultimodalNotSupported

if TYPE_CHECKING:
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest
    from mediamesh.api.flow.v1.flow_pb2 import Flow
    from mediamesh.orchestrator.storage import RunMedia

__all__ = ["prepared"]

Inputs = dict[tuple[str, str], value_pb2.Value]

# What an event has beside a value: ids of its run and its node, the name of the pin, the time.
_BESIDE_BYTES = 512


async def prepared(
    flow: Flow,
    given: Mapping[str, value_pb2.Value],
    media: RunMedia,
    agents: Mapping[str, Manifest],
    *,
    event_bytes: int,
) -> Inputs:
    """Check the values and put their media into the store, each by node and pin.

    Args:
        flow: A flow that passed its check.
        given: The values by ``node.pin``.
        media: Where the media of the run goes.
        agents: Every agent that is known, by id.
        event_bytes: Most bytes of an event; each value will have to fit one.

    Raises:
        MeshError: of the class of the only mistake; InvalidFlow when there are several of different classes. Each
            mistake is a violation whose field is ``inputs['node.pin']``.
    """
    wanted = _wanted(flow)
    wrong: list[tuple[str, MeshError]] = []
    for key in sorted(given):
        if key not in wanted:
            text = f"INVALID_INPUT: the flow takes no input {quoted(key)}.{among(key, wanted)}"
            wrong.append((key, InvalidFlow(text)))
    wrong.extend(
        (key, InvalidFlow(f"MISSING_INPUT: the flow needs a value for {quoted(key)}."))
        for key in wanted
        if key not in given or given[key].WhichOneof("kind") is None
    )
    _refuse(wrong)
    known = {key: await _known(key, given[key], media) for key in wanted}
    # Nothing is uploaded for a run that will be refused anyway.
    most = event_bytes - _BESIDE_BYTES
    _refuse([*_misfits(flow, agents, wanted, known), *_too_large(known, most)])
    return {
        (node_id, pin.name): await _stored(key, node_id, pin, known[key], media)
        for key, (node_id, pin) in wanted.items()
    }


def _misfits(
    flow: Flow,
    agents: Mapping[str, Manifest],
    wanted: Mapping[str, tuple[str, pin_pb2.Pin]],
    known: Mapping[str, value_pb2.Value],
) -> Iterator[tuple[str, MeshError]]:
    """Yield what is wrong with each value: that a module takes no such media, or else that it does not fit its pin."""
    for key, (node_id, pin) in wanted.items():
        problem = next(media_problems(flow, agents, (node_id, pin.name), known[key]), None)
        if not isinstance(problem, MultimodalNotSupported):
            problem = misfit(known[key], pin) or problem
        if problem is not None:
            yield key, problem


def _too_large(known: Mapping[str, value_pb2.Value], most: int) -> Iterator[tuple[str, MeshError]]:
    """Yield what is wrong with values that have too many bytes; media may, as only its reference goes on."""
    for key, value in known.items():
        if not value.HasField("media") and (size := value.ByteSize()) > most:
            yield key, InvalidRequest(f"has {size} bytes, and what is no media has {most} at most")


def _wanted(flow: Flow) -> dict[str, tuple[str, pin_pb2.Pin]]:
    used = {(source.node_id, source.pin) for source, _ in map(ends, flow.edges)}
    return {
        f"{node.id}.{pin.name}": (node.id, pin)
        for node in flow.nodes
        if node.type in SOURCES and not is_constant(node)
        for pin in node.output_pins
        if (node.id, pin.name) in used
    }


async def _known(key: str, value: value_pb2.Value, media: RunMedia) -> value_pb2.Value:
    """Return the value with the facts that the store has: those that its giver tells count for nothing."""
    try:
        return await media.known(value)
    except InvalidRequest as error:
        raise _of_field(key, error) from error


async def _stored(key: str, node_id: str, pin: pin_pb2.Pin, value: value_pb2.Value, media: RunMedia) -> value_pb2.Value:
    try:
        stored = await media.by_reference(node_id, pin, value)
    except InvalidRequest as error:
        raise _of_field(key, error) from error
    if problem := misfit(stored, pin):
        raise _of_field(key, problem)
    return stored


def _refuse(wrong: list[tuple[str, MeshError]]) -> None:
    if not wrong:
        return
    kinds = {type(error) for _, error in wrong}
    kind = kinds.pop() if len(kinds) == 1 else InvalidFlow
    if not issubclass(kind, InvalidRequest):
        raise wrong[0][1]
    violations = [(_field(key), error.text) for key, error in wrong]
    raise kind.of_fields(violations)


def _of_field(key: str, error: MeshError) -> MeshError:
    """Return the error with the input that it is about; its class and number stay."""
    if not isinstance(error, InvalidRequest):
        return error
    # The fields that another server found wrong are of a call that the caller knows nothing of.
    what = "; ".join(description for _, description in error.violations) or error.text
    return type(error).of_field(_field(key), what, **error.metadata)


def _field(key: str) -> str:
    return f"inputs[{key[:160]!r}]"
