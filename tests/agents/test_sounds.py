"""Sounds that are odd and that the media service takes in: the agents hear all of them."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import av
import pytest

from mediamesh.agents.audio_converter.conversion import MEDIA_TYPES, Form, convert
from mediamesh.agents.audio_transcriber.sound import RATE, recorded
from mediamesh.media.sounds import read_sound
from mediamesh.media.tracks import RecordingLimits, opened
from mediamesh.wire.errors import MediaDecodeFailed
from tests.media.makers import sound

pytestmark = pytest.mark.slow


def mp3(*, rate=44_100, layout="mono"):
    return sound("mp3", "libmp3lame", rate=rate, layout=layout, seconds=0.5)


def damaged(data: bytes, *, packets: int) -> bytes:
    """Return an MP3 with nonsense in frames from its middle on."""
    changed, at = bytearray(data), len(data) // 2
    for _ in range(packets):
        at = data.index(b"\xff\xfb", at)
        changed[at + 4 : at + 200] = b"\xff" * 196
        at += 1
    return bytes(changed)


ODD = {
    "joined": lambda: mp3() + mp3(),
    "mono, then stereo": lambda: mp3() + mp3(layout="stereo"),
    "44.1, then 48 kHz": lambda: mp3() + mp3(rate=48_000),
    "three forms": lambda: mp3() + mp3(layout="stereo") + mp3(rate=48_000),
    "damaged": lambda: damaged(mp3(), packets=1),
}


class Run:
    """As much of a run as the transcriber needs to hear a recording."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @asynccontextmanager
    async def open(self, pin):
        yield BytesIO(self.data)


async def heard(data: bytes) -> float:
    """Return the seconds that the transcriber hears."""
    run: Any = Run(data)
    return sum([len(piece) async for piece in recorded(run, "audio", asyncio.Semaphore(1))]) / RATE


def converted(data: bytes, media_type: str) -> float:
    """Return the seconds that the converter writes."""
    made = BytesIO()
    convert(BytesIO(data), made, Form(0, 0, media_type), max_bytes=10**9, stop=threading.Event())
    made.seek(0)
    with av.open(made, "r") as file:
        return sum(frame.samples / frame.sample_rate for frame in file.decode(audio=0))


@pytest.mark.parametrize("name", ODD)
async def test_what_the_media_service_takes_in_is_heard_and_converted_at_its_length(name) -> None:
    data = ODD[name]()
    with opened(BytesIO(data), "audio/mpeg", pixels=0) as container:
        limits = RecordingLimits(seconds=60, work_seconds=60)
        seconds = read_sound(container, limits, lambda: None).duration_seconds
    assert await heard(data) == pytest.approx(seconds, abs=0.01)
    for media_type in MEDIA_TYPES:
        assert converted(data, media_type) == pytest.approx(seconds, abs=0.05)


async def test_a_recording_of_which_more_is_damaged_is_refused() -> None:
    data = damaged(mp3(), packets=5)
    with pytest.raises(MediaDecodeFailed, match="damaged"):
        await heard(data)
    with pytest.raises(MediaDecodeFailed, match=r"damaged after \d+ samples"):
        converted(data, "audio/wav")
