from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from mediamesh.agent import AgentSettings, serving_agents
from mediamesh.agent.check import Verdict, check_server
from mediamesh.agent.testing import run_agent
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun
from mediamesh.client import connect
from mediamesh.client.agents import AgentClient
from mediamesh.wire.errors import InvalidRequest, Unavailable

EXAMPLES = Path(__file__).parents[2] / "clients/examples/agents"


@pytest.fixture
def hello(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from hello_agent import Hello  # type: ignore[import-not-found]  # noqa: PLC0415

    return Hello()


async def test_the_example_greets(hello) -> None:
    assert await run_agent(hello, {"name": "Ada"}) == {"greeting": "Hello, Ada!"}
    assert await run_agent(hello, {"name": "Ada"}, {"salutation": "Ahoy"}) == {"greeting": "Ahoy, Ada!"}


async def test_the_example_wants_a_name(hello) -> None:
    with pytest.raises(InvalidRequest, match=r"inputs\.name: is required"):
        await run_agent(hello, {})


@pytest.mark.stack
async def test_the_example_keeps_the_contract(hello) -> None:
    async with serving_agents(AgentSettings(), hello) as port:
        findings = [finding async for finding in check_server(f"127.0.0.1:{port}")]
    assert {finding.check: finding.text for finding in findings if finding.verdict is Verdict.FAILED} == {}


@pytest.mark.stack
async def test_the_example_runs_as_a_process_until_it_is_told_to_stop() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "hello_agent.py"), stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            line = (await process.stderr.readline()).decode()
            port = re.search(r"example\.hello on 127\.0\.0\.1:(\d+)", line)
            assert port, line
            async with connect(f"127.0.0.1:{port[1]}") as channel:
                opening = OpenRun(agent_id="example.hello")
                opening.inputs["name"].text = "Ada"
                frames = [frame async for frame in AgentClient(channel).run(opening, timeout=10)]
            assert frames[0].output.value.text == "Hello, Ada!"
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_wrong_manifest_is_told_before_anything_is_served(tmp_path) -> None:
    (tmp_path / "wrong.py").write_text((EXAMPLES / "hello_agent.py").read_text())
    manifest = (EXAMPLES / "hello_agent.yaml").read_text()
    (tmp_path / "hello_agent.yaml").write_text(manifest.replace("type: string", "type: text", 1))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(tmp_path / "wrong.py"), stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode == 2
    assert "hello_agent.yaml:6: inputs[0].type: must be one of string" in error.decode()


@pytest.mark.stack
async def test_a_server_for_one_run_ends_after_it() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / "hello_agent.py"),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "MEDIAMESH_AGENT_MAX_RUNS": "1"},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            port = re.search(r"127\.0\.0\.1:(\d+)", (await process.stderr.readline()).decode())
            assert port is not None
            async with connect(port[0]) as channel:
                opening = OpenRun(agent_id="example.hello")
                opening.inputs["name"].text = "Ada"
                frames = [frame async for frame in AgentClient(channel).run(opening)]
            assert frames[-1].HasField("finished")
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_server_that_did_all_its_runs_takes_no_more(hello) -> None:
    async with serving_agents(AgentSettings(max_runs=1), hello) as port, connect(f"127.0.0.1:{port}") as channel:
        opening = OpenRun(agent_id="example.hello")
        opening.inputs["name"].text = "Ada"
        client = AgentClient(channel)
        assert [frame async for frame in client.run(opening)][-1].HasField("finished")
        with pytest.raises(Unavailable, match="max_runs"):
            async for _ in client.run(opening):
                pass
