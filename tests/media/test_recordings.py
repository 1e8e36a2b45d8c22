from __future__ import annotations

import asyncio
import os
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings, strategies

from mediamesh.api.media.v1.media_pb2 import MediaFacts, MediaType
from mediamesh.client.media import MediaClient
from mediamesh.media.budget import Budget
from mediamesh.media.layer3 import walk_layer3
from mediamesh.media.recordings import RecordingReader
from mediamesh.media.tracks import RecordingLimits
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType
from tests.media.makers import film, sound
from tests.media.test_breaking import server_process

pytestmark = pytest.mark.slow

AUDIO, VIDEO, IMAGE = MediaType.MEDIA_TYPE_AUDIO, MediaType.MEDIA_TYPE_VIDEO, MediaType.MEDIA_TYPE_IMAGE

SOUNDS = {
    "wav": (sound, ("audio/wav", "pcm_s16le", 16_000, 1)),
    "wav, 24 bits": (lambda: sound("wav", "pcm_s24le", layout="stereo"), ("audio/wav", "pcm_s24le", 16_000, 2)),
    "wav, never closed": (lambda: sound(live=True), ("audio/wav", "pcm_s16le", 16_000, 1)),
    "mp3": (lambda: sound("mp3", "libmp3lame", rate=44_100, layout="stereo"), ("audio/mpeg", "mp3", 44_100, 2)),
    "mp3 without tags": (
        lambda: sound("mp3", "libmp3lame", rate=22_050, write_xing="0", id3v2_version="0"),
        ("audio/mpeg", "mp3", 22_050, 1),
    ),
    "mp3 with tags": (
        lambda: sound("mp3", "libmp3lame", rate=44_100, write_id3v1="1"),
        ("audio/mpeg", "mp3", 44_100, 1),
    ),
    "ogg": (lambda: sound("ogg", "libopus", rate=48_000), ("audio/ogg", "opus", 48_000, 1)),
    "flac": (lambda: sound("flac", "flac", layout="stereo"), ("audio/flac", "flac", 16_000, 2)),
    "webm": (lambda: sound("webm", "libopus", rate=48_000), ("audio/webm", "opus", 48_000, 1)),
    "webm, as browsers record it": (
        lambda: sound("webm", "libopus", rate=48_000, live=True),
        ("audio/webm", "opus", 48_000, 1),
    ),
}
FILMS = {
    "mp4": (film, ("video/mp4", "h264", 25.0, 1.0)),
    "mp4, index first": (lambda: film(movflags="faststart"), ("video/mp4", "h264", 25.0, 1.0)),
    "mp4, in fragments": (
        lambda: film(live=True, movflags="frag_keyframe+empty_moov"),
        ("video/mp4", "h264", 25.0, 1.0),
    ),
    "mp4, 29.97": (lambda: film(fps=Fraction(30000, 1001), frames=30), ("video/mp4", "h264", 30000 / 1001, 1.001)),
    "webm film": (lambda: film("webm", "libvpx-vp9"), ("video/webm", "vp9", 25.0, 1.0)),
    "webm film, as browsers record it": (lambda: film("webm", "libvpx", live=True), ("video/webm", "vp8", 25.0, 1.0)),
}


@pytest.fixture(scope="session")
def made():
    """Return each recording, made once."""
    return {name: make() for name, (make, _) in {**SOUNDS, **FILMS}.items()}


@pytest.mark.parametrize("name", SOUNDS)
async def test_the_facts_of_a_sound_are_read_from_its_bytes(media, place, made, name) -> None:
    value = await media.upload(made[name], media_type=AUDIO, place=place)
    facts = value.ref.metadata
    assert (facts.mime_type, facts.encoding, facts.sample_rate_hz, facts.channels) == SOUNDS[name][1]
    assert facts.duration_seconds == pytest.approx(1.0, abs=0.08)  # an MP3 without tags has its padding in it
    assert value.type == AUDIO
    assert (await media.stat(value.ref.url)).media == value


@pytest.mark.parametrize("name", FILMS)
async def test_the_facts_of_a_film_are_read_from_its_bytes(media, place, made, name) -> None:
    facts = (await media.upload(made[name], media_type=VIDEO, place=place)).ref.metadata
    mime_type, codec, fps, seconds = FILMS[name][1]
    assert (facts.mime_type, facts.encoding, facts.width, facts.height) == (mime_type, codec, 64, 48)
    assert (facts.fps, facts.duration_seconds) == (pytest.approx(fps), pytest.approx(seconds, abs=0.001))
    assert not facts.sample_rate_hz


