"""From sound to words: Whisper on the inference server, and what keeps it from making words up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mediamesh.agents.audio_transcriber.sound import RATE
from mediamesh.agents.audio_transcriber.spectrogram import FRAMES_PER_SECOND, log_mel
from mediamesh.agents.audio_transcriber.words import PLACE_SECONDS, starts, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.sound import Samples
    from mediamesh.agents.audio_transcriber.words import Array, Word
    from mediamesh.client.inference import InferenceClient

__all__ = ["LONGEST_SECONDS", "Recogniser"]

LONGEST_SECONDS = 28.0
"""Most sound that is heard at once: Whisper knows 30 s, of which 2 are silence."""

_PROMPT = (50257, 50362)  # <|startoftranscript|><|notimestamps|>
_WHOLE_SECONDS = 30.0
# Whisper was trained on 30 s. It hears less as well, in less time, if enough silence follows; with too little it goes
# on where nothing is said.
_SILENCE_SECONDS, _LEAST_SECONDS = 2.0, 6.0
_GRAIN_SECONDS = 0.5  # few lengths, so that requests of several callers may run together
# Nobody speaks faster; what has more tokens repeats itself.
_TOKENS, _TOKENS_PER_SECOND, _MOST_TOKENS = 6, 7.0, 220
_LEAST_REPEATS, _LONGEST_REPEATED = 3, 16


class _Heard(NamedTuple):
    words: list[Word]
    is_whole: bool


class Recogniser:
    """Hears stretches of sound, each for itself.

    Args:
        inference: The server that has the model.
        model: Name of Whisper there.
    """

    def __init__(self, inference: InferenceClient, model: str) -> None:
        self._inference, self._model = inference, model

    async def hear(self, samples: Samples, *, carefully: bool, timeout: float | None) -> list[Word]:
        """Return the words in a stretch of sound, with times from its begin.

        Args:
            samples: Sound at 16 kHz, at most LONGEST_SECONDS.
            carefully: Hear again with all the silence that Whisper was trained on, which takes several times as long,
                where the first answer repeats itself.
            timeout: Seconds to wait for the server.
        """
        seconds = len(samples) / RATE
        length = max(_LEAST_SECONDS, seconds + _SILENCE_SECONDS)
        heard = await self._hear(samples, np.ceil(length / _GRAIN_SECONDS) * _GRAIN_SECONDS, timeout)
        if carefully and not heard.is_whole:
            heard = await self._hear(samples, _WHOLE_SECONDS, timeout)
        return heard.words

    async def _hear(self, samples: Samples, seconds: float, timeout: float | None) -> _Heard:
        mel = await asyncio.to_thread(log_mel, samples, round(seconds * FRAMES_PER_SECOND))
        limit = min(_MOST_TOKENS, int(_TOKENS + _TOKENS_PER_SECOND * len(samples) / RATE))
        inputs = {"mel": mel[np.newaxis], "prompt": np.array([_PROMPT]), "limit": np.array([[limit]])}
        answer = await self._inference.infer(self._model, inputs, timeout=timeout)
        # Only the places of the sound: what is looked at behind it was not heard.
        places = max(1, -(-len(samples) // round(PLACE_SECONDS * RATE)))
        looks = answer["alignment"][0, len(_PROMPT) - 1 :, :places]
        pieces = [piece.decode() for piece in answer["pieces"][0]]
        return await asyncio.to_thread(_heard, pieces, answer["probabilities"][0].tolist(), looks)


def _heard(pieces: list[str], probabilities: list[float], looks: Array) -> _Heard:
    ended = "" in pieces  # the end of the text, which is special
    if ended:
        pieces = pieces[: pieces.index("")]
    kept = _unrepeated(pieces)
    begins = [place * PLACE_SECONDS for place in starts(looks)]
    begins = [*begins, looks.shape[1] * PLACE_SECONDS][: len(kept) + 1]
    return _Heard(words_of(kept, probabilities, begins), ended and len(kept) == len(pieces))


def _unrepeated(tokens: Sequence[str]) -> list[str]:
    """Return the tokens up to where they repeat themselves to the end."""
    for length in range(1, _LONGEST_REPEATED + 1):
        last = tokens[len(tokens) - length :]
        times = 1
        while tokens[len(tokens) - (times + 1) * length : len(tokens) - times * length] == last:
            times += 1
        if times >= _LEAST_REPEATS:
            return list(tokens[: len(tokens) - (times - 1) * length])
    return list(tokens)
