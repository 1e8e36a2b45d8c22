"""The agent: one course for each sound, and what all of them share."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from typing import TYPE_CHECKING

from mediamesh.agent import Agent
from mediamesh.agents.audio_transcriber.activity import Activity
from mediamesh.agents.audio_transcriber.course import Course
from mediamesh.agents.audio_transcriber.recogniser import Recogniser
from mediamesh.agents.audio_transcriber.sound import recorded, streamed
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agent import Output, Run
    from mediamesh.client.inference import InferenceClient

__all__ = ["AudioTranscriber"]


class AudioTranscriber(Agent):
    """Silero VAD and Whisper behind an agent.

    Args:
        inference: The server that has the models.
        recogniser: Name of Whisper there.
        activity: Name of Silero VAD there.
        pause_seconds: Silence that ends a segment.
    """

    def __init__(self, inference: InferenceClient, *, recogniser: str, activity: str, pause_seconds: float) -> None:
        self._inference, self._activity, self._pause = inference, activity, pause_seconds
        self._recogniser = Recogniser(inference, recogniser)
        self._decoding = asyncio.Semaphore(os.cpu_count() or 1)

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Transcribe ``audio`` or ``audio_stream``."""
        if run.has("audio") == run.has("audio_stream"):
            problem = "or audio must be fed, not both" if run.has("audio") else "or audio must be fed"
            raise InvalidRequest.of_field("inputs.audio_stream", problem)
        source = recorded(run, "audio", self._decoding) if run.has("audio") else streamed(run, "audio_stream")
        activity = Activity(self._inference, self._activity, run.time_left)
        course = Course(run, activity, self._recogniser, pause_seconds=self._pause)
        async with aclosing(source):
            segments = await course.go(source)
        return {"segments": segments, "text": " ".join(segment["text"] for segment in segments)}
