"""Answers in the order in which their requests came, whatever the order in which they are ready."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncio import Future

__all__ = ["Order"]

_OPEN = object()


class Order:
    """Futures that are resolved first come, first served; false when there is none."""

    def __init__(self) -> None:
        self._outcomes: OrderedDict[Future[Any], object] = OrderedDict()

    def __len__(self) -> int:
        return len(self._outcomes)

    def enter(self, answer: Future[Any]) -> None:
        """Let an answer be the last in order."""
        self._outcomes[answer] = _OPEN

    def settle(self, answer: Future[Any], outcome: object) -> None:
        """Say what an answer will be once all before it are out."""
        if answer in self._outcomes:
            self._outcomes[answer] = outcome
        self._flush()

    def leave(self, answer: Future[Any]) -> None:
        """Take an answer out that nobody waits for."""
        self._outcomes.pop(answer, None)
        self._flush()

    def _flush(self) -> None:
        while self._outcomes and (first := next(iter(self._outcomes.items())))[1] is not _OPEN:
            answer, outcome = first
            del self._outcomes[answer]
            if answer.done():
                continue
            if isinstance(outcome, Exception):
                answer.set_exception(outcome)
            else:
                answer.set_result(outcome)
