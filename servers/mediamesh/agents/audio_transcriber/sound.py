"""Sound at 16 kHz in one channel, in pieces: from a file that is decoded in a thread, or from chunks as they come."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from mediamesh.agents.sounds import decoded, resampled
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.stream.v1.chunk_pb2 import MediaEncoding
from mediamesh.wire.chunks import media_of
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from mediamesh.agent import Run
    from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Media

__all__ = ["RATE", "Samples", "recorded", "streamed"]

RATE = 16_000
"""Samples a second of all sound in here."""

Samples: TypeAlias = "np.ndarray[Any, np.dtype[np.float32]]"

_PIECE = 2 * RATE  # samples that a thread decodes before it looks whether the run still goes on
_PCM = re.compile(r"audio/(?:pcm|l16)\s*((?:;.*)?)", re.IGNORECASE)
_MOST_CHANNELS, _MOST_RATE = 8, 384_000


async def recorded(run: Run, pin: str, decoding: asyncio.Semaphore) -> AsyncGenerator[Samples]:
    """Yield the sound of a media input, from -1 to 1; it is downloaded as it is decoded.

    Args:
        run: The run.
        pin: Its input.
        decoding: Bounds the pieces that are decoded at once.

    Raises:
        UnsupportedMediaType: there is no sound in it.
        MediaDecodeFailed: it is damaged.
    """
    async with AsyncExitStack() as stack:
        file = await stack.enter_async_context(run.open(pin))
        pieces = _decoded(file)
        stack.push_async_callback(asyncio.to_thread, pieces.close)
        while True:
            async with decoding:
                piece = await _whole(asyncio.to_thread(next, pieces, None), file)
            if piece is None:
                return
            yield piece


async def _whole(work: Any, file: IO[bytes]) -> Samples | None:
    """Wait for the thread, also when the run is cancelled: a file must not close while a decoder is in it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        file.close()
        await asyncio.wait({task})
        raise


def _decoded(file: IO[bytes]) -> Generator[Samples]:
    try:
        with av.open(file, "r", metadata_errors="replace") as container:
            stream = next(iter(container.streams.audio), None)
            if stream is None:
                raise UnsupportedMediaType("There is no sound in the file.")
            made = resampled(decoded(container, stream), samples="flt", layout="mono", rate=RATE)
            yield from _joined(frame.to_ndarray()[0] for frame in made)
    except FFmpegError as error:
        raise MediaDecodeFailed(f"The sound is damaged: {error.strerror or error}") from error


def _joined(parts: Iterator[Samples]) -> Iterator[Samples]:
    held: list[Samples] = []
    for part in parts:
        held.append(part)
        if sum(map(len, held)) >= _PIECE:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


async def streamed(run: Run, pin: str) -> AsyncGenerator[Samples]:
    """Yield the sound of a stream input as it comes, from -1 to 1; chunks that carry no media are left out.

    Raises:
        UnsupportedMediaType: a chunk has media other than PCM of 16 bits.
        InvalidRequest: its rate or channels are none, or change.
    """
    form = ""
    pcm: _Pcm | None = None
    async for chunk in run.stream(pin):
        if (media := _sound_of(chunk, pin)) is None:
            continue
        told = media.metadata.mime_type
        if pcm is None:
            form, pcm = told, _Pcm(told, pin)
        elif told not in {"", form}:
            raise InvalidRequest.of_field(f"inputs.{pin}", f"must stay {form}, a chunk has {told}")
        if len(samples := pcm.take(media.binary)):
            yield samples
    if pcm is not None and len(samples := pcm.rest()):
        yield samples


def _sound_of(chunk: Chunk, pin: str) -> Media | None:
    media = media_of(chunk)
    if media is None:
        return None
    if media.media_type != MediaType.MEDIA_TYPE_AUDIO or media.encoding != MediaEncoding.MEDIA_ENCODING_BINARY:
        raise UnsupportedMediaType.of_field(f"inputs.{pin}", "must carry sound as binary media")
    return media


class _Pcm:
    """Samples of 16 bits, in pieces that may end in the middle of one, to one channel of 16 kHz.

    Args:
        form: The media type with its parameters, ``audio/pcm;rate=16000;channels=1``.
        pin: The input, for errors.
    """

    def __init__(self, form: str, pin: str) -> None:
        if not (match := _PCM.fullmatch(form.strip())):
            raise UnsupportedMediaType.of_field(f"inputs.{pin}", f"must be audio/pcm;rate=N, is {form!r}")
        parameters = dict(re.findall(r";\s*(\w+)\s*=\s*\"?(\d+)\"?", match[1].lower()))
        rate, self._channels = int(parameters.get("rate", RATE)), int(parameters.get("channels", 1))
        if not (1000 <= rate <= _MOST_RATE and 1 <= self._channels <= _MOST_CHANNELS):
            raise InvalidRequest.of_field(
                f"inputs.{pin}",
                f"must have a rate of 1000 to {_MOST_RATE} and 1 to {_MOST_CHANNELS} channels, has {form!r}",
            )
        self._rate, self._left = rate, b""
        self._resampler = None if rate == RATE else AudioResampler(format="flt", layout="mono", rate=RATE)

    def take(self, data: bytes) -> Samples:
        """Return what the next piece gives; with another rate a few samples come late."""
        data = self._left + data
        whole = len(data) - len(data) % (2 * self._channels)
        self._left = data[whole:]
        wide = np.frombuffer(data[:whole], "<i2").reshape(-1, self._channels).astype(np.float32)
        samples: Samples = wide.mean(1, dtype=np.float32) / np.float32(32768)
        if self._resampler is None or not len(samples):
            return samples
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="flt", layout="mono")
        frame.sample_rate = self._rate
        return _all(self._resampler.resample(frame))

    def rest(self) -> Samples:
        """Return what came late."""
        return _all([] if self._resampler is None else self._resampler.resample(None))


def _all(frames: list[av.AudioFrame]) -> Samples:
    return np.concatenate([np.zeros(0, np.float32), *(frame.to_ndarray()[0] for frame in frames)])
