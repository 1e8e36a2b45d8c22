"""A recording as FFmpeg opens it: which of its tracks count, and what of them is read."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
from av.stream import Disposition

from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping
    from typing import BinaryIO

    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.video.stream import VideoStream

__all__ = ["RecordingLimits", "codec_of", "damaged", "film_of", "opened", "pixels_of", "refused", "sound_of"]

# FFmpeg's reader of exactly this container; left to itself it would try all that it knows.
_FORMATS: Mapping[str, str] = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/ogg": "ogg",
    "audio/flac": "flac",
    "audio/webm": "matroska",
    "audio/mp4": "mov",
    "video/webm": "matroska",
    "video/mp4": "mov",
}
_BUFFER_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingLimits:
    """Bounds that hold while a recording is read.

    Attributes:
        seconds: How long it lasts.
        pixels: Width times height of a film; 0 for sound.
        work_seconds: How long reading it may take.
    """

    seconds: float
    pixels: int = 0
    work_seconds: float

    def admit_length(self, seconds: float) -> None:
        """Raise :class:`MediaTooLarge` when a recording lasts too long."""
        if seconds > self.seconds:
            raise MediaTooLarge.of_field(
                "chunk.data",
                f"the recording lasts {seconds:.0f} s or more; the limit is {self.seconds:g} s",
                limit_seconds=self.seconds,
            )


@contextmanager
def opened(file: BinaryIO, mime_type: str, *, pixels: int) -> Generator[InputContainer]:
    """Open a recording as what its first bytes say that it is; pictures of more pixels are not decoded.

    No other file is opened, whatever it names, as no protocol is allowed.
    """
    file.seek(0, io.SEEK_SET)
    options = {"protocol_whitelist": "", "max_pixels": str(max(pixels, 1))}
    with av.open(
        file, "r", format=_FORMATS[mime_type], options=options, metadata_errors="replace", buffer_size=_BUFFER_BYTES
    ) as container:
        yield container


def film_of(container: InputContainer) -> VideoStream | None:
    """Return the track of moving pictures; a cover is none."""
    covers = Disposition.attached_pic
    return next((stream for stream in container.streams.video if not stream.disposition & covers), None)


def sound_of(container: InputContainer) -> AudioStream | None:
    """Return the track of sound; where there are several, the first."""
    return next(iter(container.streams.audio), None)


def pixels_of(container: InputContainer, limits: RecordingLimits) -> int:
    """Return width times height of a film, as its header says; 0 of sound.

    Raises:
        MediaTooLarge: they are more than the limit.
    """
    film = film_of(container)
    if not limits.pixels or film is None or film.codec_context is None:
        return 0
    width, height = film.codec_context.width, film.codec_context.height
    if width * height > limits.pixels:
        raise MediaTooLarge.of_field(
            "chunk.data",
            f"the film has {width} x {height} pixels; the limit is {limits.pixels} pixels",
            limit=limits.pixels,
        )
    return width * height


def codec_of(track: AudioStream | VideoStream, accepted: Collection[str]) -> str:
    """Return the name of a track's codec.

    Raises:
        UnsupportedMediaType: it is none of the accepted ones; sound that is not coded (PCM) always is.
    """
    context = track.codec_context  # none where FFmpeg knows no decoder
    name = context.codec.canonical_name if context is not None else "unknown"
    if name in accepted or (track.type == "audio" and name.startswith("pcm_")):
        return name
    raise refused(f"has {track.type} of the codec {name}; accepted are {', '.join(sorted(accepted))}")


def refused(what: str) -> UnsupportedMediaType:
    """Return the error for a recording that is none that is taken; the text goes on from "the recording"."""
    return UnsupportedMediaType.of_field("chunk.data", f"the recording {what}")


def damaged(what: str) -> MediaDecodeFailed:
    """Return the error for a recording that is not whole."""
    return MediaDecodeFailed.of_field("chunk.data", f"the recording is damaged or cut off: {what}")
