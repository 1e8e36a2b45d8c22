"""One run: sound is taken as it comes, while what is there already is heard.

Three tasks work side by side: one brings sound, one finds out where speech is, and one, the slowest, hears it. The last
takes a segment that has ended before one that goes on, so partial results are what it leaves out first; and when too
many segments have ended, those before it wait, and so does the source.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from mediamesh.agents.audio_transcriber.activity import FRAME, FRAME_SECONDS
from mediamesh.agents.audio_transcriber.arrival import Arrival
from mediamesh.agents.audio_transcriber.quiet import quietest
from mediamesh.agents.audio_transcriber.recogniser import LONGEST_SECONDS
from mediamesh.agents.audio_transcriber.results import placed, segment_of, transcript_chunk
from mediamesh.agents.audio_transcriber.segments import MARGIN, Segmenter
from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mediamesh.agent import Run
    from mediamesh.agents.audio_transcriber.activity import Activity
    from mediamesh.agents.audio_transcriber.recogniser import Recogniser
    from mediamesh.agents.audio_transcriber.segments import Segment
    from mediamesh.agents.audio_transcriber.sound import Samples

__all__ = ["Course"]

_PARTIAL_FRAMES = round(0.5 / FRAME_SECONDS)  # new speech that is worth a partial result
_SETTLES = round(0.3 * RATE)  # silence after which speech may have ended
_WAITING = 4  # segments that have ended and not been heard
_LONGEST = int(LONGEST_SECONDS * RATE)
_CUT_WITHIN, _CUT_SECONDS = 10 * RATE, 0.3


class Course:
    """Transcribes one sound.

    Args:
        run: Gets the results.
        activity: Tells where speech is.
        recogniser: Tells what is said.
        pause_seconds: Silence that ends a segment.
    """

    def __init__(self, run: Run, activity: Activity, recogniser: Recogniser, *, pause_seconds: float) -> None:
        self._run, self._activity, self._recogniser = run, activity, recogniser
        self._segmenter = Segmenter(pause_seconds)
        self._sound, self._base = np.zeros(0, np.float32), 0
        self._ended: deque[Segment] = deque()
        self._is_over = False
        self._news, self._room = asyncio.Event(), asyncio.Event()
        self._finished: list[dict[str, Any]] = []

    async def go(self, source: AsyncIterator[Samples]) -> list[dict[str, Any]]:
        """Take all sound, and return the segments."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            arrival = Arrival()
            tasks.create_task(arrival.fill(source))
            while (samples := await arrival.take()) is not None:
                await self._take(samples)
            if (last := self._segmenter.close()) is not None:
                await self._end(last)
            self._is_over = True
            self._news.set()
        return self._finished

    async def _take(self, samples: Samples) -> None:
        self._sound = np.concatenate([self._sound, samples])
        for probability in (await self._activity.take(samples)).tolist():
            if (ended := self._segmenter.take(probability)) is not None:
                await self._end(ended)
            elif (segment := self._segmenter.open) and len(segment.voiced) * FRAME >= _LONGEST:
                begin = segment.start + _LONGEST - _CUT_WITHIN
                place = begin + quietest(self._between(begin, segment.start + _LONGEST), _CUT_SECONDS)
                await self._end(self._segmenter.cut(segment.start + (place - segment.start) // FRAME * FRAME))
        self._forget()
        self._news.set()

    async def _end(self, segment: Segment) -> None:
        while len(self._ended) >= _WAITING:
            self._room.clear()
            await self._room.wait()
        self._ended.append(segment)
        self._news.set()

    async def _listen(self) -> None:
        while True:
            if self._ended:
                await self._finish(self._ended[0])
                self._ended.popleft()
                self._room.set()
            elif self._is_over:
                return
            elif (segment := self._segmenter.open) is not None and _is_due(segment):
                await self._partial(segment)
            else:
                self._news.clear()
                await self._news.wait()

    async def _partial(self, segment: Segment) -> None:
        """Give what has been said of a segment so far."""
        spoken_until, now = segment.spoken_until, _now(segment)
        segment.heard_frames, segment.heard_until = segment.spoken_frames, now
        if now - spoken_until >= _SETTLES:
            await self._hear(segment, spoken_until + MARGIN)
            segment.settled_at = spoken_until
        else:
            hypothesis = segment.hypothesis
            begin = hypothesis.begin
            sound = self._between(begin, now)
            heard = await self._recogniser.glimpse(
                sound, hypothesis.known, hypothesis.known_seconds, timeout=self._run.time_left()
            )
            hypothesis.take(placed(segment, heard, begin), now / RATE)
            segment.words = hypothesis.words
        if segment.words:
            await self._run.emit(
                "transcript", transcript_chunk(segment_of(segment, segment.words, final=False), final=False)
            )

    async def _finish(self, segment: Segment) -> None:
        if segment.settled_at != segment.spoken_until:
            await self._hear(segment, segment.end or _now(segment))
        result = segment_of(segment, segment.words, final=True)
        if segment.words:
            self._finished.append(result)
        await self._run.emit("transcript", transcript_chunk(result, final=True))

    async def _hear(self, segment: Segment, until: int) -> None:
        sound = self._between(segment.start, until)
        words = await self._recogniser.hear(sound, timeout=self._run.time_left())
        segment.words = placed(segment, words, segment.start)

    def _between(self, begin: int, end: int) -> Samples:
        return self._sound[begin - self._base : end - self._base]

    def _forget(self) -> None:
        """Let go of sound that belongs to no segment that is still to be heard."""
        segments = [*self._ended, *filter(None, [self._segmenter.open])]
        end = self._base + len(self._sound)
        needed = min((segment.start for segment in segments), default=max(self._base, end - 2 * MARGIN - 4 * FRAME))
        self._sound, self._base = self._sound[needed - self._base :], needed


def _is_due(segment: Segment) -> bool:
    new = segment.spoken_frames - segment.heard_frames
    return new >= _PARTIAL_FRAMES or (_silence(segment) >= _SETTLES and segment.settled_at != segment.spoken_until)


def _now(segment: Segment) -> int:
    return segment.start + len(segment.voiced) * FRAME


def _silence(segment: Segment) -> int:
    return _now(segment) - segment.spoken_until
