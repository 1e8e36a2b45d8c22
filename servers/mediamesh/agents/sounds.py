"""Sound out of files that somebody gave: all of it that can be decoded, in one form from begin to end."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from av.audio.resampler import AudioResampler
from av.error import FFmpegError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer

__all__ = ["decoded", "resampled"]

# As many as the media service passes over when it takes a recording in; what it stores must be heard here.
_MOST_BAD_PACKETS = 2


def decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Yield the frames of a sound; a packet or two that do not decode are left out, as where recordings were joined.

    Raises:
        FFmpegError: there are more of them, or the container is broken.
    """
    bad = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except FFmpegError:
            bad += 1
            if bad > _MOST_BAD_PACKETS:
                raise
            continue
        yield from frames


def resampled(frames: Iterable[AudioFrame], *, samples: str, layout: str, rate: int) -> Iterator[AudioFrame]:
    """Yield a sound in one form, also where its own changes midway; its times run on from 0.

    Args:
        frames: The sound; the times in it do not count, as clocks that jump would fill gaps or drop sound.
        samples: FFmpeg's name of the format of a sample.
        layout: FFmpeg's name of the channels.
        rate: Samples per second.
    """
    count = 0
    for frame in _resampled(frames, samples=samples, layout=layout, rate=rate):
        frame.pts, frame.time_base = count, Fraction(1, rate)
        count += frame.samples
        yield frame


def _resampled(frames: Iterable[AudioFrame], *, samples: str, layout: str, rate: int) -> Iterator[AudioFrame]:
    def resampler() -> AudioResampler:
        return AudioResampler(format=samples, layout=layout, rate=rate)

    current, before = resampler(), None
    for frame in frames:
        own = frame.format.name, frame.layout.name, frame.sample_rate
        if before is not None and own != before:  # a resampler takes one form only
            yield from current.resample(None)
            current = resampler()
        before, frame.pts = own, None
        yield from current.resample(frame)
    yield from current.resample(None)
