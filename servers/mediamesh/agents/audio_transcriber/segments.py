"""Where speech begins and pauses, from how likely it is; and where it is cut when it does not pause."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mediamesh.agents.audio_transcriber.activity import FRAME, FRAME_SECONDS
from mediamesh.agents.audio_transcriber.hypothesis import Hypothesis
from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from mediamesh.agents.audio_transcriber.words import Word

__all__ = ["MARGIN", "Segment", "Segmenter"]

MARGIN = round(0.2 * RATE / FRAME) * FRAME
"""Samples about the speech that belong to a segment: sounds begin and end softly."""

_BEGINS, _GOES_ON = 0.5, 0.35  # probabilities: the second is lower, so that a segment does not flicker
_LEAST_FRAMES = 3  # so many in a row, 96 ms, make speech: a click does not


@dataclass(slots=True)
class Segment:
    """Speech between two pauses. Places are samples from the start of the sound.

    Attributes:
        index: Its number, from 0.
        start: Where it begins.
        voiced: Which of its frames from the start on are speech.
        spoken_until: Where the last speech so far ended.
        end: Where it ends, once that is known.
    """

    index: int
    start: int
    spoken_until: int
    voiced: list[bool] = field(default_factory=list)
    end: int | None = None
    # What the recogniser keeps here.
    heard_frames: int = 0
    heard_until: int = 0
    settled_at: int = -1
    words: list[Word] = field(default_factory=list)
    hypothesis: Hypothesis = field(init=False)

    def __post_init__(self) -> None:
        self.hypothesis = Hypothesis(self.start)

    @property
    def spoken_frames(self) -> int:
        """How many frames of speech there are so far."""
        return sum(self.voiced)


class Segmenter:
    """Turns probabilities of speech into segments.

    Args:
        pause_seconds: Silence that ends a segment.
    """

    def __init__(self, pause_seconds: float) -> None:
        self._pause = max(1, round(pause_seconds / FRAME_SECONDS))
        self._place = self._silent = self._likely = self._count = 0
        self.open: Segment | None = None

    def take(self, probability: float) -> Segment | None:
        """Take the next frame; returns the segment that it ends."""
        self._place += FRAME
        if self.open is None:
            self._wait(probability)
            return None
        voiced = probability >= _GOES_ON
        self.open.voiced.append(voiced)
        if voiced:
            self.open.spoken_until, self._silent = self._place, 0
            return None
        self._silent += 1
        if self._silent < self._pause:
            return None
        return self.close()

    def close(self) -> Segment | None:
        """End the segment that is open, if there is one."""
        ended, self.open = self.open, None
        if ended is not None:
            ended.end = min(ended.spoken_until + MARGIN, self._place)
        return ended

    def cut(self, place: int) -> Segment:
        """End the open segment at a place within it, from where on the next one is open."""
        ended = self.open
        if ended is None:
            raise ValueError("no segment is open")
        frames = (place - ended.start) // FRAME
        self.open = Segment(self._next(), place, max(place, ended.spoken_until), ended.voiced[frames:])
        ended.end, ended.spoken_until, ended.voiced = place, min(place, ended.spoken_until), ended.voiced[:frames]
        return ended

    def _wait(self, probability: float) -> None:
        self._likely = self._likely + 1 if probability >= _BEGINS else 0
        if self._likely < _LEAST_FRAMES:
            return
        start = max(0, self._place - self._likely * FRAME - MARGIN)
        frames = (self._place - start) // FRAME
        voiced = [number >= frames - self._likely for number in range(frames)]
        self.open = Segment(self._next(), start, self._place, voiced)
        self._likely = self._silent = 0

    def _next(self) -> int:
        self._count += 1
        return self._count - 1
