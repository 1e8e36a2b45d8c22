"""Orchestrators are killed in mid-run, behind the door, while callers and watchers follow."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.media.v1 import media_service_pb2_grpc
from mediamesh.client import Mesh
from mediamesh.kit.serve import Part as ServedPart
from mediamesh.kit.serve import serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.stack.envoy import Door, envoy
from mediamesh.stack.ports import free_ports
from mediamesh.stack.probes import grpc_serving
from mediamesh.stack.programs import Program, valkey
from mediamesh.stack.settings import UpSettings
from tests.chaos.cluster import Part
from tests.chaos.waiting import until
from tests.orchestrator.conftest import serving_agents
from tests.orchestrator.fake_agents import Agents
from tests.orchestrator.fake_media import FakeMedia
from tests.orchestrator.flow_texts import HELD

pytestmark = [pytest.mark.stack, pytest.mark.timeout(120)]

RUNS, CALLERS = 6, 4
SUCCEEDED = execution_pb2.EXECUTION_STATE_SUCCEEDED


@dataclass
class Flows:
    """What the scenario breaks, and where its client knocks."""

    agents: Agents
    replicas: list[Part]
    door: str


@asynccontextmanager
async def flows_up(folder: Path):
    """Run Valkey, two orchestrators and Envoy as processes, and agents here."""
    names = ("valkey", "door", "admin", "orchestrator-0", "orchestrator-1")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    agents, media = (
        Agents(),
        ServedPart(
            services=["mediamesh.api.media.v1.MediaService"],
            register=lambda server: media_service_pb2_grpc.add_MediaServiceServicer_to_server(FakeMedia(), server),
        ),
    )
    async with AsyncExitStack() as stack:
        agents_address = await stack.enter_async_context(serving_agents(agents))
        media_port = await stack.enter_async_context(serving(ServerSettings(grace_seconds=0), media))
        settings = {
            "host": "127.0.0.1",
            "valkey_url": f"redis://127.0.0.1:{ports['valkey']}/0",
            "media_address": f"127.0.0.1:{media_port}",
            "agent_addresses": json.dumps([agents_address]),
            "lease_seconds": 5,  # a server that stands still for two seconds keeps what it runs
        }
        store = Part(valkey(port=ports["valkey"], data=folder), folder)
        replicas = [Part(orchestrator(name, ports[name], settings), folder) for name in names[3:]]
        front = Part(envoy(door_of(folder, ports)), folder)
        for part in (store, *replicas, front):
            stack.push_async_callback(part.close)
        await store.start()
        await asyncio.gather(*(part.start() for part in (*replicas, front)))
        yield Flows(agents, replicas, f"127.0.0.1:{ports['door']}")


def orchestrator(name, port, settings):
    variables = {"port": port, **settings}
    return Program(
        name=name,
        argv=[sys.executable, "-m", "mediamesh.orchestrator"],
        probe=partial(grpc_serving, f"127.0.0.1:{port}"),
        env={f"MEDIAMESH_ORCHESTRATOR_{key.upper()}": str(value) for key, value in variables.items()},
        ready_seconds=60,
        stop_seconds=20,
    )


def door_of(folder, ports):
    return Door(
        host="127.0.0.1",
        port=ports["door"],
        admin_port=ports["admin"],
        servers={"orchestrator": [("127.0.0.1", ports[name]) for name in ("orchestrator-0", "orchestrator-1")]},
        template=UpSettings().envoy_template,
        folder=folder / "envoy",
        access_log=folder / "access.jsonl",
        web=folder / "no-web",
    )


async def over_grpc(mesh, run):
    return [(event.sequence, event.WhichOneof("event")) async for event in mesh.flows.watch(run) if event.sequence]


async def over_sse(door, run):
    """Follow a run as a browser does, which reads on after the last id when its connection breaks off."""
    seen = list[tuple[int, str]]()
    async with httpx.AsyncClient(base_url=f"http://{door}", timeout=30) as client:
        while True:
            last = {"last-event-id": str(seen[-1][0])} if seen else {}
            try:
                async with client.stream("GET", f"/v1/executions/{run}/events", headers=last) as response:
                    if await sse_ended(response, seen):
                        return seen
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)  # a browser's pause before it connects again


async def sse_ended(response, seen):
    number, kind = 0, ""
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        match name:
            case "id":
                number = int(value)
            case "event":
                kind = value
            case "" if kind == "done":
                return True
            case "" if number:
                seen.append((number, kind))
                number, kind = 0, ""
    return False


async def called(mesh, ids):
    """Run a flow as a caller that stays on the line, and return what it was told."""
    events = list[tuple[int, str | None]]()
    async for event in mesh.flows.run(HELD):
        if not events:
            ids.append(event.execution_id)
        if event.sequence:
            events.append((event.sequence, event.WhichOneof("event")))
    return events


async def test_runs_survive_the_death_of_each_orchestrator(tmp_path) -> None:
    async with flows_up(tmp_path) as flows, Mesh(flows.door) as mesh, asyncio.TaskGroup() as group:
        agents, called_ids = flows.agents, list[str]()
        callers = [group.create_task(called(mesh, called_ids)) for _ in range(CALLERS)]
        started = [(await mesh.flows.start(HELD)).execution_id for _ in range(RUNS)]
        watchers = {
            run: (group.create_task(over_grpc(mesh, run)), group.create_task(over_sse(flows.door, run)))
            for run in started
        }
        await until(lambda: len(set(called_ids)) == CALLERS and len(tries_of(agents, "hold")) == RUNS + CALLERS)
        for run in [*started, *called_ids]:
            await until_finished(mesh, run, {"echo", "make"})
        for replica in flows.replicas:
            before = all_tries(agents)
            await replica.kill()
            # What it ran is running again at the other, and what that one ran goes on.
            await until_tried_again(agents, before)
            await until_all_run(agents, [*started, *called_ids])
            await replica.start()
        agents.release.set()
        told = [await caller for caller in callers]
        for run, (grpc, sse) in watchers.items():
            assert no_gap(await grpc) == no_gap(await sse)
            execution = await mesh.flows.get(run)
            assert (execution.state, execution.last_sequence) == (SUCCEEDED, len(grpc.result()))
    for events in told:
        no_gap(events)
    for run in [*started, *called_ids]:
        assert [agents.tries[run, node] for node in ("echo", "make", "count")] == [[1], [1], [1]]
        assert agents.tries[run, "hold"] == list(range(1, len(agents.tries[run, "hold"]) + 1))


def tries_of(agents, node):
    return [tries for (_, name), tries in agents.tries.items() if name == node]


async def until_finished(mesh, run, nodes):
    left = set(nodes)
    async with aclosing(mesh.flows.watch(run)) as events:
        async for event in events:
            left -= {event.node_id} if event.HasField("node_finished") else set()
            if not left:
                return


def all_tries(agents):
    return sum(map(len, tries_of(agents, "hold")))


async def until_tried_again(agents, before):
    await until(lambda: all_tries(agents) > before)


async def until_all_run(agents, runs):
    await until(lambda: all(agents.running[run] >= 1 for run in runs))


def no_gap(events):
    assert [sequence for sequence, _ in events] == list(range(1, len(events) + 1))
    assert [kind for _, kind in events].count("execution_finished") == 1
    assert events[-1][1] == "execution_finished"
    return events
