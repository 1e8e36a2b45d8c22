from __future__ import annotations

import io
import math
import struct
import threading
import wave
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mediamesh.agent.testing import run_agent
from mediamesh.agents.audio_converter import AudioConverter
from mediamesh.agents.audio_converter.conversion import Form, convert
from mediamesh.agents.image_classifier.preprocessing import preprocess
from mediamesh.agents.image_converter import ImageConverter
from mediamesh.agents.pictures import upright
from mediamesh.api.media.v1.media_pb2 import MediaReference, MediaType, MediaValue
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

pytestmark = pytest.mark.slow

SECONDS, TONE_HZ = 1.5, 440


def sound(rate=44_100, channels=2) -> bytes:
    """Return a WAV with a tone in its first channel, and the same at half the height in the second."""
    times = np.arange(int(SECONDS * rate)) / rate
    tone = 12_000 * np.sin(2 * math.pi * TONE_HZ * times)
    samples = np.stack([tone, tone / 2][:channels], axis=1).astype("<i2")
    buffer = BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def media(data: bytes, kind=MediaType.MEDIA_TYPE_AUDIO) -> MediaValue:
    return MediaValue(type=kind, inline=data)


async def converted(data: bytes, **params) -> bytes:
    agent = AudioConverter(max_sounds=1, max_bytes=10_000_000)
    made: bytes = (await run_agent(agent, {"audio": media(data)}, params))["audio"]
    return made


def decoded(data: bytes):
    """Return samples [channels, samples] in -1..1, and the rate."""
    with av.open(BytesIO(data), "r") as file:
        frames = [frame.to_ndarray() for frame in file.decode(audio=0)]
        stream = file.streams.audio[0]
        flat = np.concatenate(
            [frame.reshape(-1, stream.channels).T if len(frame) == 1 else frame for frame in frames], 1
        )
        scale = 32768 if flat.dtype == np.int16 else 1
        return flat / scale, stream.rate


def pitch(samples, rate) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize(
    ("params", "rate", "channels"),
    [
        ({"rate": 16_000, "channels": 1}, 16_000, 1),
        ({"rate": 8_000}, 8_000, 2),
        ({"channels": 1}, 44_100, 1),
        ({"rate": 16_000, "format": "audio/flac"}, 16_000, 2),
        ({"format": "audio/ogg"}, 48_000, 2),
        ({"rate": 22_050, "format": "audio/mpeg"}, 22_050, 2),
    ],
)
async def test_a_sound_keeps_its_pitch_and_length_at_another_rate_and_in_another_format(params, rate, channels) -> None:
    samples, found = decoded(await converted(sound(), **params))
    assert (found, samples.shape[0]) == (rate, channels)
    assert pitch(samples[0], rate) == pytest.approx(TONE_HZ, abs=2)
    assert samples.shape[1] / rate == pytest.approx(SECONDS, abs=0.08)  # codecs pad to whole frames


async def test_mono_is_the_mean_of_both_channels() -> None:
    samples, _ = decoded(await converted(sound(), channels=1))
    assert np.abs(samples[0][1000:-1000]).max() == pytest.approx(12_000 * 0.75 / 32768, rel=0.02)


async def test_a_rate_that_a_format_does_not_know_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"params.rate: must be one of 8000, .* in ogg, is 44100"):
        await converted(sound(), rate=44_100, format="audio/ogg")


@pytest.mark.parametrize("data", [b"no sound at all", sound()[:40]])
async def test_what_is_no_sound_is_refused(data) -> None:
    with pytest.raises(MediaDecodeFailed):
        await converted(data, rate=8000)


async def test_a_conversion_that_grows_too_large_stops() -> None:
    agent = AudioConverter(max_sounds=1, max_bytes=100_000)
    with pytest.raises(MediaTooLarge, match="100000 bytes"):
        await run_agent(agent, {"audio": media(sound())}, {"rate": 96_000})


def test_a_conversion_that_nobody_wants_any_more_stops() -> None:
    stop, target = threading.Event(), BytesIO()
    stop.set()
    convert(BytesIO(sound()), target, Form(8000, 1, "audio/wav"), max_bytes=10**9, stop=stop)
    assert target.tell() < 4096


