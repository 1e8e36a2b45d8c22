"""Pictures as the models of the set ``vision`` want them, and boxes out of what they answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image

PHOTOS = Path(skimage.data.__file__).parent
SIDE = 416
_MEAN = np.array([103.53, 116.28, 123.675], np.float32)
_DEVIATION = np.array([57.375, 57.12, 58.395], np.float32)


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
    """Return a picture at the top left of [1, 3, 416, 416], and by how much it was made smaller."""
    scale = SIDE / max(picture.size)
    canvas = Image.new("RGB", (SIDE, SIDE))
    canvas.paste(
        picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    )
    pixels = np.asarray(canvas, np.float32)[..., ::-1]
    return np.ascontiguousarray(((pixels - _MEAN) / _DEVIATION).transpose(2, 0, 1)[None]), scale


def best_box(answer: dict[str, np.ndarray], label: int) -> tuple[float, np.ndarray]:
    """Return score and box (left, top, right, bottom) of the likeliest object of a class."""
    found = []
    for level, stride in enumerate((8, 16, 32)):
        scores = answer["Identity" + (f"_{level}" if level else "")][0, :, label]
        bins = answer[f"Identity_{level + 3}"][0].reshape(-1, 4, 11)
        shares = np.exp(bins - bins.max(-1, keepdims=True))
        distances = (shares / shares.sum(-1, keepdims=True)) @ np.arange(11) * stride
        place = int(scores.argmax())
        row, column = divmod(place, SIDE // stride)
        centre = np.array([column + 0.5, row + 0.5]) * stride
        found.append((float(scores[place]), np.r_[centre - distances[place, :2], centre + distances[place, 2:]]))
    return max(found, key=lambda one: one[0])