async def test_a_film_with_sound_has_the_facts_of_its_sound_too(media, place) -> None:
    facts = (await media.upload(film(with_sound="aac"), media_type=VIDEO, place=place)).ref.metadata
    assert (facts.encoding, facts.sample_rate_hz, facts.channels) == ("h264", 48_000, 1)


async def test_a_film_whose_frames_come_unevenly_has_the_rate_at_which_they_come(media, place) -> None:
    times = [0, 40, 90, 210, 260, 300, 420, 500, 640, 900]
    data = film("webm", "libvpx", live=True, times=times, frames=10)
    facts = (await media.upload(data, media_type=VIDEO, place=place)).ref.metadata
    assert facts.fps == pytest.approx(10.0)
    assert facts.duration_seconds == pytest.approx(1.0, abs=0.11)


async def test_a_film_of_one_picture_is_one(media, place) -> None:
    facts = (await media.upload(film(frames=1), media_type=VIDEO, place=place)).ref.metadata
    assert (facts.fps, facts.duration_seconds) == (25.0, pytest.approx(0.04))


async def test_a_recording_is_stored_under_its_own_extension(media, place, made) -> None:
    for name, kind, extension in (("mp3", AUDIO, "mp3"), ("webm film", VIDEO, "webm")):
        url = (await media.upload(made[name], media_type=kind, place=place)).ref.url
        assert url.endswith(f".{extension}")


@pytest.mark.parametrize("name", [name for name in {**SOUNDS, **FILMS} if name != "wav, never closed"])
async def test_a_truncated_recording_is_refused(refused, made, name) -> None:
    data, kind = made[name], AUDIO if name in SOUNDS else VIDEO
    for size in (int(len(data) * 0.3), int(len(data) * 0.8), len(data) - 1):
        # What is cut off in the midst of its header shows it as soon as it is opened.
        error = await refused(data[:size], MediaDecodeFailed, "cut off|cannot be decoded", kind=kind)
        assert error.number == "E1013"


@pytest.mark.parametrize("name", ["wav", "mp3", "ogg", "webm", "mp4"])
async def test_a_recording_with_something_behind_it_is_refused(refused, made, name) -> None:
    kind = VIDEO if name == "mp4" else AUDIO
    await refused(made[name] + b"<?php system(1);", UnsupportedMediaType, "16 others follow", kind=kind)


async def test_zeros_behind_a_recording_may_stay(media, place, made) -> None:
    await media.upload(made["mp3"] + bytes(500), media_type=AUDIO, place=place)


async def test_sound_is_no_film_and_film_is_no_sound(refused, made) -> None:
    await refused(made["webm film"], UnsupportedMediaType, "has moving pictures: its kind is video", kind=AUDIO)
    await refused(made["webm"], UnsupportedMediaType, "its kind is audio", kind=VIDEO)
    await refused(made["wav"], UnsupportedMediaType, "are audio/wav; accepted for video are video/mp4, ", kind=VIDEO)
    await refused(made["mp4"], UnsupportedMediaType, "are video/mp4; accepted for image are", kind=IMAGE)
    await refused(made["webm film"], UnsupportedMediaType, "are video/webm; accepted for image are", kind=IMAGE)


async def test_what_is_off_the_list_is_named(refused) -> None:
    for container, codec, found in (
        ("ipod", "aac", "audio/mp4"),
        ("aiff", "pcm_s16be", "audio/aiff"),
        ("matroska", "libopus", "video/x-matroska"),
    ):
        data = sound(container, codec, rate=48_000)
        error = await refused(data, UnsupportedMediaType, f"are {found}; accepted for audio are", kind=AUDIO)
        assert error.number == "E1010"


async def test_sound_of_safari_can_be_let_in(settings, serve, place) -> None:
    types = (*settings.audio_types, "audio/mp4")
    async with serve(settings.model_copy(update={"audio_types": types})) as channel:
        data = sound("ipod", "aac", rate=44_100)
        value = await MediaClient(channel).upload(data, media_type=AUDIO, place=place)
    assert (value.ref.metadata.mime_type, value.ref.metadata.encoding) == ("audio/mp4", "aac")


async def test_a_codec_that_is_not_read_is_named(refused) -> None:
    data = sound("wav", "adpcm_swf", rate=44_100)
    await refused(data, UnsupportedMediaType, "of the codec adpcm_swf; accepted are aac, ", kind=AUDIO)


@pytest.mark.parametrize(
    "declared",
    [
        MediaFacts(mime_type="audio/webm;codecs=opus"),
        MediaFacts(mime_type="video/webm"),  # what file choosers say of every WebM
        MediaFacts(sample_rate_hz=48_000, channels=1, duration_seconds=0.97),
    ],
    ids=["with its codec", "as a film", "about as long"],
)
async def test_declared_facts_that_agree_are_fine(media, place, declared) -> None:
    data = sound("webm", "libopus", rate=48_000)
    await media.upload(data, media_type=AUDIO, place=place, declared=declared)


