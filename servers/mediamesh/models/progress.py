"""A pull as it goes, on stderr: a bar for each download where there is a terminal, lines where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import TaskID

__all__ = ["PullProgress"]


class PullProgress:
    """Draws what the model store tells; use it as a context manager.

    Args:
        console: Where to; stderr when None, as stdout is for paths.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def progress(self, what: str, done: int, total: int) -> None:
        """Draw how far a download is, in bytes."""
        if what not in self._bars:
            self._bars[what] = self._progress.add_task(what, total=total, completed=done)
            if not self._console.is_terminal:
                self.note(f"{what}: downloading {total / 1e6:.1f} MB")
        self._progress.update(self._bars[what], completed=done)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)
