"""What a mesh says of itself, and what it refuses when that is switched off."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version

import pytest
from google.protobuf import json_format

from mediamesh.client.channel import connect
from mediamesh.client.streams import StreamClient
from mediamesh.kit.serve import serving
from mediamesh.streams.app import app
from mediamesh.streams.settings import Settings
from mediamesh.wire.errors import StreamingNotSupported


@asynccontextmanager
async def streaming(**changes):
    own = Settings(**{"valkey_url": "", "grace_seconds": 0, **changes})
    async with app(own) as part, serving(own, part) as port, connect(f"127.0.0.1:{port}") as channel:
        yield StreamClient(channel)


async def test_capabilities_are_told_as_the_specification_spells_them() -> None:
    async with streaming() as client:
        told = json_format.MessageToDict(await client.capabilities())
    media = ["text", "image", "audio", "video", "document", "file"]
    assert told == {
        "runtime": "mediamesh",
        "version": version("mediamesh"),
        "capabilities": {
            "streaming": True,
            "multimodal": {"input": media, "output": media},
            "max_media_size_mb": 100.0,
            "supported_transports": ["grpc", "grpc-web", "sse", "ndjson", "websocket"],
        },
    }


async def test_what_is_switched_off_is_no_capability() -> None:
    async with streaming(enable_streaming=False, enable_multimodal=False) as client:
        told = (await client.capabilities()).capabilities
        assert not told.streaming
        assert not told.supported_transports
        assert list(told.multimodal.input) == ["text"]
        with pytest.raises(StreamingNotSupported, match="ENABLE_STREAMING") as raised:
            await client.open()
    assert raised.value.number == "E4010"
