"""Real models, pulled once, in real inference servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from mediamesh.client.inference import InferenceClient
from tests.inference.conftest import inference_server


@pytest.fixture(scope="session")
def serving_models(model_store, tmp_path_factory):
    """A function that pulls models and serves them, as a context manager of a client."""

    @asynccontextmanager
    async def serve(*names: str) -> AsyncIterator[InferenceClient]:
        chosen = model_store.manifest.choose(names)
        model_store.pull(chosen)
        repository = tmp_path_factory.mktemp("repository")
        for model in chosen:
            (repository / model.name).symlink_to(model_store.cache.directory(model))
        async with inference_server(repository) as port, InferenceClient(f"127.0.0.1:{port}") as client:
            yield client

    return serve
