from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import psutil
import pytest

from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.client import Mesh
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Unavailable
from tests.integration.conftest import CAT, CLASSIFY, a_cat, server_process

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
CATS = {"tabby", "tiger cat", "Egyptian cat", "Egyptian Mau"}


def mediamesh(mesh, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mediamesh.cli.main", *arguments, "--server", mesh.door]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def kinds(events) -> list[str]:
    return [event.WhichOneof("event") for event in events]


def test_the_command_line_names_the_cat(mesh) -> None:
    done = mediamesh(mesh, "run", str(CLASSIFY), "--input", f"upload.file={CAT}")
    assert done.returncode == 0, done.stderr
    assert any(name in done.stdout for name in CATS)
    assert "%" in done.stdout
    assert "execution_finished" in done.stdout


def test_json_is_one_event_a_line(mesh) -> None:
    done = mediamesh(mesh, "run", str(CLASSIFY), "--input", f"upload.file={CAT}", "--json")
    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["executionFinished"]["state"] == "succeeded"
    (best,) = [
        event["nodeOutput"]["value"]["json"][0]
        for event in events
        if event.get("nodeId") == "classify" and event.get("nodeOutput", {}).get("pin") == "classification"
    ]
    assert best["label"] in CATS


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--input", "upload.file=/nowhere.jpg"], "there is no file"),
        ([], "upload.file"),
        (["--input", "upload"], "node.pin=VALUE"),
        (["--input", f"upload.fill={CAT}"], "upload.fill"),
    ],
)
def test_a_run_that_cannot_be_says_why_and_exits_1(mesh, given, sentence) -> None:
    done = mediamesh(mesh, "run", str(CLASSIFY), *given)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_mesh_that_is_not_there_is_said_with_a_remedy(mesh, tmp_path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mediamesh.cli.main", "agents", "--server", "127.0.0.1:1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "mediamesh up" in done.stderr


def test_flow_check_prints_every_mistake_with_its_line(mesh, tmp_path) -> None:
    broken = tmp_path / "broken.mlab"
    broken.write_text(
        CLASSIFY.read_text().replace("mediamesh.image-classifier", "mediamesh.imag-classifier").replace("show.", "sow.")
    )
    done = mediamesh(mesh, "flow", "check", str(broken))
    assert done.returncode == 1
    assert "mediamesh.image-classifier" in done.stderr  # what was meant
    assert done.stderr.count("broken.mlab:") >= 2
    assert mediamesh(mesh, "flow", "check", str(CLASSIFY)).returncode == 0


async def test_killing_the_inference_server_fails_the_run_and_the_next_one_works(mesh, door, classify, cat) -> None:
    supervisor, inference = psutil.Process(mesh.pid), server_process(mesh, "inference")
    inference.suspend()
    ready = (mesh.data / "up.log").read_text().count("inference is ready")
    seen = []
    once = FlowSource(name="once.mlab", yaml=classify.yaml.replace("params:", "retries: 0\n      params:"))
    try:
        async for event in door.flows.run(once, cat, timeout=60):
            seen.append(event)
            if event.node_id == "classify" and event.node_started.attempt == 1:
                # The supervisor would start another one at once, which could save the agent's try.
                supervisor.suspend()
                inference.kill()
    finally:
        supervisor.resume()
    assert kinds(seen)[-1] == "execution_finished"
    assert "classify" in seen[-1].execution_finished.error.message
    (failure,) = [event.node_failed for event in seen if event.HasField("node_failed")]
    assert type(MeshError.from_status(failure.error)) is Unavailable
    assert "mediamesh.image-classifier" in failure.error.message
    await _ready_again(mesh, "inference", ready)
    after = [event async for event in door.flows.run(classify, a_cat(), timeout=60)]
    assert not after[-1].execution_finished.HasField("error"), after[-1]


async def _ready_again(mesh, name: str, times: int) -> None:
    """Wait until the supervisor has said once more than so many times that the server is ready."""
    async with asyncio.timeout(30):
        while (mesh.data / "up.log").read_text().count(f"{name} is ready") <= times:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


async def test_two_hundred_runs_sixteen_at_a_time_all_succeed_in_flat_memory(mesh, door, classify) -> None:
    async def runs(number: int) -> None:
        gate = asyncio.Semaphore(16)

        async def one() -> None:
            async with gate:
                events = [event async for event in door.flows.run(classify, a_cat(), timeout=60)]
                assert not events[-1].execution_finished.HasField("error"), events[-1]

        async with asyncio.TaskGroup() as group:
            for _ in range(number):
                group.create_task(one())

    def resident_mb() -> dict[str, float]:
        names = ("media", "agents", "inference", "orchestrator")
        return {name: server_process(mesh, name).memory_info().rss / 1e6 for name in names}

    await runs(100)
    before = resident_mb()
    await runs(200)
    after = resident_mb()
    # What a leak of one photo (39 kB) or one tensor (602 kB) a run would add is 8 and 120 MB.
    assert {name: after[name] - before[name] for name in before if after[name] - before[name] > 25} == {}


async def test_a_client_that_leaves_cancels_its_run(mesh, door, classify, cat) -> None:
    execution_id = ""
    frozen = server_process(mesh, "inference")
    frozen.suspend()
    try:
        async with Mesh(mesh.door) as leaving:
            async for event in leaving.flows.run(classify, cat, timeout=60):
                execution_id = event.execution_id
                if event.node_id == "classify" and event.HasField("node_started"):
                    break
        seen = [event async for event in door.flows.watch(execution_id)]
    finally:
        frozen.resume()
    assert kinds(seen)[-1] == "execution_finished"
    assert (await door.flows.get(execution_id)).state == 4


async def test_nothing_runs_on_after_its_deadline(mesh, door, classify, cat) -> None:
    frozen = server_process(mesh, "inference")
    frozen.suspend()
    execution_id = ""
    try:
        for seconds in (3.0, 12.0, 48.0):  # a machine may be too slow to begin in the first
            # Whether the last event or the status of the call says it first is a race; both say the same.
            with pytest.raises(DeadlineExceeded):
                async for event in door.flows.run(classify, cat, timeout=seconds):
                    execution_id = event.execution_id
                    if event.HasField("execution_finished"):
                        raise MeshError.from_status(event.execution_finished.error)
            if execution_id:
                break
    finally:
        frozen.resume()
    seen = [event async for event in door.flows.watch(execution_id)]
    assert seen[-1].execution_finished.error.code == 4


def test_no_child_of_the_mesh_is_a_zombie(mesh) -> None:
    states = [process.status() for process in psutil.Process(mesh.pid).children(recursive=True)]
    assert psutil.STATUS_ZOMBIE not in states
