"""What Whisper hears: log-mel spectrograms (Radford et al. 2022, section 2.2; OpenAI's Whisper, audio.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from mediamesh.agents.audio_transcriber.sound import Samples

    Array = np.ndarray[Any, Any]

__all__ = ["FRAMES_PER_SECOND", "log_mel"]

FRAMES_PER_SECOND = 100
_BANDS, _WINDOW = 80, 400
_HOP = RATE // FRAMES_PER_SECOND
_RANGE = 8.0  # decades below the loudest; what is quieter counts as silence
_FLOOR = 1e-10


def log_mel(samples: Samples, frames: int) -> Samples:
    """Return the spectrogram of sound with silence behind it, float32 [80, frames], a frame every 10 ms.

    Args:
        samples: Sound at 16 kHz, [n], from -1 to 1.
        frames: Length; what is longer is cut off.
    """
    sounding = min(frames, -(-(len(samples) + _WINDOW // 2) // _HOP))
    # Mirrored at the start; the silence at the end is long enough that its own end need not be.
    end = (sounding - 1) * _HOP + _WINDOW - _WINDOW // 2
    padded = np.pad(samples[:end], (0, max(0, end - len(samples))))
    padded = np.concatenate([padded[_WINDOW // 2 : 0 : -1], padded])
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * _HANN
    spectrum = np.fft.rfft(windows, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    logs = np.log10(np.maximum(_FILTERS @ power.T, _FLOOR))
    quietest = max(float(logs.max()) - _RANGE, float(np.log10(_FLOOR)))
    mel = np.full((_BANDS, frames), quietest, np.float32)
    mel[:, :sounding] = np.maximum(logs, quietest)
    return (mel + np.float32(4)) / np.float32(4)


def _to_mel(hertz: Array) -> Array:
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    linear = hertz / (200 / 3)
    return np.where(hertz >= 1000, 15 + np.log(np.maximum(hertz, 1e-9) / 1000) / (np.log(6.4) / 27), linear)


def _from_mel(mel: Array) -> Array:
    return np.where(mel >= 15, 1000 * np.exp((np.log(6.4) / 27) * (mel - 15)), mel * (200 / 3))


def _filters() -> Samples:
    ends = _to_mel(np.array([0.0, RATE / 2]))
    points = _from_mel(np.linspace(ends[0], ends[1], _BANDS + 2))
    ramps = points[:, None] - np.fft.rfftfreq(_WINDOW, 1 / RATE)[None]
    widths = np.diff(points)
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    filters: Samples = (triangles * (2 / (points[2:] - points[:-2]))[:, None]).astype(np.float32)
    return filters


_FILTERS = _filters()
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)
