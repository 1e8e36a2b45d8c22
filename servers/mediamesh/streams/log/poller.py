"""One reader for all streams that a replica follows, and for the news."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.exceptions import ResponseError

from mediamesh.streams.log.keys import NEWS, buffer_of, stream_in, wake_of
from mediamesh.streams.log.link import Link, packed, refused
from mediamesh.streams.log.packing import entries_of, news_of
from mediamesh.streams.log.ports import Entry, News, Polled

__all__ = ["Poller"]

_BLOCK_MS = 1500
_SLACK_SECONDS = 10
# Events taken at once, of all streams together; of each, at least so many.
_POLL_ITEMS = 4000
_LEAST_ITEMS = 4
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
        self._keys: dict[str, bytes] = {}
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
        return self._polled(found[0] or ())

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    def _command(self, positions: Mapping[str, int]) -> bytes:
        keys = {stream_id: self._keys.get(stream_id) or buffer_of(stream_id) for stream_id in positions}
        self._keys = keys
        count = min(_MOST_ITEMS, max(_LEAST_ITEMS, _POLL_ITEMS // (len(keys) + 1)))
        after = [b"%d-0" % position for position in positions.values()]
        words: tuple[bytes | str | int, ...] = (b"XREAD", b"COUNT", count, b"BLOCK", _BLOCK_MS, b"STREAMS",
                 NEWS, self._mailbox, *keys.values(), self.heard, self._letter, *after)  # fmt: skip
        return packed(words)

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
