"""Sound, decoded to its end."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from av.error import FFmpegError

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.media.tracks import codec_of, damaged, film_of, refused, sound_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

    from mediamesh.media.tracks import RecordingLimits

__all__ = ["read_sound"]

_CODECS = frozenset({"aac", "adpcm_ima_wav", "adpcm_ms", "flac", "mp3", "opus", "speex", "vorbis"})
# A recording that was cut out of a longer one may begin with a frame that needs what came before.
_MOST_BAD_PACKETS = 2
_MOST_RATE_HZ, _MOST_CHANNELS = 768_000, 64


def read_sound(container: InputContainer, limits: RecordingLimits, go_on: Callable[[], None]) -> MediaFacts:
    """Return codec, rate, channels and duration; the duration is that of the decoded samples.

    Args:
        container: What it is in.
        limits: What it may have.
        go_on: Called for each packet; raises when the work is to end.

    Raises:
        UnsupportedMediaType: it is a film, or of a codec that is not read.
        MediaTooLarge: it is longer than the limit.
        MediaDecodeFailed: it is damaged.
    """
    if film_of(container) is not None:
        raise refused("has moving pictures: its kind is video, not audio")
    track = sound_of(container)
    if track is None:
        raise damaged("it has no track of sound")
    codec, seconds = codec_of(track, _CODECS), Fraction()
    rate = channels = 0
    for frame in _frames(container, track, go_on):
        rate, channels = rate or frame.sample_rate, channels or len(frame.layout.channels)
        seconds += Fraction(frame.samples, frame.sample_rate)
        limits.admit_length(float(seconds))
    if not seconds:
        raise damaged("it has no sound")
    if rate > _MOST_RATE_HZ or channels > _MOST_CHANNELS:
        raise refused(f"has {channels} channels of {rate} Hz; at most {_MOST_CHANNELS} of {_MOST_RATE_HZ} Hz are taken")
    return MediaFacts(encoding=codec, sample_rate_hz=rate, channels=channels, duration_seconds=round(float(seconds), 6))


def _frames(container: InputContainer, track: AudioStream, go_on: Callable[[], None]) -> Iterator[AudioFrame]:
    bad = 0
    for packet in container.demux(track):
        go_on()
        try:
            yield from track.codec_context.decode(packet if packet.size else None)
        except FFmpegError:
            bad += 1
            if bad > _MOST_BAD_PACKETS:
                raise
