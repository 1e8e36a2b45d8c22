"""Videos as they are decoded: upright, at their own times, and as far as they are whole."""

from __future__ import annotations

import random
import threading
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from mediamesh.agents.video_analyzer.pictures import planes_of
from mediamesh.agents.video_analyzer.video import Video
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, Unavailable, UnsupportedMediaType
from tests.agents import videos

MILLION = 1_000_000


def decoded(data: bytes, *, max_pixels: int = MILLION, work=lambda frame: frame) -> tuple[Video, list[Any]]:
    video, made = Video(BytesIO(data), max_pixels=max_pixels), []
    try:
        video.open()
        goes_on = True
        while goes_on:
            one, goes_on = video.next(work)
            if one is not None:
                made.append(one)
    finally:
        video.close()
    return video, made


def test_frames_come_in_order_with_their_times() -> None:
    video, frames = decoded(videos.encoded([videos.marked(64, 48)] * 30))
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time for frame in frames] == pytest.approx([number / 25 for number in range(30)])
    assert (video.frames, video.damaged, video.fps) == (30, 0, 25)
    assert video.duration == pytest.approx(1.2)


@pytest.mark.parametrize(("codec", "container"), [("mpeg4", "mp4"), ("libvpx", "webm")])
@pytest.mark.parametrize("begin", [0, 5000], ids=["at zero", "begins late"])
def test_frames_of_varying_rate_keep_their_times_from_the_begin_of_the_video(codec, container, begin) -> None:
    times = [0, 40, 500, 520, 2000]
    data = videos.encoded(
        [videos.marked(64, 48)] * 5, times=[begin + time for time in times], codec=codec, container=container
    )
    _, frames = decoded(data)
    assert [round(frame.time * 1000) for frame in frames] == times


def test_a_recording_that_does_not_say_how_long_it_is_is_decoded_to_its_end() -> None:
    video, frames = decoded(videos.encoded([videos.marked(64, 48)] * 5, codec="libvpx", container="webm", live="1"))
    assert video.duration == 0
    assert len(frames) == 5


def test_a_turned_video_stands_upright() -> None:
    reformatter = VideoReformatter()

    def look(frame):
        planes = planes_of(reformatter, frame.decoded, frame.width, frame.height, "AREA")
        return (frame.width, frame.height), np.stack(planes)

    _, [(size, lying)] = decoded(videos.encoded([videos.marked(64, 48)]), work=look)
    _, [(turned_size, upright)] = decoded(videos.turned(videos.encoded([videos.marked(64, 48)])), work=look)
    assert (size, turned_size) == ((64, 48), (48, 64))
    np.testing.assert_array_equal(upright, np.rot90(lying, -1, axes=(1, 2)))
    assert upright[:, 4:28, 28:44].min() > 240  # the white quarter, now on the right
    assert upright[:, 36:, :].max() < 15


def test_pixels_that_are_no_squares_are_stretched() -> None:
    def wide(stream) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)

    _, frames = decoded(videos.encoded([videos.marked(64, 48)], before=wide))
    assert (frames[0].width, frames[0].height) == (128, 48)


@pytest.mark.parametrize("rubbish", [bytes(3000), random.Random(1).randbytes(3000)], ids=["zeros", "random"])
@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_behind_damage_it_goes_on_and_what_was_damaged_is_counted(codec, rubbish) -> None:
    data = videos.encoded([videos.noise(64, 48, seed) for seed in range(60)], codec=codec)
    middle = len(data) // 2
    video, frames = decoded(data[:middle] + rubbish + data[middle + len(rubbish) :])
    assert video.damaged > 0
    assert 40 < len(frames) < 60
    assert frames[-1].time == pytest.approx(59 / 25)


def test_a_video_that_was_cut_off_is_decoded_as_far_as_it_goes() -> None:
    pictures = [videos.noise(64, 48, seed) for seed in range(60)]
    data = videos.encoded(pictures, movflags="frag_keyframe+empty_moov")
    video, frames = decoded(data[: len(data) // 2])
    assert video.damaged > 0
    assert 15 < len(frames) < 40


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", UnsupportedMediaType),
        (b"this is text", UnsupportedMediaType),
        (videos.sound(), UnsupportedMediaType),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n", UnsupportedMediaType),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n", UnsupportedMediaType),
    ],
    ids=["nothing", "text", "sound alone", "playlist", "list of files"],
)
def test_what_is_no_video_is_refused(data, kind) -> None:
    with pytest.raises(kind):
        decoded(data)


def test_a_video_of_which_nothing_can_be_decoded_is_damaged() -> None:
    data = bytearray(videos.encoded([videos.noise(64, 48, seed) for seed in range(3)]))
    begin = data.index(b"mdat") + 4
    data[begin : data.index(b"moov") - 4] = bytes(data.index(b"moov") - 4 - begin)
    with pytest.raises(MediaDecodeFailed, match="Not one frame"):
        decoded(bytes(data))


def test_frames_beyond_the_limit_are_refused_before_they_are_decoded() -> None:
    with pytest.raises(MediaTooLarge, match="3072 pixels") as raised:
        decoded(videos.encoded([videos.marked(64, 48)]), max_pixels=3071)
    assert raised.value.metadata["limit"] == "3071"


@pytest.mark.parametrize("reads", [0, 3])
def test_a_store_that_goes_away_in_the_midst_is_told_as_it_is(reads) -> None:
    class Breaking(BytesIO):
        left = reads

        def read(self, size: int | None = -1, /) -> bytes:
            if not self.left:
                raise Unavailable("the store is gone")
            self.left -= 1
            return super().read(size)

    file = Breaking(videos.encoded([videos.noise(64, 48, seed) for seed in range(60)]))
    video = Video(file, max_pixels=MILLION)
    with pytest.raises(Unavailable, match="gone"):
        video.open()
        while video.next(lambda frame: frame)[1]:
            pass
    video.close()


def test_closing_does_not_wait_for_the_thread_that_decodes_and_it_decodes_no_further() -> None:
    video = Video(BytesIO(videos.encoded([videos.marked(64, 48)] * 30)), max_pixels=MILLION)
    video.open()
    inside, closed = threading.Event(), threading.Event()
    seen = []

    def work(frame) -> None:
        seen.append(frame.index)
        inside.set()
        assert closed.wait(10)

    thread = threading.Thread(target=video.next, args=(work,))
    thread.start()
    assert inside.wait(10)
    video.close()
    closed.set()
    thread.join(10)
    assert seen == [0]
    assert video.next(lambda frame: frame) == (None, True)
