"""Every command and program of the README is run as it stands."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from mediamesh.api.agent.v1 import agent_service_pb2
from mediamesh.client.agents import AgentClient
from mediamesh.client.channel import connect

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
# `make test` is what runs this; `make demo` has a test of its own below.
ELSEWHERE = {"make test", "make demo"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def at(mesh, text: str) -> str:
    """Return the text with the door of the test's mesh in place of the default one."""
    return text.replace("127.0.0.1:8080", mesh.door)


SHELL = ["\n".join(line for line in block.splitlines() if line not in ELSEWHERE) for block in blocks("sh")]


@pytest.mark.parametrize("script", [script for script in SHELL if script], ids=lambda script: script[:50])
def test_every_command_does_what_it_says(mesh, model_store, script) -> None:
    port = mesh.door.partition(":")[2]
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", at(mesh, script)],
        cwd=ROOT,
        env={**os.environ, "MEDIAMESH_PORT": port, "MEDIAMESH_MODELS_CACHE": str(model_store.cache.root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert '"code":' not in done.stdout  # how REST spells an error


def test_the_client_prints_the_events(mesh) -> None:
    (program,) = [block for block in blocks("python") if "mediamesh.client" in block]
    done = subprocess.run(
        [sys.executable, "-c", at(mesh, program)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].split()[-1] == "execution_started"
    assert done.stdout.splitlines()[-1].split()[-1] == "execution_finished"


async def test_the_agent_greets(tmp_path) -> None:
    (program,) = [block for block in blocks("python") if "mediamesh.agent" in block]
    (tmp_path / "hello_agent.py").write_text(program)
    shutil.copy(ROOT / "clients" / "examples" / "agents" / "hello_agent.yaml", tmp_path)
    agent = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "hello_agent.py"), stderr=asyncio.subprocess.PIPE
    )
    assert agent.stderr is not None
    try:
        started = (await agent.stderr.readline()).decode()
        found = re.search(r"127\.0\.0\.1:\d+", started)
        assert found, started
        run = agent_service_pb2.OpenRun(agent_id="example.hello")
        run.inputs["name"].text = "Ada"
        async with connect(found[0]) as channel:
            frames = [frame async for frame in AgentClient(channel).run(run)]
    finally:
        agent.terminate()
        await agent.communicate()
    assert frames[0].output.value.text == "Hello, Ada!"
    assert agent.returncode == 0


def test_make_demo_sees_hears_and_draws_and_leaves_nothing_running(model_store) -> None:
    env = {**os.environ, "MEDIAMESH_MODELS_CACHE": str(model_store.cache.root)}
    done = subprocess.run(["make", "demo"], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cat" in done.stdout
    assert "Fail better." in done.stdout
    assert "The mesh is down." in done.stdout
    with Image.open(ROOT / ".mediamesh/demo.png") as picture:
        assert picture.width > 1000


async def test_every_page_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    missing = [link for link in links if "://" not in link and not await asyncio.to_thread((ROOT / link).exists)]
    assert missing == []
