"""Videos for tests, encoded here so that every frame is known."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

import av
import numpy as np

if TYPE_CHECKING:
    from av import VideoStream

MILLISECONDS = Fraction(1, 1000)


def blank(width: int, height: int) -> np.ndarray[Any, Any]:
    return np.zeros((height, width, 3), np.uint8)


def marked(width: int, height: int) -> np.ndarray[Any, Any]:
    """A black frame whose left upper quarter is white."""
    picture = blank(width, height)
    picture[: height // 2, : width // 2] = 255
    return picture


def noise(width: int, height: int, seed: int) -> np.ndarray[Any, Any]:
    """What no codec can say in few bytes."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def encoded(
    pictures: Iterable[np.ndarray[Any, Any]],
    *,
    fps: int = 25,
    times: Iterable[int] | None = None,
    codec: str = "mpeg4",
    container: str = "mp4",
    gop: int = 12,
    before: Callable[[VideoStream], None] = lambda stream: None,
    **options: str,
) -> bytes:
    """Return the pictures, all of one size, as a file.

    Args:
        pictures: RGB, uint8 [height, width, 3].
        fps: Frames a second, where no times are given.
        times: Of each frame, in milliseconds.
        codec: Of the pictures.
        container: Of the file.
        gop: Frames from one key frame to the next.
        before: Told of the stream before anything is written.
        options: Of the container.
    """
    buffer = BytesIO()
    moments = iter(times) if times is not None else None
    with av.open(buffer, "w", format=container, options=options) as output:
        stream = None
        for number, picture in enumerate(pictures):
            if stream is None:
                stream = cast("VideoStream", output.add_stream(codec, rate=fps))
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.gop_size = gop
                stream.codec_context.thread_count = 1
                if moments is not None:
                    stream.codec_context.time_base = MILLISECONDS
                before(stream)
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts = next(moments) if moments is not None else number
            frame.time_base = MILLISECONDS if moments is not None else Fraction(1, fps)
            output.mux(stream.encode(frame))
        if stream is not None:
            output.mux(stream.encode(None))
    return buffer.getvalue()


def turned(data: bytes) -> bytes:
    """Return an MP4 with a note that players are to turn it clockwise by a quarter (ISO 14496-12, 8.3.2)."""
    matrix = data.index(b"tkhd") + 44
    turn = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return data[:matrix] + turn + data[matrix + len(turn) :]


def sound() -> bytes:
    """Return an MP4 without pictures."""
    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()
