"""Media as a file: for a client, and for an agent that decodes it in a thread."""

from __future__ import annotations

import asyncio

import pytest
from PIL import Image

from mediamesh.agent import Agent, AgentSettings, parse_manifest
from mediamesh.agent.testing import run_agent
from mediamesh.api.media.v1.media_pb2 import MediaType, MediaValue
from mediamesh.kit.serve import serving
from mediamesh.media.app import app
from mediamesh.wire.errors import FailedPrecondition, MediaTooLarge, NotFound

IMAGE = MediaType.MEDIA_TYPE_IMAGE


class Looker(Agent):
    """Tells the size of a picture, which Pillow reads and seeks."""

    def describe(self):
        return parse_manifest(
            "{id: test.looker, version: 1.0.0, inputs: [{name: image, type: image}],"
            " outputs: [{name: size, type: json}]}"
        )

    async def process(self, run):
        async with run.open("image") as file:
            return {"size": await asyncio.to_thread(_look, file)}


def _look(file):
    with Image.open(file) as image:
        image.load()
        return list(image.size)


@pytest.fixture(scope="session")
def large(make_picture):
    return make_picture("PNG", (1200, 1000), compress_level=0)


async def test_a_client_opens_what_it_stored(media, place, large) -> None:
    url = (await media.upload(large, media_type=IMAGE, place=place)).ref.url
    async with media.open(url) as file:
        assert await asyncio.to_thread(_look, file) == [1200, 1000]
        file.seek(-100, 2)
        assert await asyncio.to_thread(file.read) == large[-100:]


async def test_what_is_not_there_is_not_opened(media, place) -> None:
    with pytest.raises(NotFound):
        async with media.open(f"s3://media/{place.workspace_id}/f/e/n/p_1.png"):
            pass


async def test_an_agent_decodes_in_a_thread_what_lies_in_the_store(settings, media, place, large) -> None:
    value = await media.upload(large, media_type=IMAGE, place=place)
    async with app(settings) as part, serving(settings, part) as port:
        own = AgentSettings(media_address=f"127.0.0.1:{port}")
        assert await run_agent(Looker(), {"image": value}, settings=own) == {"size": [1200, 1000]}


async def test_an_agent_opens_inline_bytes_without_a_store(make_picture) -> None:
    value = MediaValue(type=IMAGE, inline=make_picture())
    assert await run_agent(Looker(), {"image": value}) == {"size": [64, 48]}


async def test_an_agent_opens_no_more_than_it_may_and_nothing_without_a_store(media, place, large) -> None:
    value = await media.upload(large, media_type=IMAGE, place=place)
    with pytest.raises(FailedPrecondition, match="media_address is empty"):
        await run_agent(Looker(), {"image": value})
    with pytest.raises(MediaTooLarge, match="at most 1000 bytes"):
        await run_agent(Looker(), {"image": value}, settings=AgentSettings(max_media_bytes=1000))
