"""Where sound is quietest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from mediamesh.agents.audio_transcriber.sound import Samples

__all__ = ["quietest"]


def quietest(samples: Samples, seconds: float) -> int:
    """Return the middle of the quietest stretch of so many seconds, in samples from the first."""
    width = round(seconds * RATE)
    if len(samples) <= width:
        return len(samples) // 2
    sums = np.concatenate([[0.0], np.cumsum(samples.astype(np.float64) ** 2)])
    return int((sums[width:] - sums[:-width]).argmin()) + width // 2
