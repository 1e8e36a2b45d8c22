"""Test patterns as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["draw"]

# The colour bars of a television, from white to black: red, green, blue.
_BARS = np.array(
    [[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255], [0, 0, 0]],
    np.uint8,
)
_FIELD = 32


def draw(pattern: str, width: int, height: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return ``bars``, ``gradient`` or ``checkerboard`` as uint8 [height, width, 3], RGB."""
    columns, rows = np.arange(width), np.arange(height)[:, np.newaxis]
    image = np.empty((height, width, 3), np.uint8)
    match pattern:
        case "bars":
            image[:] = _BARS[columns * len(_BARS) // width]
        case "gradient":
            image[..., 0] = columns * 255 // max(width - 1, 1)
            image[..., 1] = rows * 255 // max(height - 1, 1)
            image[..., 2] = 127
        case "checkerboard":
            image[:] = ((columns // _FIELD + rows // _FIELD) % 2 * 255)[..., np.newaxis]
        case _:
            raise ValueError(f"there is no pattern {pattern!r}")
    return image