async def test_an_mp3_may_be_called_so(media, place, made) -> None:
    await media.upload(made["mp3"], media_type=AUDIO, place=place, declared=MediaFacts(mime_type="audio/mp3"))


async def test_declared_facts_that_differ_are_named_beside_the_true_ones(refused, made) -> None:
    error = await refused(
        made["wav"],
        InvalidRequest,
        "sample_rate_hz: 44100 is declared, and the bytes say 16000",
        kind=AUDIO,
        declared=MediaFacts(sample_rate_hz=44_100, channels=2, duration_seconds=1.2),
    )
    assert [field.rpartition(".")[2] for field, _ in error.violations] == [
        "sample_rate_hz",
        "channels",
        "duration_seconds",
    ]
    await refused(
        made["mp4"],
        InvalidRequest,
        "fps: 30.0 is declared, and the bytes say 25.0",
        kind=VIDEO,
        declared=MediaFacts(fps=30),
    )
    await refused(
        made["mp3"],
        UnsupportedMediaType,
        "'audio/wav' is declared, and the bytes say 'audio/mpeg'",
        kind=AUDIO,
        declared=MediaFacts(mime_type="audio/x-wav"),
    )


async def test_a_recording_that_lasts_too_long_is_refused(settings, serve, place, made) -> None:
    update = {"max_audio_seconds": 0.5, "max_video_seconds": 0.5}
    async with serve(settings.model_copy(update=update)) as channel:
        for name, kind in (("flac", AUDIO), ("mp4", VIDEO)):
            with pytest.raises(MediaTooLarge, match=r"lasts [01] s or more; the limit is 0.5 s") as raised:
                await MediaClient(channel).upload(made[name], media_type=kind, place=place)
            assert raised.value.number == "E1011"


async def test_a_film_of_too_many_pixels_is_refused_by_its_header(settings, serve, place, made) -> None:
    async with serve(settings.model_copy(update={"max_video_pixels": 3000})) as channel:
        with pytest.raises(MediaTooLarge, match="64 x 48 pixels; the limit is 3000 pixels"):
            await MediaClient(channel).upload(made["mp4"], media_type=VIDEO, place=place)


async def test_limits_of_bytes_are_those_of_the_kind(settings, serve, place, made) -> None:
    update = {"max_audio_bytes": 1000, "max_video_bytes": 2000}
    async with serve(settings.model_copy(update=update)) as channel:
        for name, kind, text in (("wav", AUDIO, "audio is 1000 bytes"), ("mp4", VIDEO, "video is 2000 bytes")):
            with pytest.raises(MediaTooLarge, match=text):
                await MediaClient(channel).upload(made[name], media_type=kind, place=place)


async def test_reading_a_recording_takes_no_longer_than_it_may(settings, serve, place, made) -> None:
    async with serve(settings.model_copy(update={"decode_seconds": 1e-9})) as channel:
        with pytest.raises(MediaTooLarge, match="takes longer than 1e-09 s"):
            await MediaClient(channel).upload(made["wav"], media_type=AUDIO, place=place)


