"""One request of a generative model, from its arrival to its last token."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.inference.generation.sampling import Sampler, Sampling

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediamesh.inference.generation.text import TextStream
    from mediamesh.wire.errors import MeshError

__all__ = ["LENGTH", "STOP", "Job", "Piece"]

STOP = "stop"
LENGTH = "length"


class Piece(NamedTuple):
    """What a step gave a request.

    Attributes:
        job: The request.
        text: Text that is sure by now; may be empty.
        token: The token; None when the request ended without one.
        finish: Why the answer ended; empty while it goes on.
        error: Why it failed.
    """

    job: Job
    text: str = ""
    token: int | None = None
    finish: str = ""
    error: MeshError | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A request.

    Attributes:
        prompt: Its tokens; at least one.
        max_tokens: Most tokens of the answer.
        sampling: How tokens are chosen.
        ends: Tokens that end the answer.
        text: Makes text of the tokens.
        deliver: Takes what each step gives; called in the event loop.
        deadline: When its time is over, by ``time.monotonic``.
        arrived: When it came, by ``time.monotonic``.
        cancelled: Its caller has left; set by the event loop, read by the engine.
        joined: When it left the queue, by ``time.monotonic``.
        read: Tokens of the prompt that are in the cache.
        tokens: Tokens of the answer so far.
        last: The last of them.
        row: Its row in the cache.
        sampler: Chooses its tokens.
        ids: The prompt as an array.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    ends: frozenset[int]
    text: TextStream
    deliver: Callable[[Piece], None]
    deadline: float | None = None
    arrived: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    joined: float = 0.0
    read: int = 0
    tokens: int = 0
    last: int = 0
    row: int = 0
    sampler: Sampler = field(init=False)
    ids: np.ndarray[Any, np.dtype[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = np.array(self.prompt, np.int64)
        self.sampler = Sampler(self.sampling, self.prompt)

    @property
    def reserved(self) -> int:
        """Tokens that it may come to need in the cache."""
        return len(self.prompt) + self.max_tokens

    @property
    def length(self) -> int:
        """Tokens of prompt and answer, the one included that the next step takes in."""
        return len(self.prompt) + self.tokens

    def accept(self, token: int) -> Piece:
        """Take the next token of the answer."""
        if token in self.ends:
            return Piece(self, self.text.finish(), None, STOP)
        self.tokens += 1
        self.last = token
        text = self.text.push(token)
        if self.text.stopped:
            return Piece(self, text, token, STOP)
        if self.tokens >= self.max_tokens:
            return Piece(self, text + self.text.finish(), token, LENGTH)
        return Piece(self, text, token)
