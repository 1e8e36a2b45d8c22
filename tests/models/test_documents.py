"""The set ``documents`` reads a picture of text, served by the inference server."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

LINES = ["Invoice 2024-117", "Total 42.50 EUR"]
_GROW = 8  # pixels that a box is wider than where the detector is sure


@pytest.fixture(scope="module")
def page() -> Image.Image:
    picture = Image.new("RGB", (640, 160), "white")
    for number, text in enumerate(LINES):
        ImageDraw.Draw(picture).text((20, 15 + 70 * number), text, fill="black", font=ImageFont.load_default(44))
    return picture


async def test_lines_are_found_and_read_without_a_mistake(serving_models, page) -> None:
    async with serving_models("ppocr_detector", "ppocr_recogniser") as client:
        likely = (await client.infer("ppocr_detector", {"x": _pixels(page)}))["fetch_name_0"][0, 0]
        read = [await _read(client, page.crop(box)) for box in _boxes(likely > 0.3)]
    assert read == LINES


async def test_the_likeliest_character_is_that_of_the_highest_probability(serving_models, model_store, page) -> None:
    characters = (model_store.files("ppocr_recogniser") / "characters.txt").read_text(encoding="utf-8").split("\n")
    async with serving_models("ppocr_recogniser") as client:
        outputs = await client.infer("ppocr_recogniser", {"x": _pixels(page.crop((0, 0, 320, 48)))})
    likely = outputs["fetch_name_0"]
    np.testing.assert_array_equal(outputs["class"], likely.argmax(-1))
    np.testing.assert_array_equal(outputs["probability"], likely.max(-1))
    names = [one.decode() for one in outputs["character"][0]]
    assert names == [characters[number - 1] if number else "" for number in outputs["class"][0]]


async def test_a_line_upside_down_is_told_from_one_that_is_not(serving_models, page) -> None:
    line = page.crop((0, 0, 640, 80)).resize((192, 48))
    async with serving_models("ppocr_orientation") as client:
        sides = [await client.infer("ppocr_orientation", {"x": _pixels(one)}) for one in (line, line.rotate(180))]
    assert [int(side["save_infer_model/scale_0.tmp_1"].argmax()) for side in sides] == [0, 1]


def _pixels(picture: Image.Image) -> np.ndarray:
    """Return BGR from -1 to 1, [1, 3, height, width]."""
    scaled = np.asarray(picture, np.float32)[..., ::-1] / 127.5 - 1
    return np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])


def _boxes(text: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Return a box for each band of rows with text in it."""
    edges = np.flatnonzero(np.diff(np.r_[0, text.any(1).astype(int), 0]))
    boxes = []
    for top, bottom in zip(edges[::2], edges[1::2], strict=True):
        columns = np.flatnonzero(text[top:bottom].any(0))
        left, above = (max(0, int(side) - _GROW) for side in (columns[0], top))
        boxes.append((left, above, int(columns[-1]) + _GROW, int(bottom) + _GROW))
    return boxes


async def _read(client, line: Image.Image) -> str:
    scaled = ImageOps.scale(line, 48 / line.height).resize((round(line.width * 48 / line.height), 48))
    best = await client.infer("ppocr_recogniser", {"x": _pixels(scaled)}, outputs=["class", "character"])
    places = best["class"][0]
    kept = np.r_[True, places[1:] != places[:-1]]  # CTC: repetitions are one, and the blank has no character
    return b"".join(best["character"][0][kept]).decode()
