"""From sound to words: Whisper on the inference server, and what keeps it from making words up."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import numpy as np

from mediamesh.agents.audio_transcriber.said import said_of
from mediamesh.agents.audio_transcriber.sound import RATE
from mediamesh.agents.audio_transcriber.spectrogram import FRAMES_PER_SECOND, log_mel
from mediamesh.agents.audio_transcriber.words import PLACE_SECONDS, Token, starts, words_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.said import Said
    from mediamesh.agents.audio_transcriber.sound import Samples
    from mediamesh.agents.audio_transcriber.words import Word
    from mediamesh.client.inference import InferenceClient

__all__ = ["LONGEST_SECONDS", "Recogniser"]

LONGEST_SECONDS = 28.0
"""Most sound that is heard at once: Whisper knows 30 s, of which 2 are silence."""

_PROMPT = (50257, 50362)  # <|startoftranscript|><|notimestamps|>
_WHOLE_SECONDS = 30.0
# Whisper was trained on 30 s. It hears less as well, in less time, if enough silence follows; with too little it goes
# on where nothing is said.
_SILENCE_SECONDS, _LEAST_SECONDS = 4.0, 10.0
_GLIMPSE_SILENCE_SECONDS, _GLIMPSE_LEAST_SECONDS = 2.0, 5.0
_GRAIN_SECONDS = 0.5  # few lengths, so that requests of several callers may run together
# Nobody speaks faster; what has more tokens repeats itself.
_TOKENS, _TOKENS_PER_SECOND, _MOST_TOKENS = 6, 7.0, 220


class Recogniser:
    """Hears stretches of sound, each for itself.

    Args:
        inference: The server that has the model.
        model: Name of Whisper there.
    """

    def __init__(self, inference: InferenceClient, model: str) -> None:
        self._inference, self._model = inference, model

    async def hear(self, samples: Samples, *, timeout: float | None) -> list[Word]:
        """Return the words in a stretch of sound, with times from its begin.

        Where the answer repeats itself, it is heard again with all the silence that Whisper was trained on, which takes
        several times as long.

        Args:
            samples: Sound at 16 kHz, at most LONGEST_SECONDS.
            timeout: Seconds to wait for the server.
        """
        most = _TOKENS + _TOKENS_PER_SECOND * len(samples) / RATE
        seconds = _length(samples, silence=_SILENCE_SECONDS, least=_LEAST_SECONDS)
        said = await self._hear(samples, seconds, most, timeout=timeout)
        if said.goes_on or said.is_doubtful:
            said = await self._hear(samples, _WHOLE_SECONDS, most, timeout=timeout)
        return words_of(*said.without_repeats(sure=True), samples)

    async def glimpse(
        self, samples: Samples, known: Sequence[Token], known_seconds: float, *, timeout: float | None
    ) -> list[Word]:
        """Return the words in a stretch of sound, at once and maybe not the right ones.

        Args:
            samples: Sound at 16 kHz, at most LONGEST_SECONDS.
            known: What it is known to begin with.
            known_seconds: How far that goes.
            timeout: Seconds to wait for the server.
        """
        most = _TOKENS + _TOKENS_PER_SECOND * (len(samples) / RATE - known_seconds)
        seconds = _length(samples, silence=_GLIMPSE_SILENCE_SECONDS, least=_GLIMPSE_LEAST_SECONDS)
        said = await self._hear(samples, seconds, most, known=known, timeout=timeout)
        return words_of(*said.without_repeats(sure=False), samples)

    async def _hear(
        self,
        samples: Samples,
        seconds: float,
        most: float,
        *,
        known: Sequence[Token] = (),
        timeout: float | None,
    ) -> Said:
        """Hear sound, with silence behind it up to so many seconds, and so many tokens at most."""
        mel = await asyncio.to_thread(log_mel, samples, round(seconds * FRAMES_PER_SECOND))
        inputs = {
            "mel": mel[np.newaxis],
            "prompt": np.array([[*_PROMPT, *(token.number for token in known)]]),
            "limit": np.array([[max(1, min(_MOST_TOKENS, int(most)))]]),
        }
        answer = await self._inference.infer(self._model, inputs, timeout=timeout)
        columns = answer["tokens"][0].tolist(), answer["pieces"][0], answer["probabilities"][0].tolist()
        tokens = [Token(number, piece.decode(), likely) for number, piece, likely in zip(*columns, strict=True)]
        # Only the places of the sound: what is looked at behind it was not heard.
        places = max(1, -(-len(samples) // round(PLACE_SECONDS * RATE)))
        looks = answer["alignment"][0, len(_PROMPT) - 1 :, :places]
        begins = await asyncio.to_thread(starts, looks)
        return said_of([*known, *tokens], [*begins, places])


def _length(samples: Samples, *, silence: float, least: float) -> float:
    """Return the seconds that are heard, silence included."""
    seconds = max(least, len(samples) / RATE + silence)
    return min(_WHOLE_SECONDS, math.ceil(seconds / _GRAIN_SECONDS) * _GRAIN_SECONDS)
