"""Every program and command of docs/streams.md is run as it stands, but for the address of the door."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.conformance.serving import streams_door, streams_server

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]
ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "streams.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
async def door(valkey_url, tmp_path_factory):
    async with (
        streams_server(valkey_url) as server,
        streams_door(server, tmp_path_factory.mktemp("door")) as address,
    ):
        yield address


async def run(door: str, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(word.replace("127.0.0.1:8080", door) for word in command),
        cwd=ROOT,
        env={
            **os.environ,
            "MEDIAMESH_SERVER": door,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == 0, (out + err).decode()
    return out.decode()


async def test_a_stream_is_published_and_read(door) -> None:
    out = await run(door, sys.executable, "-c", blocks("python")[0])
    assert out.splitlines() == ["1 ", "2 Hello", "3 , ", "4 world", "5 "]


async def test_one_cursor_goes_over_all_edges(door) -> None:
    out = await run(door, sys.executable, "-c", blocks("python")[1])
    edges = ["StreamClient", "SseStreams", "NdjsonStreams", "WebSocketStreams"]
    assert out.splitlines() == [f"{edge} {2 * index + number}" for index, edge in enumerate(edges) for number in (1, 2)]


async def test_curl_reads_on_every_edge_it_can(door) -> None:
    out = await run(door, "bash", "-euo", "pipefail", "-c", blocks("sh")[0])
    assert re.findall(r"^id: (\d)$", out, re.MULTILINE) == ["1", "2", "3", "4", "3", "4"]
    assert len(re.findall(r'^\{"event_type":', out, re.MULTILINE)) == 2
    assert '"state":"STREAM_STATE_ENDED"' in out
    assert '"publish_token":' in out


async def test_a_file_is_published_and_followed(door) -> None:
    out = await run(door, "bash", "-euo", "pipefail", "-c", blocks("sh")[1])
    assert out.startswith('{"event_type":"stream_data"')


def test_every_program_of_the_guide_is_run() -> None:
    assert (len(blocks("python")), len(blocks("sh"))) == (2, 2)


def test_every_page_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)", GUIDE)
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []
