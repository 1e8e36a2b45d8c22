"""How likely each 32 ms of sound are speech: Silero VAD on the inference server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from collections.abc import Callable

    from mediamesh.agents.audio_transcriber.sound import Samples
    from mediamesh.client.inference import InferenceClient

__all__ = ["FRAME", "FRAME_SECONDS", "Activity"]

FRAME = 512
"""Samples that a probability stands for."""

FRAME_SECONDS = FRAME / RATE
_STATE = 320


class Activity:
    """One stream of sound before the model, which remembers what came before.

    Args:
        inference: The server that has the model.
        model: Its name there.
        time_left: Returns the seconds that a request may take.
    """

    def __init__(self, inference: InferenceClient, model: str, time_left: Callable[[], float | None]) -> None:
        self._inference, self._model, self._time_left = inference, model, time_left
        self._state = np.zeros((1, _STATE), np.float32)
        self._rest = np.zeros(0, np.float32)

    async def take(self, samples: Samples) -> Samples:
        """Return the probability of speech of each whole frame; what is left waits for the next samples."""
        sound = np.concatenate([self._rest, samples])
        whole = len(sound) - len(sound) % FRAME
        self._rest = sound[whole:]
        if not whole:
            return sound[:0]
        inputs = {"audio": sound[np.newaxis, :whole], "state": self._state}
        answer = await self._inference.infer(self._model, inputs, timeout=self._time_left())
        self._state = answer["next_state"]
        speech: Samples = answer["speech"][0]
        return speech
