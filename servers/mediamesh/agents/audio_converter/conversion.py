"""From a file with a sound to a file with the same sound in another form; a stretch of it in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import av
from av.error import FFmpegError

from mediamesh.agents.sounds import decoded, resampled
from mediamesh.wire.errors import InvalidRequest, MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from threading import Event

    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer

__all__ = ["MEDIA_TYPES", "Form", "convert"]


class _Encoding(NamedTuple):
    container: str
    codec: str
    samples: str
    rates: tuple[int, ...] = ()


# The encoders for the media types that can be written, and the rates that they know where that is not all of them.
MEDIA_TYPES = {
    "audio/wav": _Encoding("wav", "pcm_s16le", "s16"),
    "audio/flac": _Encoding("flac", "flac", "s16"),
    "audio/ogg": _Encoding("ogg", "libopus", "flt", (8000, 12000, 16000, 24000, 48000)),
    "audio/mpeg": _Encoding(
        "mp3", "libmp3lame", "fltp", (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
    ),
}
_LAYOUTS = {1: "mono", 2: "stereo"}


class Form(NamedTuple):
    """What a sound is to become.

    Attributes:
        rate: Samples per second; 0 for its own, or the next one above that the format knows.
        channels: 1 or 2; 0 for its own, two where it has more.
        media_type: One of `MEDIA_TYPES`.
    """

    rate: int
    channels: int
    media_type: str


def convert(source: IO[bytes], target: IO[bytes], wanted: Form, *, max_bytes: int, stop: Event) -> None:
    """Write the first sound of one file into another.

    Args:
        source: Read and sought.
        target: Written and sought.
        wanted: What it is to become.
        max_bytes: Most bytes to write.
        stop: Set by who wants it no more; the rest is left out then.

    Raises:
        UnsupportedMediaType: there is no sound in the file.
        MediaDecodeFailed: it is damaged.
        MediaTooLarge: it would be more than ``max_bytes``.
        InvalidRequest: the format does not know the rate.
    """
    encoding = MEDIA_TYPES[wanted.media_type]
    with _reading(source) as given:
        stream = next(iter(given.streams.audio), None)
        if stream is None:
            raise UnsupportedMediaType("There is no sound in the file.")
        rate = _rate(wanted.rate, stream.rate, encoding)
        layout = _LAYOUTS[wanted.channels or min(stream.channels, 2)]
        made: OutputContainer
        with av.open(target, "w", format=encoding.container) as made:
            out = cast("AudioStream", made.add_stream(encoding.codec, rate=rate, layout=layout))
            for frame in resampled(_frames(given, stream, stop), samples=encoding.samples, layout=layout, rate=rate):
                made.mux(out.encode(frame))
                if target.tell() > max_bytes:
                    raise MediaTooLarge(f"The sound would have more than {max_bytes} bytes.", limit=max_bytes)
            made.mux(out.encode(None))


def _frames(given: InputContainer, stream: AudioStream, stop: Event) -> Iterator[av.AudioFrame]:
    samples = 0
    try:
        for frame in decoded(given, stream):
            if stop.is_set():
                return
            samples += frame.samples
            yield frame
    except FFmpegError as error:
        raise MediaDecodeFailed(f"The sound is damaged after {samples} samples: {_said(error)}") from error
    if not samples:
        raise MediaDecodeFailed("The file has no sound that can be decoded.")


@contextmanager
def _reading(source: IO[bytes]) -> Iterator[InputContainer]:
    try:
        given = av.open(source, "r", metadata_errors="replace")
    except FFmpegError as error:
        raise MediaDecodeFailed(f"The bytes are no sound that can be read: {_said(error)}") from error
    with given:
        yield given


def _rate(wanted: int, own: int, encoding: _Encoding) -> int:
    if not encoding.rates or (wanted or own) in encoding.rates:
        return wanted or own
    if wanted:
        known = ", ".join(map(str, encoding.rates))
        raise InvalidRequest.of_field("params.rate", f"must be one of {known} in {encoding.container}, is {wanted}")
    return next((rate for rate in encoding.rates if rate >= own), encoding.rates[-1])


def _said(error: Any) -> str:
    return str(getattr(error, "strerror", None) or error)
