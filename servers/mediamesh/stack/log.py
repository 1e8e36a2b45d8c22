"""The log file of one program: bounded, with what came before it kept, and echoed line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Log", "rotate"]

_MAX_BYTES = 16 * 1024 * 1024
_MAX_LINE_BYTES = 8 * 1024


def rotate(path: Path) -> None:
    """Keep a log as ``NAME.log.1`` in place of the one before it."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.1"))


class Log:
    """Takes a program's output; ``NAME.log`` is the newest, ``NAME.log.1`` what came before it."""

    def __init__(self, path: Path, *, echo: Callable[[str], None] | None = None, max_bytes: int = _MAX_BYTES) -> None:
        self._path = path
        self._echo = echo
        self._max_bytes = max_bytes
        self._rest = b""

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._size = self._file.tell()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        """Append what a program said."""
        if self._file.closed:  # what a killed program's pipe still held
            return
        if self._size + len(data) > self._max_bytes:
            self._file.close()
            rotate(self._path)
            self._file = self._path.open("wb", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)
        if self._echo is not None:
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._echo(line.decode(errors="replace").rstrip())
            if len(self._rest) > _MAX_LINE_BYTES:
                self._echo(self._rest.decode(errors="replace"))
                self._rest = b""
