"""What has been said of a segment that goes on: what two hearings agree on is not asked again.

That keeps a partial result as quick in a long segment as in a short one (local agreement: Liu et al. 2020, Low-Latency
Sequence-to-Sequence Speech Recognition; Machacek et al. 2023, Turning Whisper into a Real-Time Transcription System).
"""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING

from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.words import Token, Word

__all__ = ["Hypothesis"]

_FRESH_SECONDS = 1.0  # words that ended so shortly ago may still become others
_LONGEST_SECONDS = 5.0  # sound that is heard for a partial result


class Hypothesis:
    """The words of one segment so far; times in seconds from the start of the sound.

    Args:
        begin: Where the segment begins, in samples.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self._settled: list[Word] = []
        self._words: list[Word] = []
        self._agreed = 0

    @property
    def words(self) -> list[Word]:
        """All words."""
        return [*self._settled, *self._words]

    @property
    def known(self) -> list[Token]:
        """What the sound from ``begin`` on is known to begin with."""
        return [token for word in self._words[: self._agreed] for token in word.tokens]

    @property
    def known_seconds(self) -> float:
        """How much of the sound from ``begin`` on that is."""
        return self._words[self._agreed - 1].end - self.begin / RATE if self._agreed else 0.0

    def take(self, words: Sequence[Word], now: float) -> None:
        """Take what was heard from ``begin`` until now, a time in seconds."""
        same = [old for old, new in takewhile(_are_same, zip(self._words, words, strict=False))]
        self._words = list(words)
        self._agreed = sum(1 for word in words[: len(same)] if word.end < now - _FRESH_SECONDS)
        if now - self.begin / RATE > _LONGEST_SECONDS:
            self._settle()

    def _settle(self) -> None:
        """Put away words that are agreed on, up to the longest pause in the later half of them."""
        places = range(self._agreed // 2 + 1, self._agreed)
        if not places:
            return
        count = max(places, key=lambda place: self._words[place].start - self._words[place - 1].end)
        before, after = self._words[count - 1], self._words[count]
        self.begin = round((before.end + after.start) / 2 * RATE)
        self._settled += self._words[:count]
        self._words, self._agreed = self._words[count:], self._agreed - count


def _are_same(pair: tuple[Word, Word]) -> bool:
    one, other = (word.text.casefold().strip(".,;:!?-") for word in pair)
    return one == other
