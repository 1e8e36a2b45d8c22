"""What was seen over a whole video, in memory that does not grow with it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Tally"]


@dataclass(slots=True)
class _Seen:
    first: float
    last: float
    frames: int = 0
    at_once: int = 0
    score: float = 0.0


class Tally:
    """Counts by label; one entry for each label, of which models have a fixed number."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def add(self, time: float, labels: Iterable[tuple[str, float]]) -> None:
        """Note what one frame shows.

        Args:
            time: Seconds from the begin of the video.
            labels: Label and score of everything in it.
        """
        scores = defaultdict[str, list[float]](list)
        for label, score in labels:
            scores[label].append(score)
        for label, given in scores.items():
            seen = self._seen.setdefault(label, _Seen(first=time, last=time))
            seen.last, seen.frames = time, seen.frames + 1
            seen.at_once, seen.score = max(seen.at_once, len(given)), max(seen.score, *given)

    def told(self, most: int = 100) -> list[dict[str, Any]]:
        """Return the labels, those of most frames first: frames, most at once, best score, first and last time."""
        order = sorted(self._seen.items(), key=lambda entry: (-entry[1].frames, entry[0]))
        return [
            {
                "label": label,
                "frames": seen.frames,
                "at_once": seen.at_once,
                "score": seen.score,
                "first": seen.first,
                "last": seen.last,
            }
            for label, seen in order[:most]
        ]