@pytest.mark.parametrize(
    ("facts", "params"),
    [
        ({"mime_type": "audio/wav", "sample_rate_hz": 16_000, "channels": 1}, {"rate": 16_000}),
        ({"mime_type": "audio/mpeg", "sample_rate_hz": 16_000, "channels": 1}, {"rate": 16_000, "channels": 1}),
    ],
)
async def test_a_sound_that_has_this_form_stays_where_it_is(facts, params) -> None:
    reference = MediaReference(url="s3://media/w/f/e/n/p.wav", size_bytes=5, metadata=facts)
    given = MediaValue(type=MediaType.MEDIA_TYPE_AUDIO, ref=reference)
    agent = AudioConverter(max_sounds=1, max_bytes=1)
    assert (await run_agent(agent, {"audio": given}, params))["audio"] == given


def picture(kind="PNG", size=(60, 40), mode="RGB", **options) -> bytes:
    gradient = np.linspace(0, 255, size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    buffer = BytesIO()
    Image.fromarray(gradient).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


ODD = {
    "no TIFF": b"Exif\0\0nothing",
    "cut off": b"Exif\0\0MM\0*",
    "BigTIFF, cut off": b"Exif\0\0MM\0+",
}


async def pictured(data: bytes, **params) -> Image.Image:
    agent = ImageConverter(max_images=1, max_pixels=10_000)
    value = media(data, MediaType.MEDIA_TYPE_IMAGE)
    image = Image.open(BytesIO((await run_agent(agent, {"image": value}, params))["image"]))
    image.load()
    return image


@pytest.mark.parametrize(
    ("params", "size", "kind"),
    [
        ({"width": 30}, (30, 20), "PNG"),
        ({"height": 10}, (15, 10), "PNG"),
        ({"width": 32, "height": 32, "format": "image/jpeg"}, (32, 32), "JPEG"),
        ({"width": 32, "height": 32, "fit": "cover"}, (32, 32), "PNG"),
        ({"width": 32, "height": 32, "fit": "pad"}, (32, 32), "PNG"),
        ({"format": "image/webp"}, (60, 40), "WEBP"),
    ],
)
async def test_a_picture_gets_the_size_and_format_asked_for(params, size, kind) -> None:
    image = await pictured(picture(), **params)
    assert (image.size, image.format) == (size, kind)


async def test_what_is_transparent_becomes_white_where_the_format_has_no_transparency() -> None:
    buffer = BytesIO()
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(buffer, "PNG")
    image = await pictured(buffer.getvalue(), format="image/jpeg")
    assert image.getpixel((4, 4)) == (255, 255, 255)


async def test_a_picture_taken_sideways_is_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = await pictured(picture("JPEG", exif=exif), format="image/png")
    assert image.size == (40, 60)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ODD)
async def test_a_picture_whose_exif_data_cannot_be_read_is_taken_as_it_is(kind, name) -> None:
    options: Any = {} if kind == "WEBP" else {"dpi": (72, 72)}  # without it Pillow looks for that in a JPEG's EXIF data
    data = picture(kind, exif=ODD[name], **options)
    assert (await pictured(data, width=30)).size == (30, 20)
    assert upright(data, max_pixels=10_000).size == (60, 40)
    assert preprocess(data).shape == (3, 224, 224)


async def test_a_picture_is_upright_though_the_rest_of_its_exif_data_cannot_be_written_again() -> None:
    entries = struct.pack(">HHIHH", 0x112, 3, 1, 6, 0) + struct.pack(">HHI4s", 0x129, 2, 2, b"a")
    data = picture("JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + entries + bytes(4))
    assert (await pictured(data, format="image/png")).size == (40, 60)


async def test_a_picture_that_would_be_too_large_is_refused() -> None:
    with pytest.raises(MediaTooLarge, match="90000 pixels"):
        await pictured(picture(), width=300, height=300)


@pytest.mark.parametrize(("data", "error"), [(b"nothing", UnsupportedMediaType), (picture()[:-40], MediaDecodeFailed)])
async def test_what_is_no_picture_is_refused(data, error) -> None:
    with pytest.raises(error):
        await pictured(data, width=10)


async def test_a_file_is_read_while_it_is_converted_and_not_held() -> None:
    class Counting(io.BytesIO):
        most = 0

        def read(self, size=-1, /):
            self.most = max(self.most, size or -1)
            return super().read(size)

    source = Counting(sound())
    convert(source, BytesIO(), Form(8000, 1, "audio/wav"), max_bytes=10**9, stop=threading.Event())
    assert 0 < source.most < 100_000
