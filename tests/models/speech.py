"""Sound as the models of the set ``speech`` want it."""

from __future__ import annotations

import re
import wave

import numpy as np
from tokenizers import Tokenizer

RATE = 16_000
_BANDS, _WINDOW, _HOP = 80, 400, 160
PROMPT = (50257, 50362)  # the start of a text, without times in it


def read(path):
    """Return a WAV file of 16 bits as float32 at 16 kHz."""
    with wave.open(str(path), "rb") as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())[:, 0]
        rate = file.getframerate()
    return resampled(samples / 32768, rate)


def resampled(samples, rate: int):
    """Return sound at 16 kHz, cut off or filled up in the spectrum of the whole."""
    length = round(len(samples) * RATE / rate)
    spectrum = np.fft.rfft(samples)[: length // 2 + 1]
    return (np.fft.irfft(spectrum, length) * (length / len(samples))).astype(np.float32)


def _to_mel(hertz):
    """Slaney's scale: linear up to 1 kHz, logarithmic above."""
    linear = hertz / (200 / 3)
    return np.where(hertz >= 1000, 15 + np.log(np.maximum(hertz, 1e-9) / 1000) / (np.log(6.4) / 27), linear)


def _from_mel(mel):
    return np.where(mel >= 15, 1000 * np.exp((np.log(6.4) / 27) * (mel - 15)), mel * (200 / 3))


def _filters():
    points = _from_mel(np.linspace(_to_mel(np.float64(0)), _to_mel(np.float64(RATE / 2)), _BANDS + 2))
    ramps = points[:, None] - np.fft.rfftfreq(_WINDOW, 1 / RATE)[None]
    widths = np.diff(points)
    triangles = np.maximum(0, np.minimum(-ramps[:-2] / widths[:-1, None], ramps[2:] / widths[1:, None]))
    return triangles * (2 / (points[2:] - points[:-2]))[:, None]


_FILTERS = _filters()


def log_mel(samples):
    """Return Whisper's spectrogram, [1, 80, frames], a frame every 10 ms."""
    padded = np.pad(samples, _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP] * np.hanning(_WINDOW + 1)[:-1]
    power = np.abs(np.fft.rfft(frames, axis=1)[:-1]) ** 2
    logs = np.log10(np.maximum(_FILTERS @ power.T, 1e-10))
    return ((np.maximum(logs, logs.max() - 8) + 4) / 4).astype(np.float32)[None]


def pieces(samples: np.ndarray, longest: float = 28.0) -> list[np.ndarray]:
    """Cut sound at its quietest 0.3 s where it is longer than Whisper hears at once."""
    if len(samples) <= longest * RATE:
        return [samples]
    start, width = int((longest - 10) * RATE), int(0.3 * RATE)
    loudness = np.convolve(samples[start : int(longest * RATE)] ** 2, np.ones(width), "valid")
    cut = start + int(loudness.argmin()) + width // 2
    return [samples[:cut], *pieces(samples[cut:], longest)]


async def transcribe(client, samples: np.ndarray, files) -> str:
    """Return what is said; 2 s of silence after it keep Whisper from going on."""
    tokenizer = Tokenizer.from_file(str(files / "tokenizer.json"))
    said = []
    for piece in pieces(samples):
        mel = log_mel(np.pad(piece, (0, 2 * RATE)))
        inputs = {"mel": mel[..., : mel.shape[2] // 2 * 2], "prompt": np.array([PROMPT]), "limit": np.array([[220]])}
        answer = await client.infer("whisper_tiny_en", inputs)
        said.append(tokenizer.decode(answer["tokens"][0].tolist()))
    return " ".join(said)


def words(text: str) -> list[str]:
    """Return the words of a text as a listener counts them."""
    return re.findall(r"[a-z']+", text.lower())


def word_error_rate(reference: list[str], heard: list[str]) -> float:
    """Return the share of words that have to be changed, added or left out (Levenshtein 1966)."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(reference, 1):
        above, row[0] = row[0], number
        for place, other in enumerate(heard, 1):
            above, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, above + (word != other))
    return row[-1] / len(reference)
