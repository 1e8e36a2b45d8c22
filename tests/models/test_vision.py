"""The sets ``vision`` and ``generate`` see and make what they should, served by the inference server."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.models import images

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

PERSON = 0  # of the classes of COCO
CATS, ESPRESSO, MISSILE, MOPED = {281, 282, 285}, {967}, {657, 744}, {665}  # of the classes of ImageNet
SEEN = {"chelsea.png": CATS, "coffee.png": ESPRESSO, "rocket.jpg": MISSILE, "motorcycle_left.png": MOPED}
NETS = ("efficientnet_lite0", "efficientnet_lite0_int8")


async def test_efficientnet_names_what_photographs_show_and_eight_bits_agree(serving_models) -> None:
    crops = _crops()
    async with serving_models(*NETS) as client:
        for name, expected in SEEN.items():
            best = await _best(client, [images.for_classifier(images.photo(name))])
            assert set(best["efficientnet_lite0"]) <= expected, name
            assert set(best["efficientnet_lite0_int8"]) <= CATS if expected == CATS else expected, name
        best = await _best(client, crops)
    agreement = np.mean([one == other for one, other in zip(*best.values(), strict=True)])
    assert agreement >= 0.85  # 0.943 of 210 crops


async def _best(client, pictures) -> dict[str, list[int]]:
    answers = {net: [client.infer(net, {"input": picture}) for picture in pictures] for net in NETS}
    return {
        net: [int(one["logits"].argmax()) for one in await asyncio.gather(*asked)] for net, asked in answers.items()
    }


def _crops() -> list[np.ndarray]:
    """Return 15 random squares out of each photograph."""
    chance, crops = np.random.default_rng(5), []
    for name in [*SEEN, "astronaut.png"]:
        picture = images.photo(name)
        for _ in range(15):
            side = int(min(picture.size) * chance.uniform(0.5, 1))
            left, top = (int(chance.integers(0, size - side + 1)) for size in picture.size)
            crops.append(images.as_classified(picture.crop((left, top, left + side, top + side))))
    return crops


async def test_nanodet_finds_the_astronaut_in_a_frame_of_any_shape(serving_models) -> None:
    picture = images.photo("astronaut.png")
    async with serving_models("nanodet_int8") as client:
        for part in (picture, picture.crop((0, 0, picture.width, 300)), picture.crop((40, 0, 400, picture.height))):
            pixels, scale = images.for_detector(part)
            (objects,) = (await client.infer("nanodet_int8", {"frames": pixels}))["objects"]
            left, top, right, bottom, score, kind = objects[0] / [*[scale] * 4, 1, 1]
            assert kind == PERSON
            assert score > 0.6
            assert left < 224 < right  # where her face is
            assert top < 110 < bottom
            assert (right - left) * (bottom - top) > 0.4 * part.width * part.height
            assert (np.diff(objects[:, 4]) <= 0).all()


async def test_the_dcgan_makes_different_pictures_within_range(serving_models) -> None:
    noise = np.random.default_rng(1).standard_normal((4, 100, 1, 1)).astype(np.float32)
    async with serving_models("dcgan_faces") as client:
        made = (await client.infer("dcgan_faces", {"z": noise}))["image"]
    assert made.shape == (4, 3, 64, 64)
    assert np.abs(made).max() <= 1
    assert made.std() > 0.2
    assert np.abs(made[0] - made[1]).mean() > 0.1
