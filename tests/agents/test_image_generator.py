from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mediamesh.agent.testing import gather, run_agent
from mediamesh.agents.image_generator import ImageGenerator
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.wire.errors import InvalidRequest


@pytest.mark.parametrize("pattern", ["bars", "gradient", "checkerboard"])
async def test_a_pattern_is_a_png_of_the_size_asked_for_and_always_the_same(pattern) -> None:
    params = {"width": 100, "height": 60, "pattern": pattern}
    first, second = [await run_agent(ImageGenerator(), {}, params) for _ in range(2)]
    assert first == second
    with Image.open(BytesIO(first["image"])) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (100, 60), "RGB")
        assert np.asarray(image).std() > 10


@pytest.mark.stack
async def test_a_large_picture_comes_whole_in_several_frames(agents) -> None:
    opening = OpenRun(agent_id="test.image-generator")
    opening.params.update({"width": 4096, "height": 4096, "pattern": "gradient"})
    data = (await gather(agents.run(opening, timeout=30)))["image"]
    with Image.open(BytesIO(data)) as image:
        image.load()
        assert image.size == (4096, 4096)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"width": 0}, "params.width: must be at least 1, is 0"),
        ({"height": 4097}, "params.height: must be at most 4096, is 4097"),
        ({"pattern": "mona lisa"}, "params.pattern: must be one of bars, gradient, checkerboard; is 'mona lisa'"),
    ],
)
async def test_a_bad_param_is_named_with_its_limit(params, text) -> None:
    with pytest.raises(InvalidRequest, match=text):
        await run_agent(ImageGenerator(), {}, params)
