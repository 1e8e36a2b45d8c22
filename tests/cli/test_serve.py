"""`mediamesh serve` takes where to listen and what to serve from its options, over the settings."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mediamesh.cli.main import app
from mediamesh.client import connect
from mediamesh.client.inference import InferenceClient
from mediamesh.inference.settings import Settings
from mediamesh.wire.errors import MeshError
from tests.inference import models


@pytest.fixture
def serve(monkeypatch):
    """Run the command up to where it would serve; return its result and the settings of the inference server."""
    for name in [name for name in os.environ if name.startswith("MEDIAMESH_INFERENCE_")]:
        monkeypatch.delenv(name)
    loaded: list[Settings] = []
    monkeypatch.setattr("mediamesh.kit.process.main", lambda *names: loaded.append(Settings.load()))
    # What the command sets is taken back with the rest.
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*options: str):
        result = CliRunner().invoke(app, ["serve", *options])
        return result, loaded

    return run


def test_options_win_over_the_settings(serve, tmp_path) -> None:
    os.environ["MEDIAMESH_INFERENCE_PORT"] = "1"
    result, loaded = serve(
        "inference", "--model-repository", str(tmp_path), "--port", "4711", "--host", "::1",
        "--model-control", "explicit", "--load-model", "a", "--load-model", "b",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (settings,) = loaded
    assert settings.model_repository == tmp_path
    assert (settings.host, settings.port) == ("::1", 4711)
    assert (settings.model_control, settings.load_models) == ("explicit", ("a", "b"))


def test_options_about_models_are_for_the_inference_server(serve, tmp_path) -> None:
    result, loaded = serve("media", "--model-repository", str(tmp_path))
    assert result.exit_code == 2
    assert "are for the server inference" in result.output
    assert not loaded


def _until_listening(text: bytes) -> int | None:
    _, found, rest = text.partition(b" on 127.0.0.1:")
    return int(rest.split()[0]) if found and b"\n" in rest else None


@pytest.mark.stack
async def test_a_served_repository_answers_and_a_run_beyond_its_memory_fails_alone(tmp_path) -> None:
    models.add_model(tmp_path, "double", models.double())
    models.add_model(tmp_path, "fill", models.fill())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mediamesh.cli.main", "serve", "inference",
        "--model-repository", str(tmp_path), "--port", "0",
        env={**os.environ, "MEDIAMESH_INFERENCE_MEMORY_BYTES": str(2 << 30)},
        cwd=Path(__file__).parents[2],
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    said = b""
    try:
        while (port := _until_listening(said)) is None:
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line
        async with connect(f"127.0.0.1:{port}") as channel, InferenceClient(channel) as client:
            assert (await client.infer("fill", {"count": np.array([10])}))["y"].tolist() == 10
            with pytest.raises(MeshError, match="fill/1"):
                await client.infer("fill", {"count": np.array([1 << 32])})
            assert (await client.infer("double", {"x": np.ones((1, 2), np.float32)}))["y"].tolist() == [[2, 2]]
    finally:
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0
