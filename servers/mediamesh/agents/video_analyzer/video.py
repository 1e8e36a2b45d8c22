"""A video file, decoded frame by frame in threads."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import av
from av.error import ArgumentError, FFmpegError, InvalidDataError

from mediamesh.agents.video_analyzer.pictures import displayed_size
from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

__all__ = ["Frame", "Video"]

T = TypeVar("T")

# Only these are looked for in the bytes, so that no list of further files, such as a playlist, is ever followed.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
# A thread goes back after that time, so that a cancelled run ends soon.
_TURN_SECONDS = 0.05
# More threads hold more frames, and a frame of 4K has 12 MB.
_DECODER_THREADS = 2
_MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video, decoded.

    Attributes:
        index: Number of the frame, from 0.
        time: Seconds from the begin of the video.
        width: In pixels, as displayed.
        height: In pixels, as displayed.
        decoded: The frame itself.
        decoded_at: When that was, by the monotonic clock.
    """

    index: int
    time: float
    width: int
    height: int
    decoded: VideoFrame
    decoded_at: float


class _Reading:
    """A file that ends where it fails, as FFmpeg has no use for an exception; it is kept to be raised later.

    Attributes:
        failure: What the file raised.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.failure: Exception | None = None

    def read(self, size: int) -> bytes:
        """Return the next bytes; none at the end, and from the first failure on."""
        if self.failure is None:
            try:
                return self._file.read(size)
            except Exception as error:  # noqa: BLE001 - raised by who reads the video
                self.failure = error
        return b""

    def seek(self, offset: int, whence: int) -> int:
        """Move to a position and return it."""
        try:
            return self._file.seek(offset, whence)
        except Exception as error:  # noqa: BLE001 - raised by who reads the video
            self.failure = error
            return -1

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()


class Video:
    """The first picture stream of a file; every method blocks and may be called in any thread, in one at a time.

    Args:
        file: The bytes; it is read and sought.
        max_pixels: Width times height of a frame, at most.

    Attributes:
        fps: Frames a second on the average, as the file says; 0 where it does not.
        duration: Seconds, as the file says; 0 where it does not, as recordings of browsers do not.
        frames: How many were decoded.
        damaged: Packets that could not be decoded, and frames that were decoded with faults.
    """

    def __init__(self, file: BinaryIO, *, max_pixels: int) -> None:
        self._reading, self._max_pixels = _Reading(file), max_pixels
        self.fps = self.duration = 0.0
        self.frames = self.damaged = 0
        self._turn = threading.Lock()
        self._closing = False
        self._container: InputContainer | None = None
        self._frames: Iterator[Frame] = iter(())

    def open(self) -> None:
        """Read the head of the file.

        Raises:
            UnsupportedMediaType: it is no video in a format that is known.
            MediaTooLarge: its frames have more than ``max_pixels`` pixels.
            MediaDecodeFailed: it is damaged.
            Exception: what the file raises.
        """
        with self._taking_turn():
            try:
                self._container = av.open(self._reading, mode="r", container_options=_OPTIONS)
            except (InvalidDataError, ArgumentError) as error:  # no format that is known, or one off the list
                raise UnsupportedMediaType("The bytes are no video in MP4, WebM, QuickTime or Matroska.") from error
            except (FFmpegError, UnicodeDecodeError) as error:
                raise MediaDecodeFailed(f"The video cannot be read: {error}") from error
            stream = _picture_stream(self._container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = _DECODER_THREADS
            self._check(stream.codec_context.width, stream.codec_context.height)
            self.fps = float(stream.average_rate or 0)
            self.duration = (self._container.duration or 0) / _MICROSECONDS
            self._frames = self._decode(self._container, stream)

    def next(self, work: Callable[[Frame], T | None]) -> tuple[T | None, bool]:
        """Decode until ``work`` makes something of a frame, for some 50 ms at most.

        Args:
            work: What to do with each frame; None says that the next one is wanted.

        Returns:
            What ``work`` returned, and whether there may be more frames.

        Raises:
            MediaDecodeFailed: not one frame could be decoded.
            MediaTooLarge: the frames became larger than they may be.
            Exception: what the file raises.
        """
        ends = time.monotonic() + _TURN_SECONDS
        with self._taking_turn():
            while not self._closing and time.monotonic() < ends:
                frame = next(self._frames, None)
                if frame is None:
                    return None, False
                if (made := work(frame)) is not None:
                    return made, True
        return None, True

    def close(self) -> None:
        """Let go of the file, or have the thread that decodes just now do so; does not wait for it."""
        self._closing = True
        if self._turn.acquire(blocking=False):
            self._let_go()
            self._turn.release()

    @contextmanager
    def _taking_turn(self) -> Iterator[None]:
        with self._turn:
            try:
                yield
            finally:
                if self._closing:
                    self._let_go()
                elif self._reading.failure is not None:
                    raise self._reading.failure

    def _let_go(self) -> None:
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[Frame]:
        aspect = float(stream.codec_context.sample_aspect_ratio or 1) or 1.0
        begin = (container.start_time or 0) / _MICROSECONDS
        rate = self.fps if self.fps > 0 and math.isfinite(self.fps) else 25.0
        for decoded in self._decoded(container, stream):
            self._check(decoded.width, decoded.height)
            width, height = displayed_size(decoded, aspect)
            when = decoded.time - begin if decoded.time is not None else self.frames / rate
            yield Frame(self.frames, max(0.0, round(when, 6)), width, height, decoded, time.monotonic())
            self.frames += 1
        if not self.frames:
            raise MediaDecodeFailed("Not one frame of the video could be decoded.", damaged=self.damaged)

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """Yield what can be decoded; a damaged packet is counted, and decoding goes on behind it."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:  # the container is broken here, and nothing says where it goes on
                self.damaged += 1
                packet = None
            if packet is None:
                return
            for frame in self._decoded_packet(packet):
                self.damaged += frame.is_corrupt
                yield frame

    def _decoded_packet(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        try:
            return packet.decode()
        except FFmpegError:
            self.damaged += 1
            return []

    def _check(self, width: int, height: int) -> None:
        if (pixels := width * height) > self._max_pixels:
            raise MediaTooLarge(
                f"A frame of the video has {pixels} pixels ({width} by {height}); {self._max_pixels} is the limit.",
                limit=self._max_pixels,
            )


def _picture_stream(container: InputContainer) -> VideoStream:
    """Return the first picture stream that is no cover.

    Raises:
        UnsupportedMediaType: there is none.
    """
    for stream in container.streams.video:
        if "attached_pic" not in (stream.disposition.name or ""):
            return stream
    raise UnsupportedMediaType("The file has no picture stream: it is no video.")
