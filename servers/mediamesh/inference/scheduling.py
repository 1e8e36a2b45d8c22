"""What every way of running a model has in common: a checked request goes in, tensors come out."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    import numpy as np

    from mediamesh.api.inference.v2 import inference_service_pb2 as pb

    Array = np.ndarray[Any, Any]

__all__ = ["Call", "Counters", "Executor", "Scheduler", "SequenceMark", "size_of"]


@dataclass(frozen=True, slots=True)
class SequenceMark:
    """A request's place in a sequence.

    Attributes:
        key: What the caller calls the sequence, the parameter ``sequence_id``: a number or a text.
        start: It is the first of its sequence.
        end: It is the last.
    """

    key: int | str
    start: bool = False
    end: bool = False


_NOTHING: Mapping[str, pb.InferParameter] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, held against the model's signature; never changed, but freezing it costs microseconds.

    Attributes:
        inputs: Tensors by name; do not change until the last answer is there.
        outputs: Names of the wanted outputs.
        items: Size of the batch dimension; 1 for a model that has none.
        seconds: Longest wait in a queue, the shorter of the next two; None is for ever.
        deadline: Seconds until the caller gives up; None where it does not.
        timeout: Seconds that the request itself allows, the parameter ``timeout``; 0 says nothing.
        priority: The parameter ``priority``: 1 is the highest, 0 takes the model's default.
        sequence: Its place in a sequence, where it has one.
        parameters: All parameters of the request.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]
    items: int = 1
    seconds: float | None = None
    deadline: float | None = None
    timeout: float = 0.0
    priority: int = 0
    sequence: SequenceMark | None = None
    parameters: Mapping[str, pb.InferParameter] = field(default_factory=lambda: _NOTHING)


def size_of(inputs: Mapping[str, Array]) -> int:
    """Return the bytes of tensors; of texts, which their arrays only refer to, the characters too."""
    return sum(
        tensor.nbytes + (sum(map(len, tensor.flat)) if tensor.dtype.hasobject else 0) for tensor in inputs.values()
    )


class Counters(Protocol):
    """What a model did."""

    def snapshot(self) -> pb.ModelStatistics:
        """Return a copy of the counters."""
        ...


class Executor(Protocol):
    """What runs a batch: a session, and whatever a test puts in its place."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Return the outputs in the order of their names; blocks the thread.

        Raises:
            InvalidRequest: the model does not take such inputs.
            MeshError: the model failed.
        """
        ...


class Scheduler(Protocol):
    """Decides when and with whom a request runs; cancelling a call takes it out of its queue."""

    @property
    def statistics(self) -> Counters:
        """The model's counters."""
        ...

    async def run(self, call: Call) -> list[Array]:
        """Run a request that has one answer: the outputs in the order of their names.

        Raises:
            InvalidRequest: the model does not take such inputs.
            Overloaded: the queue is full.
            DeadlineExceeded: the time passed in the queue.
            Unavailable: the model is being unloaded.
            MeshError: the model failed.
        """
        ...

    def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Run a request of a decoupled model: any number of answers, as they come; raises what :meth:`run` does."""
        ...
