from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import ExifTags, Image

from mediamesh.agents.image_classifier.agent import best
from mediamesh.agents.image_classifier.preprocessing import preprocess


def tensor(image: Image.Image, kind: str = "PNG", **options) -> np.ndarray:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return preprocess(buffer.getvalue())


def plain(image: Image.Image) -> np.ndarray:
    """The recipe in its plainest form."""
    side = round(0.875 * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    middle = image.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return ((np.asarray(middle, np.float32) - 127) / 128).transpose(2, 0, 1)


def photo(width: int = 640, height: int = 480) -> Image.Image:
    """A smooth picture that is different in every corner."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [columns * 255 // width, rows * 255 // height, (rows + columns) * 255 // (width + height)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def test_the_tensor_is_what_the_plain_recipe_gives() -> None:
    image = photo()
    given = tensor(image)
    assert given.shape == (3, 224, 224)
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    np.testing.assert_allclose(given, plain(image), atol=1.5 / 128)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_its_exif_says(orientation) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright = photo()
    turns = {
        1: lambda image: image, 2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.rotate(180), 4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE), 6: lambda image: image.rotate(90, expand=True),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE), 8: lambda image: image.rotate(-90, expand=True),
    }  # fmt: skip
    stored = turns[orientation](upright)
    np.testing.assert_allclose(tensor(stored, exif=exif), plain(upright), atol=2.5 / 128)


@pytest.mark.stack
def test_a_big_jpeg_is_decoded_smaller_and_looks_the_same() -> None:
    image = photo(4000, 3000)
    assert np.abs(tensor(image, "JPEG", quality=95) - plain(image)).mean() < 1.5 / 128


@pytest.mark.parametrize(
    ("image", "kind", "expected"),
    [
        (Image.new("L", (50, 50), 255), "PNG", 1.0),
        (Image.new("1", (50, 50), 1), "PNG", 1.0),
        (Image.new("I;16", (50, 50), 65535), "PNG", 1.0),
        (Image.new("LA", (50, 50), (0, 0)), "PNG", 1.0),
        (Image.new("RGBA", (50, 50), (0, 0, 0, 0)), "PNG", 1.0),
        (Image.new("RGBA", (50, 50), (255, 255, 255, 255)), "WEBP", 1.0),
        (Image.new("P", (50, 50), 0), "GIF", -127 / 128),
        (Image.new("CMYK", (50, 50), (0, 0, 0, 0)), "JPEG", 1.0),
        (Image.new("RGB", (1, 1), "white"), "PNG", 1.0),
        (Image.new("RGB", (1, 3000), "white"), "PNG", 1.0),
    ],
)
def test_every_mode_becomes_rgb_and_what_is_transparent_is_white(image, kind, expected) -> None:
    np.testing.assert_allclose(tensor(image, kind), expected, atol=1.01 / 128)


def test_a_palette_with_transparency_is_white_where_one_sees_through() -> None:
    image = Image.new("P", (50, 50), 3)
    image.putpalette([0] * 12)
    np.testing.assert_allclose(tensor(image, "PNG", transparency=bytes([255, 255, 255, 0])), 1.0)


def test_the_best_come_first_with_their_softmax() -> None:
    logits = np.array([0.0, np.log(3.0), -np.inf, 1000.0], np.float32)
    assert best(logits, 2)[0] == (3, 1.0)
    (first, more), (second, less) = best(logits[:3], 2)
    assert (first, second) == (1, 0)
    assert (more, less) == pytest.approx((0.75, 0.25))
