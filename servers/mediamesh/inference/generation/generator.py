"""The scheduler of a generative model: requests go to the engine, and its pieces come back as answers."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry import trace

from mediamesh.inference.generation.engine import Engine, Step
from mediamesh.inference.generation.job import Job, Piece
from mediamesh.inference.generation.text import TextStream
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.inference.generation.counters import GenerationCounters
    from mediamesh.inference.generation.decoder import Decoder
    from mediamesh.inference.generation.options import Options
    from mediamesh.inference.generation.prompt import Prompter
    from mediamesh.inference.generation.request import Reader, Request
    from mediamesh.inference.generation.waiting import Waiting
    from mediamesh.inference.scheduling import Call

    Array = np.ndarray[Any, Any]

__all__ = ["Generator", "generating"]

_TRACER = trace.get_tracer("mediamesh.inference")
_SHORTEST_RETRY_SECONDS = 0.1
# From here on taking a text apart would be felt by others in the event loop.
_LONG_TEXT = 2000


@asynccontextmanager
async def generating(
    label: str,
    decoder: Decoder,
    waiting: Waiting,
    counters: GenerationCounters,
    options: Options,
    *,
    reader: Reader,
    prompter: Prompter,
    ends: frozenset[int],
) -> AsyncGenerator[Generator]:
    """Run the engine in a thread; at the end whoever waits or generates is told that the model is being unloaded."""
    loop = asyncio.get_running_loop()
    generator = Generator(
        label, waiting, counters, reader=reader, prompter=prompter, ends=ends, rows=options.max_running
    )

    def report(step: Step) -> None:
        loop.call_soon_threadsafe(generator.settle, step)

    engine = Engine(
        label,
        decoder,
        waiting,
        report,
        rows=options.max_running,
        cache_tokens=options.cache_tokens,
        prefill_tokens=options.prefill_tokens,
    )
    thread = threading.Thread(target=engine.work, name=f"{label}#generation", daemon=True)
    thread.start()
    try:
        yield generator
    finally:
        for job in waiting.close():
            job.deliver(Piece(job, error=Unavailable(f"Model {label} is being unloaded.")))
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)  # the engine's last report is in the event loop's queue
        decoder.close()


class Generator:
    """Runs requests of one model; belongs to the event loop.

    Args:
        label: What errors call the model.
        waiting: Where the engine takes requests from.
        counters: The model's counters.
        reader: Reads requests.
        prompter: Has the tokenizer.
        ends: Tokens that end an answer.
        rows: Most requests that run.
    """

    def __init__(
        self,
        label: str,
        waiting: Waiting,
        counters: GenerationCounters,
        *,
        reader: Reader,
        prompter: Prompter,
        ends: frozenset[int],
        rows: int,
    ) -> None:
        self.statistics = counters
        self._label = label
        self._waiting = waiting
        self._reader = reader
        self._prompter = prompter
        self._ends = ends
        self._rows = rows

    async def run(self, call: Call) -> list[Array]:
        """Generate, and return all of it at once."""
        answers = [answer async for answer in self._answers(call, whole=True)]
        return answers[-1]

    async def stream(self, call: Call) -> AsyncGenerator[list[Array]]:
        """Generate; one answer for what came since the last, or one in all if the request does not say ``stream``.

        A caller that reads slowly gets fewer and longer answers: what it did not take yet is one answer.
        """
        async with aclosing(self._answers(call, whole=False)) as answers:
            async for answer in answers:
                yield answer

    def settle(self, step: Step) -> None:
        """Hand out what a step gave."""
        self.statistics.stepped(step)
        for piece in step.pieces:
            piece.job.deliver(piece)

    async def _answers(self, call: Call, *, whole: bool) -> AsyncGenerator[list[Array]]:
        request = await self._read(call)
        inbox = _Inbox(len(request.prompt))
        job = self._submit(request, call.seconds, inbox)
        span = _TRACER.start_span("generate", attributes={"model": self._label, "prompt_tokens": len(request.prompt)})
        ended = False
        try:
            while not ended:
                await inbox.wait(whole=whole or not request.stream)
                if inbox.began and not inbox.counted:
                    inbox.counted = True
                    self.statistics.began(job)
                if ended := bool(inbox.finish):
                    self.statistics.finished(job)
                yield inbox.take(call.outputs)
        except MeshError as error:
            self.statistics.dropped("expired" if isinstance(error, DeadlineExceeded) else "failed", job)
            raise
        finally:
            if not ended and inbox.error is None:
                job.cancelled = True
                self._waiting.withdraw(job)
                self.statistics.dropped("cancelled", job)
            span.set_attribute("tokens", inbox.total)
            span.end()

    async def _read(self, call: Call) -> Request:
        size = sum(len(str(text)) for name in ("text_input", "messages") for text in call.inputs.get(name, ()))
        if size < _LONG_TEXT:
            return self._reader.read(call)
        return await asyncio.to_thread(self._reader.read, call)

    def _submit(self, request: Request, seconds: float | None, inbox: _Inbox) -> Job:
        job = Job(
            prompt=request.prompt,
            max_tokens=request.max_tokens,
            sampling=request.sampling,
            ends=frozenset() if request.ignore_end else self._ends,
            text=TextStream(self._prompter.tokenizer, request.stops),
            deliver=inbox.put,
        )
        if seconds is not None:
            job.deadline = job.arrived + seconds
        try:
            self._waiting.put(job, retry_after=self._backlog_seconds())
        except Overloaded:
            self.statistics.dropped("refused")
            raise
        return job

    def _backlog_seconds(self) -> float:
        return max(_SHORTEST_RETRY_SECONDS, len(self._waiting) * self.statistics.request_seconds / self._rows)


class _Inbox:
    """What the engine gave a request and its caller has not taken."""

    def __init__(self, prompt_tokens: int) -> None:
        self.finish = ""
        self.error: MeshError | None = None
        self.total = 0
        self.began = False
        self.counted = False
        self._prompt_tokens = prompt_tokens
        self._texts: list[str] = []
        self._tokens: list[int] = []
        self._changed = asyncio.Event()

    def put(self, piece: Piece) -> None:
        """Add a piece."""
        self.began = self.began or piece.error is None
        self.finish, self.error = piece.finish, piece.error
        if piece.text:
            self._texts.append(piece.text)
        if piece.token is not None:
            self._tokens.append(piece.token)
            self.total += 1
        self._changed.set()

    async def wait(self, *, whole: bool) -> None:
        """Wait until there is text, or the end.

        Raises:
            MeshError: the request failed.
        """
        while not self.finish and self.error is None and (whole or not self._texts):
            self._changed.clear()
            await self._changed.wait()
        if self.error is not None:
            raise self.error

    def take(self, outputs: tuple[str, ...]) -> list[Array]:
        """Return what is there, as tensors, and forget it."""
        text, tokens = np.empty(1, np.object_), self._tokens
        finish = np.empty(1, np.object_)
        text[0], finish[0] = "".join(self._texts), self.finish
        self._texts, self._tokens = [], []
        tensors: dict[str, Array] = {
            "text_output": text,
            "token_ids": np.array(tokens, np.int64),
            "finish_reason": finish,
            "num_input_tokens": np.array([self._prompt_tokens], np.uint32),
            "num_output_tokens": np.array([self.total], np.uint32),
        }
        return [tensors[name] for name in outputs]
