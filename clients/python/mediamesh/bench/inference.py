"""Measures a model on any server that speaks the protocol of Triton and KServe."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc

from mediamesh.bench.inputs import inputs_of
from mediamesh.bench.load import Level, Seen, closed_loop, open_loop
from mediamesh.bench.senders import stream_sender, unary_sender
from mediamesh.client.inference import InferenceClient
from mediamesh.client.inference.requests import request_of
from mediamesh.wire.errors import FailedPrecondition, MeshError, NotImplementedByServer, Unavailable
from mediamesh.wire.infer_request import join

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from mediamesh.bench.inputs import Array
    from mediamesh.bench.senders import Send

__all__ = ["Plan", "Subject", "examine", "failure_of", "measure"]

_LIMITS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, and how much of it.

    Attributes:
        target: ``host:port`` of the server.
        model: Name of the model.
        version: Its version; empty lets the server choose.
        is_stream: Over one ModelStreamInfer, and not a ModelInfer for each request.
        levels: How much load, one after the other.
        shapes: Shapes of inputs by name, in place of those that the server tells.
        batch: Size of the batch dimension.
        zero: Tensors are filled with zeros and not with random numbers.
        seed: Of the random numbers: tensors and times.
        warm_up: Seconds of load before each level is measured.
        seconds: How long each level is measured.
        timeout: Seconds after which a request is given up.
    """

    target: str
    model: str
    version: str = ""
    is_stream: bool = False
    levels: Sequence[Level] = (Level("concurrency", 1),)
    shapes: Mapping[str, tuple[int, ...]]
    batch: int = 1
    zero: bool = False
    seed: int = 0
    warm_up: float = 1.0
    seconds: float = 5.0
    timeout: float = 30.0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured.

    Attributes:
        server: Name and version of the server.
        inputs: The tensors of every request.
        body: The request, serialised.
    """

    server: str
    inputs: Mapping[str, Array]
    body: bytes

    def about(self) -> dict[str, Any]:
        """Describe it."""
        shapes = {name: list(array.shape) for name, array in self.inputs.items()}
        return {"server": self.server, "shapes": shapes, "request_bytes": len(self.body)}


async def examine(plan: Plan) -> Subject:
    """Ask the server about the model, and try one request.

    Raises:
        FailedPrecondition: no inference server answers there.
        MeshError: what the server has against the model or the request.
    """
    try:
        async with InferenceClient(plan.target) as client:
            return await _examined(plan, client)
    except Unavailable as error:
        raise FailedPrecondition(f"No inference server answers at {plan.target}: {error.text}") from error


async def _examined(plan: Plan, client: InferenceClient) -> Subject:
    metadata = await client.models.metadata(plan.model, version=plan.version)
    try:
        batches = (await client.models.config(plan.model, version=plan.version)).max_batch_size > 0
    except NotImplementedByServer:  # the Open Inference Protocol has no configurations
        batches = all(tensor.shape and tensor.shape[0] < 0 for tensor in metadata.inputs)
    inputs = inputs_of(metadata, batches=batches, batch=plan.batch, shapes=plan.shapes, zero=plan.zero, seed=plan.seed)
    request = request_of(plan.model, inputs, version=plan.version)
    if plan.is_stream:
        # A decoupled model says only so that it has answered for the last time.
        request.message.parameters["triton_enable_empty_final_response"].bool_param = True
        async for _ in client.stream(plan.model, inputs, version=plan.version, timeout=plan.timeout):
            pass
    else:
        await client.infer_alone(plan.model, inputs, version=plan.version, timeout=plan.timeout)
    server = await client.models.server_metadata()
    return Subject(f"{server.name} {server.version}", inputs, join(*request))


async def measure(plan: Plan, subject: Subject, tell: Callable[[Seen], None]) -> AsyncIterator[Seen]:
    """Put each level of load on the server, and yield what was seen of it.

    Args:
        plan: What to send, and how much of it.
        subject: From `examine`.
        tell: Called a few times a second with what was seen so far.
    """
    for level in plan.levels:
        async with _sender(plan, subject.body) as send:
            if level.kind == "concurrency":
                yield await closed_loop(send, round(level.value), warm_up=plan.warm_up, seconds=plan.seconds, tell=tell)
            else:
                yield await open_loop(
                    send, level.value, seed=plan.seed, warm_up=plan.warm_up, seconds=plan.seconds, tell=tell
                )


@asynccontextmanager
async def _sender(plan: Plan, body: bytes) -> AsyncGenerator[Send]:
    make = stream_sender if plan.is_stream else unary_sender
    async with (
        grpc.aio.insecure_channel(plan.target, options=_LIMITS) as channel,
        make(channel, body, plan.timeout) as send,
    ):
        yield send


def failure_of(seen: Seen) -> MeshError | None:
    """Return why nothing was answered, if nothing was."""
    if seen.latencies or not seen.errors:
        return None
    status, count = seen.errors.most_common(1)[0]
    return FailedPrecondition(f"At {seen.level} no request was answered; {count} ended as {status}.")
