"""The classification extension of Triton: a model's best classes in place of its raw output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ScoredClass", "scored_classes"]


@dataclass(frozen=True, slots=True)
class ScoredClass:
    """One class, as the server saw it.

    Attributes:
        score: The element of the output.
        index: Its place in the output.
        label: Its name, from the model's file of labels; empty where there is none.
    """

    score: float
    index: int
    label: str


def scored_classes(output: np.ndarray[Any, Any]) -> list[list[ScoredClass]]:
    """Return the classes of every item of a batch, best first; an output without a batch counts as one item.

    Args:
        output: BYTES as they come, ``score:index`` or ``score:index:label`` each.
    """
    rows = output.reshape(-1, output.shape[-1]) if output.ndim else output.reshape(1, 1)
    return [[_scored(element.decode()) for element in row] for row in rows]


def _scored(text: str) -> ScoredClass:
    score, index, *label = text.split(":", 2)
    return ScoredClass(float(score), int(index), label[0] if label else "")
