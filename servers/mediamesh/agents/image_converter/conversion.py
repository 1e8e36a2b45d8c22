"""From the bytes of a picture to the bytes of the same picture in another form."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

from PIL import Image, ImageOps

from mediamesh.agents.pictures import opened, turn_of
from mediamesh.wire.errors import MediaTooLarge

__all__ = ["Form", "convert"]

_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
_MODES = {"JPEG": {"RGB", "L"}, "PNG": {"RGB", "RGBA", "L", "LA"}, "WEBP": {"RGB", "RGBA"}}
_QUALITY = 92


class Form(NamedTuple):
    """What a picture is to become.

    Attributes:
        width: Pixels; 0 follows the height.
        height: Pixels; 0 follows the width.
        media_type: Such as ``image/png``; empty for the picture's own.
        fit: What becomes of the proportions where both sides are given: ``stretch``, ``cover`` or ``pad``.
    """

    width: int
    height: int
    media_type: str
    fit: str


def convert(data: bytes, wanted: Form, *, max_pixels: int) -> bytes:
    """Return the picture in its new form, upright whatever its EXIF data say.

    Raises:
        UnsupportedMediaType: it is none of the formats accepted.
        MediaTooLarge: it has, or would have, more than ``max_pixels`` pixels.
        MediaDecodeFailed: it is damaged.
    """
    with opened(data, max_pixels=max_pixels) as image:
        name = _FORMATS.get(wanted.media_type) or ("PNG" if image.format == "GIF" else image.format or "PNG")
        image.load()
        turn = turn_of(image)
        upright = image if turn is None else image.transpose(turn)
        profile = image.info.get("icc_profile")
    return _encoded(_scaled(_in_mode(upright, name), wanted, max_pixels), name, profile)


def _scaled(image: Image.Image, wanted: Form, max_pixels: int) -> Image.Image:
    size = _size(image, wanted)
    if (pixels := size[0] * size[1]) > max_pixels:
        raise MediaTooLarge(f"The image has {pixels} pixels; {max_pixels} is the limit.", limit=max_pixels)
    if size == image.size:
        return image
    if wanted.fit == "cover":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if wanted.fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS)
    return image.resize(size, Image.Resampling.LANCZOS)


def _size(image: Image.Image, wanted: Form) -> tuple[int, int]:
    """Return width and height; a side that is not said keeps the proportions, rounded."""
    width, height = wanted.width, wanted.height
    if not width and not height:
        return image.size
    if not width:
        width = max(1, round(image.width * height / image.height))
    if not height:
        height = max(1, round(image.height * width / image.width))
    return width, height


def _in_mode(image: Image.Image, name: str) -> Image.Image:
    """Return the picture in a mode that its format has; where that has no transparency, over white."""
    if image.mode.startswith("I"):  # 16 bits a sample
        image = image.point(lambda value: value / 256).convert("L")
    if image.mode in _MODES[name]:
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    see_through = image.convert("RGBA")
    if "RGBA" in _MODES[name]:
        return see_through
    return Image.alpha_composite(Image.new("RGBA", see_through.size, "white"), see_through).convert("RGB")


def _encoded(image: Image.Image, name: str, profile: bytes | None) -> bytes:
    buffer = BytesIO()
    # Colours are numbers in the picture's own space; nothing else of what it carries goes on.
    image.save(buffer, name, quality=_QUALITY, icc_profile=profile, exif=b"")
    return buffer.getvalue()
