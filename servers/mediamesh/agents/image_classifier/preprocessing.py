"""From the bytes of a picture to what EfficientNet-Lite0 takes."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

__all__ = ["preprocess"]

_SIDE = 224
_SHARE = 0.875
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def preprocess(data: bytes, *, max_pixels: int = 64_000_000) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return the picture's middle as float32 [3, 224, 224], RGB, (x - 127) / 128.

    The middle is the square of 0.875 of the shorter side, scaled bicubically: what the model was trained and quantised
    with (the recipe of EfficientNet-Lite: https://github.com/tensorflow/tpu, models/official/efficientnet/lite).

    Raises:
        UnsupportedMediaType: it is none of the formats accepted.
        MediaTooLarge: it has more than ``max_pixels`` pixels.
        MediaDecodeFailed: it is damaged.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if (pixels := image.width * image.height) > max_pixels:
                raise MediaTooLarge(f"The image has {pixels} pixels; {max_pixels} is the limit.", limit=max_pixels)
            # A big JPEG is decoded at a half, quarter or eighth; twice the size wanted loses nothing that is seen.
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            middle = _middle(_rgb(image))
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except UnidentifiedImageError as error:
        raise UnsupportedMediaType(f"The bytes are no picture in one of {', '.join(_FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaTooLarge(f"The image is too large: {error}", limit=max_pixels) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow has no class for what damaged files do
        raise MediaDecodeFailed(f"The image is damaged: {error}") from error
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


def _rgb(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, whatever is transparent over white."""
    if image.mode.startswith("I"):  # 16 bits a sample
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.has_transparency_data:
        see_through = image.convert("RGBA")
        white = Image.new("RGBA", see_through.size, "white")
        return Image.alpha_composite(white, see_through).convert("RGB")
    return image.convert("RGB")
