"""Frames as they are displayed, made small."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.plane import VideoPlane
    from av.video.reformatter import VideoReformatter

    Plane = np.ndarray[Any, np.dtype[np.uint8]]

__all__ = ["displayed_size", "planes_of"]

_QUARTERS = 4


def displayed_size(frame: VideoFrame, aspect: float) -> tuple[int, int]:
    """Return width and height in pixels of the frame as a player shows it: upright, with square pixels.

    Args:
        frame: As it was decoded.
        aspect: Width of a pixel divided by its height.
    """
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (height, width) if _turns(frame) % 2 else (width, height)


def planes_of(
    reformatter: VideoReformatter, frame: VideoFrame, width: int, height: int, interpolation: str
) -> tuple[Plane, ...]:
    """Return the frame, upright and scaled, as three uint8 arrays [height, width]: blue, green, red.

    The arrays are views into the scaled frame, which lives as long as they do; nothing is copied but by the scaling.

    Args:
        reformatter: Keeps what it works out for one size, so give the same for all frames of a video.
        frame: As it was decoded.
        width: Wanted width in pixels, upright.
        height: Wanted height in pixels, upright.
        interpolation: How to scale, a name that PyAV knows.
    """
    turns = _turns(frame)
    lying = (height, width) if turns % 2 else (width, height)
    # Planar, as models want their channels apart; the order of the planes is green, blue, red.
    scaled = reformatter.reformat(frame, *lying, "gbrp", interpolation=interpolation)
    green, blue, red = (_pixels(plane)[: lying[1], : lying[0]] for plane in scaled.planes)
    return tuple(np.rot90(plane, turns) for plane in (blue, green, red))


def _pixels(plane: VideoPlane) -> Plane:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


def _turns(frame: VideoFrame) -> int:
    """Return how many quarters the frame is to be turned counterclockwise."""
    return round(frame.rotation / 90) % _QUARTERS
