"""Downloads that go on where they broke off, and are taken only when their SHA-256 is right.

Bytes go into ``NAME.part``; when all are there and the digest fits, the file gets its name in one step. After a break,
or in another process, the rest is asked for with a Range request (RFC 9110, section 14).
"""

from __future__ import annotations

import errno
import random
import re
import shutil
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote, urlsplit

import httpx

from mediamesh.models.digests import sha256_of
from mediamesh.models.errors import PullFailed
from mediamesh.models.watcher import SILENT, Watcher
from mediamesh.wire.errors import ChecksumMismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["Downloader", "Pinned", "disk_errors"]

_CHUNK = 1 << 18
_LONGEST_PAUSE = 30.0
_MAY_PASS = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Pinned:
    """A file to fetch: how it is called for people, where it is, and what it has to be."""

    name: str
    url: str
    sha256: str
    size: int  # bytes


class Downloader:
    """Fetches files over HTTP, and copies those that lie on this machine; to be used as a context manager.

    Args:
        connect: Makes the client that carries the requests; called once, when the first is due.
        attempts: How often in a row a download may fail without a byte more before it is given up.
        watcher: Is told how it goes.
        sleep: Waits between attempts, seconds.
    """

    def __init__(
        self,
        connect: Callable[[], httpx.Client],
        *,
        attempts: int = 6,
        watcher: Watcher = SILENT,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connect, self._attempts, self._watcher, self._sleep = connect, attempts, watcher, sleep
        self._lifetime = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lifetime.close()

    @cached_property
    def _client(self) -> httpx.Client:
        return self._lifetime.enter_context(self._connect())

    def fetch(self, file: Pinned, target: Path) -> None:
        """Bring a file to ``target``, where it appears whole or not at all.

        Raises:
            PullFailed: it cannot be reached, or there is no room for it.
            ChecksumMismatch: other bytes came than were pinned; they are deleted.
        """
        part = target.with_name(f"{target.name}.part")
        resumed = part.exists()
        with disk_errors(f"download {file.name}", part):
            self._complete(file, part)
            if resumed and not _fits(file, part):
                # What was left over may be the fault; a whole new download decides.
                part.unlink()
                self._complete(file, part)
            if not _fits(file, part):
                found, size = sha256_of(part), part.stat().st_size
                part.unlink()
                raise ChecksumMismatch(
                    f"{file.name}: the download has {size} bytes and SHA-256 {found}, "
                    f"the manifest pins {file.size} bytes and {file.sha256}."
                )
            part.replace(target)

    def _complete(self, file: Pinned, part: Path) -> None:
        """Append to the part until nothing is missing; pauses grow while nothing comes."""
        failures = 0
        while (before := _size(part)) < file.size:
            _require_room(file, part, file.size - before)
            try:
                self._request(file, part)
                problem, pause = "the server ended early", 0.0
            except httpx.TransportError as error:
                problem, pause = f"{type(error).__name__}: {error}", 0.0
            except _TryAgainError as error:
                problem, pause = str(error), error.after
            failures = 0 if _size(part) > before else failures + 1
            if _size(part) < file.size:
                if failures >= self._attempts:
                    raise PullFailed(
                        f"{file.name} could not be downloaded: {problem}. "
                        "What came so far is kept; pull again to go on."
                    )
                self._watcher.note(f"{file.name}: {problem}; trying again at byte {_size(part)}")
                self._sleep(max(pause, min(_LONGEST_PAUSE, 0.5 * 2**failures) * random.uniform(0.5, 1)))  # noqa: S311 - spreads clients, hides nothing

    def _request(self, file: Pinned, part: Path) -> None:
        """Ask for what is missing, once, and append what comes."""
        if urlsplit(file.url).scheme == "file":
            self._append(file, part, 0, _local_chunks(file))
            return
        have = _size(part)
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._client.stream("GET", file.url, headers=headers) as answer:
            match answer.status_code:
                case HTTPStatus.PARTIAL_CONTENT if _starts_at(answer) == have:
                    pass
                case HTTPStatus.OK | HTTPStatus.PARTIAL_CONTENT if not have or answer.status_code == HTTPStatus.OK:
                    have = 0
                case HTTPStatus.PARTIAL_CONTENT | HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    part.unlink(missing_ok=True)
                    raise _TryAgainError("the server does not go on where the download broke off")
                case status if status in _MAY_PASS:
                    raise _TryAgainError(f"the server answered {status}", _retry_after(answer))
                case status:
                    raise PullFailed(f"{file.name} could not be downloaded: the server answered {status}.")
            self._append(file, part, have, answer.iter_raw())

    def _append(self, file: Pinned, part: Path, start: int, chunks: Iterator[bytes]) -> None:
        with part.open("r+b" if part.exists() else "wb") as out:
            out.truncate(start)
            out.seek(start)
            done = start
            for chunk in chunks:
                out.write(chunk)
                done += len(chunk)
                self._watcher.progress(file.name, min(done, file.size), file.size)
                if done > file.size:
                    break  # longer than pinned: the digest will say so, and nothing endless fills the disk


class _TryAgainError(Exception):
    """What a server may do better next time; ``after`` seconds, if it said so."""

    def __init__(self, text: str, after: float = 0.0) -> None:
        super().__init__(text)
        self.after = after


@contextmanager
def disk_errors(doing: str, path: Path) -> Generator[None]:
    """Turn what the file system refuses into a sentence; on a full disk the unfinished file goes away.

    Raises:
        PullFailed: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            if path.is_file():
                path.unlink()
            raise PullFailed(f"No room to {doing}: {path.parent} is full. {_ELSEWHERE}") from error
        raise PullFailed(f"Cannot {doing}: {error}") from error


_ELSEWHERE = "MEDIAMESH_MODELS_CACHE moves the cache to another disk."


def _require_room(file: Pinned, part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < missing:
        raise PullFailed(
            f"No room to download {file.name}: {missing / 1e6:.1f} MB are missing, {part.parent} has "
            f"{free / 1e6:.1f} MB free. {_ELSEWHERE}"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fits(file: Pinned, part: Path) -> bool:
    return _size(part) == file.size and sha256_of(part) == file.sha256


def _starts_at(answer: httpx.Response) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _retry_after(answer: httpx.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return min(_LONGEST_PAUSE, float(value)) if value.isascii() and value.isdecimal() else 0.0


def _local_chunks(file: Pinned) -> Iterator[bytes]:
    with open(unquote(urlsplit(file.url).path), "rb") as source:  # noqa: PTH123 - a path out of a URL
        while chunk := source.read(_CHUNK):
            yield chunk
