"""Every program and command of docs/inference-client.md is run as it stands, but for the addresses of the servers."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.inference import models, sequence_models
from tests.inference.conftest import inference_server
from tests.inference.repeat import add_repeat, repeat_backend

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "inference-client.md").read_text()
MODEL = "efficientnet_lite0_int8"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def ports(tmp_path_factory):
    repository = tmp_path_factory.mktemp("guide")
    (repository / MODEL).symlink_to(models.VENDORED / MODEL)
    add_repeat(repository)
    strategy = "oldest { max_candidate_sequences: 8 }"
    sequence_models.add_sequence_model(
        repository, "total", sequence_models.total(), f"{strategy} {sequence_models.STATE}"
    )
    with repeat_backend():
        async with inference_server(repository) as one, inference_server(repository) as other:
            yield {"8001": str(one), "8002": str(other)}


async def run(ports, folder: Path, *command: str) -> list[str]:
    words = [re.sub(r"127\.0\.0\.1:(800[12])", lambda found: f"127.0.0.1:{ports[found[1]]}", word) for word in command]
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(200):
        out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    return out.decode().splitlines()


async def test_a_model_is_run_on_two_servers(ports, tmp_path) -> None:
    said = await run(ports, tmp_path, sys.executable, "-c", blocks("python")[0])
    assert said == ["(2, 1000) from version 1", "2 answers"]


async def test_answers_come_until_the_reader_leaves(ports, tmp_path) -> None:
    said = await run(ports, tmp_path, sys.executable, "-c", blocks("python")[1])
    assert said == ["[0] [1. 1. 1.]", "[1] [1. 1. 1.]", "[2] [1. 1. 1.]"]


async def test_a_sequence_adds_up(ports, tmp_path) -> None:
    assert await run(ports, tmp_path, sys.executable, "-c", blocks("python")[2]) == ["1.0", "3.0", "6.0"]


async def test_a_picture_lies_in_shared_memory(ports, tmp_path) -> None:
    (said,) = await run(ports, tmp_path, sys.executable, "-c", blocks("python")[3])
    assert re.fullmatch(r"\[\d+, \d+, \d+\]", said)


async def test_the_server_is_measured(ports, tmp_path) -> None:
    said = "\n".join(await run(ports, tmp_path, "bash", "-euo", "pipefail", "-c", blocks("sh")[0]))
    assert "4 in flight" in said
    assert "20/s" in said
    assert (tmp_path / "figures.json").exists()


def test_every_program_of_the_guide_is_run() -> None:
    assert (len(blocks("python")), len(blocks("sh"))) == (4, 1)


def test_every_page_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", GUIDE)
    missing = {link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()}
    assert missing <= {"generation.md"}
