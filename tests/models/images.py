"""Pictures as the models of the set ``vision`` want them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

PHOTOS = Path(skimage.data.__file__).parent
SIDE, STEP = 416, 32


def photo(name: str) -> Image.Image:
    """Return a photograph that comes with scikit-image."""
    return Image.open(PHOTOS / name).convert("RGB")


def for_classifier(picture: Image.Image) -> np.ndarray:
    """Return the centre, 0.875 of the short side, as [1, 3, 224, 224]."""
    side = round(min(picture.size) * 0.875)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return as_classified(picture.crop((left, top, left + side, top + side)))


def as_classified(picture: Image.Image) -> np.ndarray:
    """Return a picture, squeezed into a square, as [1, 3, 224, 224]."""
    pixels = np.asarray(picture.resize((224, 224), Image.Resampling.BICUBIC), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1)[None])


def for_detector(picture: Image.Image) -> tuple[np.ndarray, float]:
    """Return a picture at the top left of [1, 3, H, W], blue, green, red, and by how much it was made smaller."""
    scale = SIDE / max(picture.size)
    width, height = round(picture.width * scale), round(picture.height * scale)
    canvas = Image.new("RGB", (-(-width // STEP) * STEP, -(-height // STEP) * STEP))
    canvas.paste(picture.resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(np.asarray(canvas)[..., ::-1].transpose(2, 0, 1)[None]), scale
