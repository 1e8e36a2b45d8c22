"""A node whose agent allows it answers the same inputs from the cache."""

from __future__ import annotations

import pytest

from mediamesh.api.agent.v1 import manifest_pb2, value_pb2
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinValue, RunResponse
from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.orchestrator.execution.cache import ResultCache
from mediamesh.orchestrator.results import MemoryResults, ValkeyResults
from mediamesh.wire.errors import Unavailable
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow

CACHED = manifest_pb2.Manifest(id="t.t", version="1.0.0", cache=manifest_pb2.CachePolicy(enabled=True))
NODE = flow_pb2.FlowNode(id="a", type="t.t")


def source(word, *, node="a test.cached", rest=""):
    return flow(f"text test.echo, outputs: {{text: {word}}}", f"{node}{rest}", edges="text.text>a.text")


async def events_of(mesh, *arguments, **options):
    return [event async for event in mesh.flows.run(*arguments, **options)]


def of_node(events, *kinds):
    return [event for event in events if event.node_id == "a" and event.WhichOneof("event") in kinds]


def given(events):
    return [
        getattr(event, event.WhichOneof("event")).SerializeToString(deterministic=True)
        for event in of_node(events, "node_output", "node_chunk")
    ]


def was_cached(events):
    (finished,) = of_node(events, "node_finished")
    return finished.node_finished.cached


def image(**reference):
    media = media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, ref=media_pb2.MediaReference(**reference))
    return value_pb2.Value(media=media)


def place(cache, *, manifest: manifest_pb2.Manifest | None = CACHED, node=NODE, **opening):
    return cache.place(manifest, node, OpenRun(agent_id="t.t", **opening))


async def test_the_same_inputs_give_the_same_outputs_without_the_agent(mesh, agents) -> None:
    first = await events_of(mesh, source("again"))
    second = await events_of(mesh, source("again"))
    assert (was_cached(first), was_cached(second)) == (False, True)
    assert given(first) == given(second)
    assert len(given(second)) == 4
    assert (second[0].execution_id, "a") not in agents.tries
    assert (await mesh.flows.get(second[0].execution_id)).nodes[1].cached


async def test_other_inputs_other_parameters_and_other_workspaces_have_results_of_their_own(mesh) -> None:
    await events_of(mesh, source("here"))
    for events in (
        await events_of(mesh, source("there")),
        await events_of(mesh, source("here", rest=", params: {large: 3}")),
        await events_of(mesh, source("here"), workspace_id="elsewhere"),
    ):
        assert not was_cached(events)
    assert was_cached(await events_of(mesh, source("here")))


async def test_a_flow_may_forbid_it_and_another_replica_knows_it_too(mesh, settings) -> None:
    await events_of(mesh, source("shared"))
    assert not was_cached(await events_of(mesh, source("shared", rest=", cache: false")))
    async with orchestrating(settings()) as twin:
        assert was_cached(await events_of(twin, source("shared")))


async def test_what_is_too_large_is_not_kept(settings) -> None:
    async with orchestrating(settings(cache_max_bytes=500)) as mesh:
        large = source("large", rest=", params: {large: 600}")
        await events_of(mesh, large)
        assert not was_cached(await events_of(mesh, large))
    async with orchestrating(settings(cache_max_bytes=0)) as mesh:
        await events_of(mesh, source("unkept"))
        assert not was_cached(await events_of(mesh, source("unkept")))


async def test_a_cache_that_is_away_costs_nothing_but_itself(settings, monkeypatch) -> None:
    async def away(*_):
        raise Unavailable("Away.")

    monkeypatch.setattr(ValkeyResults, "get", away)
    monkeypatch.setattr(ValkeyResults, "put", away)
    async with orchestrating(settings()) as mesh:
        events = await events_of(mesh, source("away"))
    assert events[-1].execution_finished.state == execution_pb2.EXECUTION_STATE_SUCCEEDED


async def test_a_result_whose_media_is_gone_is_made_anew(mesh, monkeypatch) -> None:
    first = await events_of(mesh, source("gone"))
    monkeypatch.setattr("mediamesh.orchestrator.execution.cache._read", lambda _: [_lost()])
    events = await events_of(mesh, source("gone"))
    assert not was_cached(events)
    assert len(given(events)) == len(given(first))


def _lost():
    return RunResponse(output=PinValue(pin="image", value=image(url="s3://media/nowhere", sha256="0" * 64)))


def test_media_count_by_their_bytes_and_not_by_where_they_lie() -> None:
    cache = ResultCache(MemoryResults(), max_bytes=100)
    here = place(cache, inputs={"image": image(url="s3://a", sha256="1" * 64)})
    assert here == place(cache, inputs={"image": image(url="s3://b", sha256="1" * 64)})
    assert here != place(cache, inputs={"image": image(url="s3://a", sha256="2" * 64)})
    assert here is not None
    assert here.key.startswith("mm:proc:t.t:")
    assert here.seconds == 3600
    assert place(cache, inputs={"image": image(url="s3://a")}) is None


def test_only_what_depends_on_values_alone_is_kept() -> None:
    cache = ResultCache(MemoryResults(), max_bytes=100)
    assert place(cache, stream_inputs=["words"]) is None
    assert place(cache, manifest=manifest_pb2.Manifest(id="t.t")) is None
    assert place(cache, manifest=None) is None
    assert place(ResultCache(None, max_bytes=100)) is None
    assert place(cache, node=flow_pb2.FlowNode(type="t.t", cache=False)) is None
    assert (
        place(cache, manifest=manifest_pb2.Manifest(id="t.t"), node=flow_pb2.FlowNode(type="t.t", cache=True)) is None
    )
    newer = manifest_pb2.Manifest(id="t.t", version="1.0.1", cache=CACHED.cache)
    assert place(cache, manifest=newer) != place(cache)


async def test_memory_keeps_what_was_used_last_and_nothing_beyond_its_time() -> None:
    results = MemoryResults(max_bytes=10)
    for key in ("a", "b", "a", "c"):
        await results.put(key, b"1234", 60)
    assert [await results.get(key) for key in ("a", "b", "c")] == [b"1234", None, b"1234"]
    await results.put("d", b"", 0)
    assert await results.get("d") is None


@pytest.fixture
async def valkey_results(valkey_url):
    async with ValkeyResults.open(valkey_url) as results:
        yield results


async def test_valkey_keeps_bytes_for_a_while(valkey_results) -> None:
    await valkey_results.put("mm:proc:test:1", b"\x00\xff", 60)
    assert await valkey_results.get("mm:proc:test:1") == b"\x00\xff"
    assert await valkey_results.get("mm:proc:test:2") is None
    async with ValkeyResults.open("redis://127.0.0.1:1/0") as away:
        with pytest.raises(Unavailable):
            await away.get("x")
