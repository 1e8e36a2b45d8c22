"""Chooses the next token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterable

    Array = np.ndarray[Any, Any]

__all__ = ["Sampler", "Sampling"]

# Of 49 152 tokens all but some dozens lie further below the best than this; sorting all takes longer than the model's
# last layer.
_DEPTHS = (8.0, 16.0, 32.0, math.inf)
# So cold, a token that is worse by as little as float32 tells apart is never drawn; divided by less, logits overflow.
_COLDEST = 1e-6


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a request wants its tokens chosen; filters apply in this order.

    Attributes:
        repetition_penalty: Divides positive and multiplies negative logits of tokens that are there already; 1 is none.
        temperature: Divides the logits; 0, or next to it, always takes the best token.
        top_k: Only so many best tokens; 0 is all.
        top_p: Only the best tokens that together have this probability.
        min_p: Only tokens with this share of the best one's probability.
        seed: Makes the choice the same each time, for the same logits.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None


class Sampler:
    """Chooses the tokens of one request.

    Args:
        sampling: How.
        prompt: Tokens of the prompt, which count as repeated.
    """

    def __init__(self, sampling: Sampling, prompt: Iterable[int]) -> None:
        self._sampling = sampling
        self._random = np.random.default_rng(sampling.seed)
        self._seen = set(prompt) if sampling.repetition_penalty != 1 else None

    def choose(self, logits: Array) -> int:
        """Return the next token; logits [vocabulary] may be changed.

        Raises:
            MeshError: the model gave no number for any token.
        """
        if self._seen is not None:
            self._penalise(logits)
        best = int(logits.argmax())
        if not math.isfinite(logits[best]):
            raise MeshError("The model's logits are no numbers.")
        token = best if self._sampling.temperature < _COLDEST else self._draw(logits, float(logits[best]))
        if self._seen is not None:
            self._seen.add(token)
        return token

    def _penalise(self, logits: Array) -> None:
        seen = np.fromiter(self._seen or (), np.int64)
        values, penalty = logits[seen], self._sampling.repetition_penalty
        logits[seen] = np.where(values > 0, values / penalty, values * penalty)

    def _draw(self, logits: Array, best: float) -> int:
        scores = (logits - np.float32(best)) / np.float32(self._sampling.temperature)
        sampling = self._sampling
        if not sampling.top_k and sampling.top_p >= 1 and not sampling.min_p:
            return self._of(np.exp(scores))
        tokens = self._filtered(scores)
        return int(tokens[self._of(np.exp(scores[tokens]))])

    def _filtered(self, scores: Array) -> Array:
        """Return the tokens that the filters leave, best first; scores are logarithms relative to the best one's."""
        sampling = self._sampling
        total = 0.0 if sampling.top_k or sampling.top_p >= 1 else float(np.exp(scores).sum(dtype=np.float64))
        tokens = np.empty(0, np.int64)
        for depth in _DEPTHS:
            tokens = np.flatnonzero(scores >= -depth)
            tokens = tokens[np.argsort(-scores[tokens], kind="stable")]
            if sampling.top_k and len(tokens) < sampling.top_k and depth < math.inf:
                continue
            tokens = tokens[: sampling.top_k or None]
            if sampling.top_p < 1:
                masses = np.exp(scores[tokens]).cumsum(dtype=np.float64)
                enough = sampling.top_p * (total or masses[-1])
                if masses[-1] < enough and depth < math.inf:
                    continue
                tokens = tokens[: int(np.searchsorted(masses, enough)) + 1]
            elif not sampling.top_k and math.exp(-depth) > sampling.min_p:
                continue
            break
        return tokens[scores[tokens] >= math.log(sampling.min_p)] if sampling.min_p else tokens

    def _of(self, weights: Array) -> int:
        sums = weights.cumsum(dtype=np.float64)
        return min(int(np.searchsorted(sums, self._random.random() * sums[-1], side="right")), len(sums) - 1)
