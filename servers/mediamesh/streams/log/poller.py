"""One reader for all streams that a replica follows, and for the news."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import monotonic
from typing import Any

from redis.exceptions import ResponseError

from mediamesh.streams.log.keys import NEWS, buffer_of, stream_in, wake_of
from mediamesh.streams.log.link import Link, refused
from mediamesh.streams.log.packing import entries_of, news_of
from mediamesh.streams.log.ports import Entry, News, Polled

__all__ = ["Poller"]

_BLOCK_MS = 1500
_SLACK_SECONDS = 10
# Events taken at once, of all streams together; of each, at least so many.
_POLL_ITEMS = 4000
_LEAST_ITEMS = 4
# A poll costs both sides for each stream in it, however little it finds; where much comes, more is found after a rest.
_REST_SECONDS = 10e-6
_MOST_ITEMS = 200


class Poller:
    """Reads many streams with one command, on a connection of its own because it waits there.

    Args:
        url: Where Valkey is.
        replica: Name of the replica.
    """

    def __init__(self, url: str, *, replica: str) -> None:
        self._link = Link(url)
        self._mailbox = wake_of(replica).encode()
        self._letter = b"0-0"
        self._ids: list[str] = []
        self._keys = b""
        self._rested = 0.0
        self.heard = ""
        """Position of the last news."""
        self.awake = False
        """Whether the running poll, or the next, is sure to return soon."""

    async def poll(self, positions: Mapping[str, int]) -> Polled:
        """Wait for events after positions, and for news.

        Args:
            positions: Position in each stream.

        Raises:
            Unavailable: Valkey is not there.
        """
        found: list[Any] = []
        await asyncio.sleep(max(0, self._rested - monotonic()))
        try:
            await self._link.exchange(
                [self._command(positions)],
                lambda _, reply: found.append(reply),
                seconds=_BLOCK_MS / 1000 + _SLACK_SECONDS,
            )
        finally:
            self.awake = False
        if isinstance(found[0], ResponseError):
            raise refused(found[0])
        polled = self._polled(found[0] or ())
        if polled.entries:
            self._rested = monotonic() + len(positions) * _REST_SECONDS
        return polled

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    def _command(self, positions: Mapping[str, int]) -> bytes:
        """Pack the command: of a thousand streams this is most of what a poll costs, so pieces are kept."""
        ids = list(positions)
        if ids != self._ids:
            self._ids, self._keys = ids, b"".join(_word(buffer_of(stream_id)) for stream_id in ids)
        count = min(_MOST_ITEMS, max(_LEAST_ITEMS, _POLL_ITEMS // (len(ids) + 1)))
        head = b"*%d\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n%b$5\r\nBLOCK\r\n%b$7\r\nSTREAMS\r\n" % (
            10 + 2 * len(ids),
            _word(b"%d" % count),
            _word(b"%d" % _BLOCK_MS),
        )
        first, after = (NEWS, self._mailbox), (self.heard.encode(), self._letter)
        return b"".join((head, *map(_word, first), self._keys, *map(_word, after), *map(_position, positions.values())))

    def _polled(self, found: Sequence[tuple[bytes, Sequence[tuple[bytes, Sequence[bytes]]]]]) -> Polled:
        entries: dict[str, Sequence[Entry]] = {}
        news: Sequence[News] = ()
        for key, items in found:
            if key == NEWS:
                news = news_of(items)
                self.heard = items[-1][0].decode()
            elif key == self._mailbox:
                self._letter = items[-1][0]
            else:
                entries[stream_in(key)] = entries_of(items)
        return Polled(entries=entries, news=news)


def _word(word: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(word), word)


@lru_cache(maxsize=16_384)
def _position(sequence: int) -> bytes:
    return _word(b"%d-0" % sequence)