def box(name: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


async def test_an_index_that_names_billions_of_samples_is_refused(refused, made) -> None:
    data = bytearray(made["mp4"])
    at = data.index(b"stsz") + 8
    data[at : at + 8] = struct.pack(">II", 1, 178_000_000)  # equal sizes: no table follows
    await refused(bytes(data), MediaTooLarge, "says that it has 178000", kind=VIDEO)


async def test_a_part_that_ends_before_it_begins_or_far_away_is_refused(refused, made) -> None:
    head = made["mp4"][:32]
    await refused(head + struct.pack(">I4s", 4, b"free"), MediaDecodeFailed, "is 4 bytes long", kind=VIDEO)
    far = struct.pack(">I4sQ", 1, b"mdat", 1 << 62)
    await refused(head + far, MediaDecodeFailed, "its part mdat ends at", kind=VIDEO)
    await refused(head + box(b"mdat", bytes(50)), MediaDecodeFailed, r"its index \(moov\) is missing", kind=VIDEO)


async def test_a_tag_that_is_longer_than_the_file_is_refused(refused) -> None:
    await refused(b"ID3\4\0\0\x7f\x7f\x7f\x7f" + bytes(2000), MediaDecodeFailed, "its tag ends at", kind=AUDIO)


async def test_a_recording_without_sound_is_refused(refused) -> None:
    header = b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    await refused(header + b"data" + bytes(4), MediaDecodeFailed, "it has no sound", kind=AUDIO)


async def test_a_caller_that_leaves_ends_the_decoding(made, tmp_path) -> None:
    started = threading.Event()

    def endless(container, limits, go_on):
        started.set()
        while True:
            go_on()
            time.sleep(0.001)  # as a decoder, which works on a packet

    path = tmp_path / "sound.wav"
    path.write_bytes(made["wav"])
    limits = RecordingLimits(seconds=1, work_seconds=60)
    with ThreadPoolExecutor(1) as threads, path.open("rb") as file:
        reader = RecordingReader(endless, limits, threads, Budget(1 << 30))
        reading = asyncio.ensure_future(reader.read(file, "audio/wav"))
        await asyncio.to_thread(started.wait)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


@pytest.mark.parametrize(
    ("name", "mime_type"),
    [
        ("wav", "audio/wav"),
        ("mp3", "audio/mpeg"),
        ("ogg", "audio/ogg"),
        ("flac", "audio/flac"),
        ("webm", "audio/webm"),
        ("mp4", "video/mp4"),
    ],
)
async def test_the_time_that_reading_may_take_holds_for_the_structure_too(made, tmp_path, name, mime_type) -> None:
    def never(container, limits, go_on):
        pytest.fail("the structure was walked to its end")

    path = tmp_path / "file"
    path.write_bytes(made[name])
    limits = RecordingLimits(seconds=1, pixels=10_000, work_seconds=-1)
    with (
        ThreadPoolExecutor(1) as threads,
        path.open("rb") as file,
        pytest.raises(MediaTooLarge, match="takes longer"),
    ):
        await RecordingReader(never, limits, threads, Budget(1 << 30)).read(file, mime_type)


FRAME = b"\xff\xfb\x90\xc4" + bytes(413)  # MPEG-1, 128 kbit/s, 44.1 kHz, one channel
TAG = b"ID3\xff\xff\xef" + bytes(4)  # an empty tag


def test_behind_a_tag_that_says_where_it_ends_nothing_is_searched() -> None:
    class Searched(bytes):
        searches = 0

        def find(self, *arguments):
            self.searches += 1
            return super().find(*arguments)

    data: Any = Searched(FRAME + 500 * TAG + FRAME)
    assert walk_layer3(data, lambda: None) == len(data)
    assert data.searches < 50


@pytest.mark.parametrize("at", range(50, 62))
def test_a_mark_at_the_end_of_what_is_looked_at_announces_nothing(at) -> None:
    frame = FRAME[:at] + b"Xing" + FRAME[at + 4 :]
    data: Any = frame + FRAME
    assert walk_layer3(data, lambda: None) == len(data)


@pytest.mark.stack
async def test_a_film_of_60_megabytes_raises_the_memory_by_less_than_that(settings, place, made) -> None:
    padding = 60_000_000
    data = made["mp4"] + box(b"free", os.urandom(1000) * (padding // 1000))
    async with server_process(settings) as (server, channel, _):
        memory, media = psutil.Process(server.pid).memory_info, MediaClient(channel)
        await media.upload(made["mp4"], media_type=VIDEO, place=place)
        idle, peak = memory().rss, 0

        async def watch():
            nonlocal peak
            while True:
                peak = max(peak, memory().rss)
                await asyncio.sleep(0.01)

        watching = asyncio.ensure_future(watch())
        value = await media.upload(data, media_type=VIDEO, place=place)
        async with media.open(value.ref.url) as file:
            assert await asyncio.to_thread(_length, file) == len(data)
        watching.cancel()
    assert peak - idle < 40e6, f"{idle / 1e6:.0f} MB idle, {peak / 1e6:.0f} MB at most"


def _length(file) -> int:
    read = 0
    while piece := file.read(32 * 1024):
        read += len(piece)
    return read


_KINDS = strategies.sampled_from(["wav", "mp3", "ogg", "flac", "webm", "mp4", "mp4, in fragments"])


@pytest.mark.stack
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_KINDS, position=strategies.floats(0, 1), patch=strategies.binary(min_size=1, max_size=8))
async def test_a_damaged_recording_is_stored_or_refused_and_nothing_else(
    media, place, made, name, position, patch
) -> None:
    data = bytearray(made[name])
    at = int(position * (len(data) - len(patch)))
    data[at : at + len(patch)] = patch
    try:
        await media.upload(bytes(data), media_type=VIDEO if name.startswith("mp4") else AUDIO, place=place)
    except InvalidRequest as error:
        assert error.number in {"E1010", "E1011", "E1013"}  # noqa: PT017 - it may be stored as well
