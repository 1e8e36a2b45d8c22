"""How the store tells what it does, so that a terminal can show it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SILENT", "Watcher"]


class Watcher(Protocol):
    """Whoever wants to know how a pull goes."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Take note that ``done`` of ``total`` bytes of a download are here; may go back when a server starts anew."""

    def note(self, text: str) -> None:
        """Take note of one sentence."""


class _Silent:
    def progress(self, what: str, done: int, total: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


SILENT: Watcher = _Silent()
