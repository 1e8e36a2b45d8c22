"""Triton's own client, unchanged, works against this server."""

from __future__ import annotations

import asyncio
import subprocess
import venv
from pathlib import Path

import pytest

from tests.inference.conftest import inference_server

HERE = Path(__file__).parent
# tritonclient wants protobuf below 7, which we are above: it lives in an environment of its own, made once.
ENVIRONMENT = HERE.parents[1] / ".mediamesh" / "tritonclient-2.73.0"


@pytest.fixture(scope="session")
def triton_python() -> Path:
    python, done = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "done"
    if not done.exists():
        venv.create(ENVIRONMENT, with_pip=True, clear=True)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "-q",
            "--disable-pip-version-check",
            "tritonclient[grpc]==2.73.0",
        ]
        installed = subprocess.run(install, capture_output=True, text=True, check=False)
        if installed.returncode:
            pytest.skip(f"tritonclient cannot be installed: {installed.stderr.strip().splitlines()[-1]}")
        done.touch()
    return python


@pytest.mark.stack
async def test_the_client_of_triton_calls_unary_and_on_a_stream(tiny_repository, triton_python) -> None:
    async with inference_server(tiny_repository) as port:
        process = await asyncio.create_subprocess_exec(
            triton_python,
            HERE / "triton_client.py",
            f"127.0.0.1:{port}",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert output.decode().strip() == "ok"
