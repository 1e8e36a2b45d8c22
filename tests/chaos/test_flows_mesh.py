"""Parts of a whole mesh are killed in the middle of a run: it finishes, or fails with a reason, once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import psutil
import pytest

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.execution_pb2 import EXECUTION_STATE_FAILED, EXECUTION_STATE_SUCCEEDED
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_VIDEO, MediaValue
from mediamesh.cli.demo import mesh_up
from mediamesh.client import Mesh
from mediamesh.wire.errors import MeshError

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

FLOW = """
apiVersion: v1beta1
kind: Flow
meta: {id: watched}
graph:
  nodes:
    - {id: upload, type: ui.file-upload}
    - {id: analyze, type: mediamesh.video-analyzer, params: {max_fps: 10}}
    - {id: combine, type: mediamesh.multimodal-aggregator}
    - {id: show, type: ui.stream-viewer}
  edges:
    - {from: upload.file, to: analyze.video}
    - {from: analyze.analysis_stream, to: combine.video_stream}
    - {from: combine.combined_stream, to: show.input}
"""
SOURCE = FlowSource(name="watched.mlab", yaml=FLOW)
_CHUNKS_BEFORE = 5


@pytest.fixture(scope="module")
def replicated(tmp_path_factory, model_store):
    """Return a mesh with two replicas of what can have some."""
    model_store.pull(model_store.manifest.choose(["nanodet_int8", "video_samples"]))
    settings = {
        "MEDIAMESH_UP_MODELS": '["nanodet_int8"]',
        "MEDIAMESH_UP_ORCHESTRATOR_REPLICAS": "2",
        "MEDIAMESH_UP_AGENT_REPLICAS": "2",
        "MEDIAMESH_UP_STREAM_REPLICAS": "2",
        "MEDIAMESH_ORCHESTRATOR_LEASE_SECONDS": "2",
        "MEDIAMESH_MODELS_CACHE": str(model_store.cache.root),
    }
    with mesh_up(tmp_path_factory.mktemp("mesh"), **settings) as running_mesh:
        yield running_mesh


@pytest.fixture
def film(model_store):
    """Return ten seconds of a street as the flow's input."""
    data = (model_store.files("video_samples") / "bikes.mp4").read_bytes()
    return {"upload.file": Value(media=MediaValue(type=MEDIA_TYPE_VIDEO, inline=data))}


def processes(mesh, name):
    """Return all processes of a part; of our servers each has its wrapper and itself."""
    return [
        process
        for process in psutil.Process(mesh.pid).children(recursive=True)
        if f"mediamesh.{name}" in process.cmdline()
    ]


async def follow(client, execution_id, on_chunk):
    """Return all events of a run; calls once when some chunks were shown."""
    events, chunks = [], 0
    async with asyncio.timeout(120), aclosing(client.flows.watch(execution_id)) as watched:
        async for event in watched:
            if event.HasField("heartbeat"):
                continue
            events.append(event)
            if event.HasField("node_chunk") and event.node_id == "analyze":
                chunks += 1
                if chunks == _CHUNKS_BEFORE:
                    await on_chunk()
    return events


def check(events) -> None:
    """Check that a history has no gap, nothing twice, and one end with a reason if it failed."""
    sequences = [event.sequence for event in events]
    assert sequences == list(range(1, len(events) + 1))
    ends = [event.execution_finished for event in events if event.HasField("execution_finished")]
    assert len(ends) == 1
    assert events[-1].HasField("execution_finished")
    assert ends[0].state in {EXECUTION_STATE_SUCCEEDED, EXECUTION_STATE_FAILED}
    assert ends[0].state == EXECUTION_STATE_SUCCEEDED or ends[0].error.message


async def recovered(client, film) -> None:
    """Check that a new run succeeds, as soon as what was killed is back."""
    async with asyncio.timeout(60):
        while True:
            try:
                events = [event async for event in client.flows.run(SOURCE, film, timeout=60)]
            except MeshError:
                await asyncio.sleep(0.5)
                continue
            if events[-1].execution_finished.state == EXECUTION_STATE_SUCCEEDED:
                return


@pytest.mark.parametrize("part", ["orchestrator", "agents", "inference", "streams", "media"])
async def test_a_part_that_is_killed_ends_a_run_once(replicated, film, part) -> None:
    async with Mesh(replicated.door) as client:
        execution = await client.flows.start(SOURCE, film, timeout=120)

        async def kill() -> None:
            for process in processes(replicated, part):
                process.kill()

        events = await follow(client, execution.execution_id, kill)
        check(events)
        # Whoever asks later is told the same.
        assert [event async for event in client.flows.watch(execution.execution_id)] == events
        if part in {"orchestrator", "streams"}:
            assert events[-1].execution_finished.state == EXECUTION_STATE_SUCCEEDED
        await recovered(client, film)
