"""Pictures out of bytes that somebody gave: bounded, upright, in RGB."""

from __future__ import annotations

from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import ExifTags, Image, UnidentifiedImageError

from mediamesh.wire.errors import MediaDecodeFailed, MediaTooLarge, UnsupportedMediaType

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["opened", "rgb", "turn_of", "upright"]

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


@contextmanager
def opened(data: bytes, *, max_pixels: int) -> Generator[Image.Image]:
    """Open a picture that is not decoded yet; what goes wrong with it in the block is an error of the tree.

    Raises:
        UnsupportedMediaType: it is none of the formats accepted.
        MediaTooLarge: it has more than ``max_pixels`` pixels.
        MediaDecodeFailed: it is damaged.
    """
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            if (pixels := image.width * image.height) > max_pixels:
                raise MediaTooLarge(f"The image has {pixels} pixels; {max_pixels} is the limit.", limit=max_pixels)
            yield image
    except UnidentifiedImageError as error:
        raise UnsupportedMediaType(f"The bytes are no picture in one of {', '.join(_FORMATS)}.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaTooLarge(f"The image is too large: {error}", limit=max_pixels) from error
    except (OSError, SyntaxError, ValueError) as error:  # Pillow has no class for what damaged files do
        raise MediaDecodeFailed(f"The image is damaged: {error}") from error


def upright(data: bytes, *, max_pixels: int) -> Image.Image:
    """Return a picture in RGB as it is meant to be seen; errors are those of :func:`opened`."""
    with opened(data, max_pixels=max_pixels) as image:
        seen, turn = rgb(image), turn_of(image)
    return seen if turn is None else seen.transpose(turn)


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """Return how a picture that is decoded is to be turned, as its EXIF data says; None where that cannot be read."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # noqa: BLE001 - Pillow has no class for what odd data do; a picture is seen without them as well
        return None


def rgb(image: Image.Image) -> Image.Image:
    """Return the picture in RGB, whatever is transparent over white."""
    if image.mode.startswith("I"):  # 16 bits a sample
        return image.point(lambda value: value / 256).convert("L").convert("RGB")
    if image.has_transparency_data:
        see_through = image.convert("RGBA")
        white = Image.new("RGBA", see_through.size, "white")
        return Image.alpha_composite(white, see_through).convert("RGB")
    return image.convert("RGB")
