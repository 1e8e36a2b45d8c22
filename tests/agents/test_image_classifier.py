from __future__ import annotations

import asyncio
import json
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.testing import gather
from mediamesh.agents.app import app as agents_app
from mediamesh.agents.image_classifier import ImageClassifier
from mediamesh.agents.settings import Settings as AgentsSettings
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.kit.serve import serving
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MediaDecodeFailed,
    MediaTooLarge,
    MeshError,
    NotFound,
    Unavailable,
    UnsupportedMediaType,
)

pytestmark = pytest.mark.slow


def opening(media: MediaValue, **params) -> OpenRun:
    run = OpenRun(agent_id="mediamesh.image-classifier")
    run.inputs["image"].media.CopyFrom(media)
    run.params.update(params)
    return run


def inline(data: bytes) -> MediaValue:
    return MediaValue(type=MediaType.MEDIA_TYPE_IMAGE, inline=data)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# Least and most probability of the best class. The net gives .39, .95 and .35 where 8-bit products are summed exactly
# (VNNI, or onnxruntime's session.x64quantprecision), and .52, .53 and .16 on a processor that saturates at 16 bits.
@pytest.mark.parametrize(
    ("photo", "best", "least", "most", "also"),
    [
        ("chelsea.png", {"tiger cat", "Egyptian cat"}, 0.35, 0.58, {"tiger cat", "Egyptian cat", "tabby"}),
        ("coffee.png", {"espresso"}, 0.49, 0.99, set()),
        ("rocket.jpg", {"missile"}, 0.12, 0.42, {"projectile"}),
    ],
)
async def test_a_photo_in_the_store_is_classified(agents, upload, photo, best, least, most, also) -> None:
    outputs = await gather(agents.run(opening(await upload(photo)), timeout=30))
    classes = outputs["classification"]
    assert len(classes) == 5
    assert classes[0]["label"] in best
    assert least < classes[0]["probability"] < most
    assert outputs["confidence"] == classes[0]["probability"]
    assert also <= {entry["label"] for entry in classes}
    assert [entry["probability"] for entry in classes] == sorted((e["probability"] for e in classes), reverse=True)


async def test_top_k_is_how_many_classes_come(agents, upload) -> None:
    coffee = await upload("coffee.png")
    assert len((await gather(agents.run(opening(coffee, top_k=1), timeout=30)))["classification"]) == 1
    everything = (await gather(agents.run(opening(coffee, top_k=1000), timeout=30)))["classification"]
    assert sum(entry["probability"] for entry in everything) == pytest.approx(1)
    assert sorted(entry["index"] for entry in everything) == list(range(1000))


@pytest.mark.parametrize(
    ("top_k", "text"),
    [(0, "at least 1, is 0"), (1001, "at most 1000, is 1001"), (2.5, "whole number"), ("x", "takes number")],
)
async def test_a_bad_top_k_is_named_with_its_limit(agents, top_k, text) -> None:
    with pytest.raises(InvalidRequest, match=text) as raised:
        await gather(agents.run(opening(inline(b"x"), top_k=top_k), timeout=30))
    assert raised.value.violations[0][0] == "params.top_k"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: b"this is text, named .jpg", UnsupportedMediaType),
        (lambda: b"", UnsupportedMediaType),
        (
            lambda: encoded(Image.effect_noise((640, 480), 50).convert("RGB"), "JPEG")[:20_000],
            MediaDecodeFailed,
        ),
        (lambda: encoded(Image.new("1", (9000, 9000)), "PNG"), MediaTooLarge),
        (lambda: encoded(Image.new("1", (50_000, 5_000)), "PNG"), MediaTooLarge),
        (lambda: encoded(Image.new("L", (8, 8)), "BMP"), UnsupportedMediaType),
    ],
    ids=["text", "nothing", "cut off", "large", "long", "another kind"],
)
async def test_bytes_that_are_no_good_picture_are_refused(agents, make, kind) -> None:
    data = make()
    with pytest.raises(kind):
        await gather(agents.run(opening(inline(data)), timeout=30))


async def test_a_picture_that_is_not_in_the_store_is_not_found(agents, upload) -> None:
    media = await upload("coffee.png")
    media.ref.url += ".gone"
    with pytest.raises(NotFound):
        await gather(agents.run(opening(media), timeout=30))


async def test_a_deadline_that_has_no_room_is_exceeded(agents, upload) -> None:
    with pytest.raises(DeadlineExceeded):
        await gather(agents.run(opening(await upload("coffee.png")), timeout=0.001))


@pytest.mark.stack
async def test_two_hundred_runs_at_once_all_succeed(agents, upload) -> None:
    media = await upload(encoded(Image.fromarray(np.full((64, 64, 3), 200, np.uint8)), "JPEG"))
    runs = (gather(agents.run(opening(media, top_k=1), timeout=60)) for _ in range(200))
    results = await asyncio.gather(*runs)
    assert len({json.dumps(result) for result in results}) == 1


class NeverAnswers:
    """Stands for an inference server that hangs; notes what is cancelled."""

    def __init__(self) -> None:
        self.asked, self.cancelled = asyncio.Event(), asyncio.Event()

    async def infer(self, model, inputs, *, timeout=None):
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_cancelling_a_run_cancels_what_waits_for_inference() -> None:
    inference = NeverAnswers()
    classifier = ImageClassifier(inference, model="m", max_images=1, max_pixels=1000)  # type: ignore[arg-type]
    media = inline(encoded(Image.new("RGB", (8, 8)), "PNG"))
    async with serving_agents(AgentSettings(), classifier) as port, connect(f"127.0.0.1:{port}") as channel:
        client = AgentClient(channel)
        run = asyncio.ensure_future(gather(client.run(opening(media))))
        await inference.asked.wait()
        run.cancel()
        async with asyncio.timeout(10):
            await inference.cancelled.wait()


async def test_without_its_inference_server_a_run_is_unavailable_and_the_server_lives() -> None:
    settings = AgentsSettings(inference_address="127.0.0.1:1")
    media = inline(encoded(Image.new("RGB", (8, 8)), "PNG"))
    failure: MeshError | None = None
    async with agents_app(settings) as part, serving(settings, part) as port, connect(f"127.0.0.1:{port}") as channel:
        try:
            await gather(AgentClient(channel).run(opening(media), timeout=10))
        except MeshError as error:
            failure = error
        manifest = (await AgentClient(channel).describe("mediamesh.image-classifier")).agents[0]
    assert isinstance(failure, Unavailable)
    assert manifest.inputs[0].constraints.max_size_bytes == 20 << 20
    assert manifest.resources.profiles[0].memory == "4Gi"
