"""The course of one run: decode in a thread, keep several frames at the inference server, tell results in order."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from mediamesh.agents.video_analyzer.choice import Verdict
from mediamesh.agents.video_analyzer.latency import Latency
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from mediamesh.agent import Run
    from mediamesh.agents.video_analyzer.analysis import Analysis, Facts, Picture
    from mediamesh.agents.video_analyzer.choice import Choice
    from mediamesh.agents.video_analyzer.video import Frame, Video
    from mediamesh.client.inference import InferenceClient

    Outputs = Mapping[str, np.ndarray[Any, Any]]

__all__ = ["Course"]

_PROGRESS_SECONDS = 1.0


class Course:
    """Takes one video from its first frame to its last.

    Args:
        run: Where results go.
        video: What is looked at, open.
        analysis: How it is looked at.
        choice: Which frames are.
        inference: Runs the model.
        decoding: Bounds how many threads decode at once, over all runs.
        in_flight: Frames that are held at once, from their decoding until their result is told.
    """

    def __init__(
        self,
        run: Run,
        video: Video,
        analysis: Analysis,
        choice: Choice,
        *,
        inference: InferenceClient,
        decoding: asyncio.Semaphore,
        in_flight: int,
    ) -> None:
        self._run, self._video, self._analysis, self._choice = run, video, analysis, choice
        self._inference, self._decoding = inference, decoding
        self._held = asyncio.Semaphore(in_flight)
        self._line: asyncio.Queue[tuple[Picture, int, asyncio.Task[Outputs]] | None] = asyncio.Queue(in_flight)
        self._late = self._thinned = self._told = self._late_told = 0
        self._last_time = 0.0
        self._latency = Latency()

    async def go(self) -> Facts:
        """Analyse and tell every chosen frame; return the summary."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._tell())
            while (picture := await self._next()) is not None:
                asked = tasks.create_task(self._ask(picture))
                await self._line.put((picture, self._late, asked))
            await self._line.put(None)
        return {
            "analysis": self._run.params["analysis_type"],
            "duration": max(self._video.duration, self._last_time),
            "fps": round(self._video.fps, 3),
            "frames": self._video.frames,
            "analysed": self._told,
            "dropped": self._late,
            "thinned": self._thinned,
            "damaged": self._video.damaged,
            "latency": self._latency.told(),
            **self._analysis.summary(),
        }

    async def _next(self) -> Picture | None:
        """Return the next picture to analyse when it is due and there is room for it; None after the last frame."""
        await self._held.acquire()
        picture, goes_on = None, True
        while picture is None and goes_on:
            async with self._decoding:
                picture, goes_on = await asyncio.to_thread(self._video.next, self._prepared)
        if picture is not None and (seconds := self._choice.wait_for(picture.time)):
            await asyncio.sleep(seconds)
            picture.decoded_at += seconds  # it was decoded ahead of its time
        return picture

    def _prepared(self, frame: Frame) -> Picture | None:
        """Make a chosen frame small, and count any other; in the thread that decodes."""
        self._last_time = max(self._last_time, frame.time)
        match self._choice.of(frame.time):
            case Verdict.TAKEN:
                return self._analysis.prepare(frame)
            case Verdict.LATE:
                self._late += 1
            case Verdict.THINNED:
                self._thinned += 1
        return None

    async def _ask(self, picture: Picture) -> Outputs:
        analysis, tensor = self._analysis, picture.tensor
        return await self._inference.infer(analysis.model, {analysis.input_name: tensor}, timeout=self._run.time_left())

    async def _tell(self) -> None:
        """Tell the results one by one; a slow reader holds up the frames behind."""
        next_progress = time.monotonic() + _PROGRESS_SECONDS
        while (entry := await self._line.get()) is not None:
            picture, late, asked = entry
            facts = {
                "type": "frame",
                "time": picture.time,
                "index": picture.index,
                "width": picture.width,
                "height": picture.height,
                "analysis": self._run.params["analysis_type"],
                "dropped": late - self._late_told,
                **self._analysis.tell(picture, await asked),
            }
            chunk = Chunk(snapshot=Snapshot())
            chunk.snapshot.data.struct_value.update(facts)  # half of what json_format takes
            await self._run.emit("analysis_stream", chunk)
            self._latency.add(time.monotonic() - picture.decoded_at)
            self._told += 1
            self._late_told = late
            self._held.release()
            if time.monotonic() >= next_progress:
                next_progress = time.monotonic() + _PROGRESS_SECONDS
                await self._progress(picture.time)

    async def _progress(self, media_time: float) -> None:
        duration = self._video.duration
        share = min(100.0, 100 * media_time / duration) if duration else 0.0
        await self._run.progress(share, f"{self._told} frames, {media_time:.1f} s of the video")
