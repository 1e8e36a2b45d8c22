"""The agent: one course for each video, and what all of them share."""

from __future__ import annotations

import asyncio
import os
from contextlib import closing
from typing import TYPE_CHECKING

from mediamesh.agent import Agent
from mediamesh.agents.video_analyzer.activity import ActivityRecognition
from mediamesh.agents.video_analyzer.choice import Choice
from mediamesh.agents.video_analyzer.course import Course
from mediamesh.agents.video_analyzer.detection import ObjectDetection
from mediamesh.agents.video_analyzer.scenes import SceneClassification
from mediamesh.agents.video_analyzer.video import Video

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mediamesh.agent import Output, Run
    from mediamesh.agents.video_analyzer.analysis import Analysis
    from mediamesh.client.inference import InferenceClient

__all__ = ["VideoAnalyzer"]


class VideoAnalyzer(Agent):
    """Streams what is seen in each frame of a video.

    Args:
        inference: The server that has the models.
        detector: Name of NanoDet there.
        classifier: Name of EfficientNet-Lite0 there.
        max_videos: Videos that are open at once; the next run waits.
        in_flight: Frames of one video that are held at once.
        max_pixels: Width times height of a frame, at most.
    """

    def __init__(
        self,
        inference: InferenceClient,
        *,
        detector: str,
        classifier: str,
        max_videos: int,
        in_flight: int,
        max_pixels: int,
    ) -> None:
        self._inference, self._detector, self._classifier = inference, detector, classifier
        self._in_flight, self._max_pixels = in_flight, max_pixels
        self._videos = asyncio.Semaphore(max_videos)
        self._decoding = asyncio.Semaphore(os.cpu_count() or 1)

    async def process(self, run: Run) -> Mapping[str, Output]:
        """Analyse ``video``."""
        analysis = self._analysis(run)
        choice = Choice(max_fps=run.params["max_fps"], paced=run.params["pace"] == "media")
        async with self._videos, run.open("video") as file:
            with closing(Video(file, max_pixels=self._max_pixels)) as video:
                async with self._decoding:
                    await asyncio.to_thread(video.open)
                course = Course(
                    run,
                    video,
                    analysis,
                    choice,
                    inference=self._inference,
                    decoding=self._decoding,
                    in_flight=self._in_flight,
                )
                return {"summary": await course.go()}

    def _analysis(self, run: Run) -> Analysis:
        if run.params["analysis_type"] == "scene_classification":
            return SceneClassification(self._classifier)
        objects = ObjectDetection(self._detector, min_score=run.params["min_score"])
        return objects if run.params["analysis_type"] == "object_detection" else ActivityRecognition(objects)
