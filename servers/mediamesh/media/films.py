"""Film, with or without sound: every packet is read, and the first picture is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.media.tracks import codec_of, damaged, film_of, refused, sound_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from mediamesh.media.tracks import RecordingLimits

__all__ = ["read_film"]

_CODECS = frozenset({"av1", "h264", "hevc", "mpeg4", "vp8", "vp9"})
# A film that was cut out of a longer one may begin before its first whole picture, by some seconds at most.
_MOST_PACKETS_BEFORE = 300
# The rate that a header names is taken where the packets come about as often; else the packets are right.
_RATES_AGREE = 0.02


@dataclass(slots=True)
class _Span:
    """When the packets of a track are shown.

    Attributes:
        begin: Of the first, in seconds.
        last: Of the last, in seconds.
        end: Where it ends; the last packet of a WebM does not say how long it is shown.
        packets: How many there are.
    """

    begin: float = field(default=math.inf)
    last: float = field(default=-math.inf)
    end: float = field(default=-math.inf)
    packets: int = 0

    def add(self, packet: Packet[Any]) -> None:
        time, base = packet.pts if packet.pts is not None else packet.dts, packet.time_base
        if not packet.size or time is None or base is None:
            return
        self.packets += 1
        self.begin, self.last = min(self.begin, float(time * base)), max(self.last, float(time * base))
        self.end = max(self.end, float((time + (packet.duration or 0)) * base))

    @property
    def rate(self) -> float:
        """Packets per second, as their times say; 0 where they do not."""
        return (self.packets - 1) / (self.last - self.begin) if self.last > self.begin else 0.0


def read_film(container: InputContainer, limits: RecordingLimits, go_on: Callable[[], None]) -> MediaFacts:
    """Return codec, size, frame rate and duration, and rate and channels of its sound.

    Args:
        container: What it is in.
        limits: What it may have.
        go_on: Called for each packet; raises when the work is to end.

    Raises:
        UnsupportedMediaType: it has no pictures, or is of a codec that is not read.
        MediaTooLarge: it is longer than the limit.
        MediaDecodeFailed: it is damaged.
    """
    film, sound = film_of(container), sound_of(container)
    if film is None:
        raise refused("has no moving pictures: its kind is audio, not video")
    codec, picture = codec_of(film, _CODECS), None
    film.thread_type = "NONE"  # to start threads for one picture costs more than it takes
    spans = {track.index: _Span() for track in (film, sound) if track is not None}
    for packet in container.demux():
        go_on()
        if packet.is_corrupt:
            raise damaged(f"what follows {spans[film.index].end:.1f} s cannot be read")
        if span := spans.get(packet.stream.index):
            span.add(packet)
            limits.admit_length(span.end - span.begin)
        if picture is None and packet.stream.index == film.index:
            picture = _first_picture(film, packet, spans[film.index].packets)
    if picture is None:
        raise damaged("it has no picture")
    facts = MediaFacts(encoding=codec, width=picture.width, height=picture.height, fps=_rate(film, spans[film.index]))
    facts.duration_seconds = _duration([span for span in spans.values() if span.packets], facts.fps)
    if sound is not None and sound.codec_context is not None:
        facts.sample_rate_hz, facts.channels = sound.codec_context.sample_rate, sound.codec_context.channels
    return facts


def _first_picture(film: VideoStream, packet: Packet[Any], packets: int) -> VideoFrame | None:
    if packets > _MOST_PACKETS_BEFORE:
        raise damaged(f"its first {_MOST_PACKETS_BEFORE} packets give no picture")
    pictures = film.codec_context.decode(packet if packet.size else None)
    return pictures[0] if pictures else None


def _rate(film: VideoStream, span: _Span) -> float:
    named = float(film.average_rate or 0)
    if not span.rate or abs(named - span.rate) <= _RATES_AGREE * span.rate:
        return named or 1.0
    return round(span.rate, 3)


def _duration(spans: list[_Span], fps: float) -> float:
    begin, end = min(span.begin for span in spans), max(span.end for span in spans)
    last = max(span.last for span in spans)
    return round(end - begin if end > last else last - begin + 1 / fps, 6)
