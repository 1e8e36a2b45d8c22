"""The agents server with what it needs: the real inference server with the real model, the real media service."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage

from mediamesh.agents.app import app as agents_app
from mediamesh.agents.settings import Settings as AgentsSettings
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.media.v1.media_service_pb2 import MediaPlace
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.client.media import MediaClient
from mediamesh.inference.app import app as inference_app
from mediamesh.inference.settings import Settings as InferenceSettings
from mediamesh.kit.serve import serving
from mediamesh.media.app import app as media_app
from mediamesh.media.settings import Settings as MediaSettings

MODELS = Path(__file__).parents[2] / "deploy/models/repository"
PHOTOS = Path(skimage.__file__).with_name("data")


@pytest.fixture(scope="session")
async def inference_address():
    settings = InferenceSettings(model_repository=MODELS)
    async with inference_app(settings) as part, serving(settings, part) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
async def media_address(s3):
    settings = MediaSettings(
        endpoint_url=s3.endpoint_url, access_key=s3.access_key, secret_key=s3.secret_key, bucket=s3.bucket
    )
    async with media_app(settings) as part, serving(settings, part) as port:
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
async def agents(inference_address, media_address):
    """Return a client of the agents server."""
    settings = AgentsSettings(inference_address=inference_address, media_address=media_address)
    async with (
        agents_app(settings) as part,
        serving(settings, part) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield AgentClient(channel)


@pytest.fixture(scope="session")
async def upload(media_address):
    """Return what stores a picture and gives its value."""
    async with connect(media_address) as channel:
        client = MediaClient(channel)
        place = MediaPlace(workspace_id="w", flow_id="f", execution_id="uploads", node_id="upload", pin_name="file")

        async def store(picture):
            data = picture if isinstance(picture, bytes) else (PHOTOS / picture).read_bytes()
            return await client.upload(data, media_type=MediaType.MEDIA_TYPE_IMAGE, place=place)

        yield store
