"""From the bytes of a picture to what EfficientNet-Lite0 takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mediamesh.agents.pictures import opened, rgb, turn_of

if TYPE_CHECKING:
    FloatArray = np.ndarray[Any, np.dtype[np.float32]]

__all__ = ["preprocess"]

_SIDE = 224
_SHARE = 0.875


def preprocess(data: bytes, *, max_pixels: int = 64_000_000) -> FloatArray:
    """Return the picture's middle as float32 [3, 224, 224], RGB, (x - 127) / 128.

    The middle is the square of 0.875 of the shorter side, scaled bicubically: what the model was trained and quantised
    with (the recipe of EfficientNet-Lite: https://github.com/tensorflow/tpu, models/official/efficientnet/lite).

    Raises:
        UnsupportedMediaType: it is none of the formats accepted.
        MediaTooLarge: it has more than ``max_pixels`` pixels.
        MediaDecodeFailed: it is damaged.
    """
    with opened(data, max_pixels=max_pixels) as image:
        # A big JPEG is decoded at a half, quarter or eighth; twice the size wanted loses nothing that is seen.
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        middle, turn = _middle(rgb(image)), turn_of(image)
    if turn is not None:
        middle = middle.transpose(turn)
    values = (np.asarray(middle, np.float32) - 127.0) / 128.0
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def _middle(image: Image.Image) -> Image.Image:
    """Cut and scale at once; a square from the centre, so that turning can wait until it is small."""
    side = _SHARE * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box)
