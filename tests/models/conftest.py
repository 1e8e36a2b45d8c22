"""Real models, pulled once, in real inference servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mediamesh.client.inference import InferenceClient
from tests.inference.conftest import inference_server


@pytest.fixture(scope="session")
def serving_models(pulled_repository):
    """A function that pulls models and serves them, as a context manager of a client."""

    @asynccontextmanager
    async def serve(*names: str) -> AsyncIterator[InferenceClient]:
        async with inference_server(pulled_repository(*names)) as port, InferenceClient(f"127.0.0.1:{port}") as client:
            yield client

    return serve
