"""``mediamesh runs`` at an orchestrator that runs."""

from __future__ import annotations

import asyncio
import io
import json
import sys

import pytest
from rich.console import Console

from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent, NodeExecution
from mediamesh.cli import runs
from mediamesh.cli.run_tables import run_table, runs_table
from tests.orchestrator.flow_texts import flow

CHAIN = flow(
    "text test.echo, outputs: {text: hello}",
    "echo test.echo",
    "bad test.failing",
    "after test.echo",
    edges="text.text>echo.text bad.text>after.text",
)


async def command(mesh, *arguments):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mediamesh.cli.main", "runs", *arguments, "--server", mesh.address),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


@pytest.mark.stack
async def test_runs_are_listed_shown_and_played_again(mesh) -> None:
    events = [event async for event in mesh.flows.run(CHAIN, workspace_id="commanded")]
    run = events[0].execution_id
    (code, listed, _), (_, shown, _), (played, lines, _) = await asyncio.gather(
        command(mesh, "list", "--workspace", "commanded", "--json"),
        command(mesh, "show", run, "--json"),
        command(mesh, "replay", run, "--speed", "0", "--json"),
    )
    assert (code, played) == (0, 1)
    assert [json.loads(line)["executionId"] for line in listed.splitlines()] == [run]
    assert json.loads(shown)["state"] == "failed"
    assert [json.loads(line)["sequence"] for line in lines.splitlines()] == [event.sequence for event in events]


@pytest.mark.stack
async def test_a_run_is_cancelled_once(mesh, release) -> None:
    run = (await mesh.flows.start(flow("wait test.slow"))).execution_id
    assert await command(mesh, "cancel", run) == (0, f"{run} cancelled\n", "")
    unknown, _, error = await command(mesh, "cancel", "nobody")
    assert (unknown, error) == (1, "Error: There is no execution nobody.\n")


def drawn(table):
    file = io.StringIO()
    Console(file=file, width=160).print(table)
    return file.getvalue()


def test_a_table_of_nodes_tells_when_each_ran_and_what_became_of_it() -> None:
    execution = Execution(
        execution_id="run1",
        state=execution_pb2.EXECUTION_STATE_FAILED,
        flow=flow_pb2.Flow(id="f", nodes=[flow_pb2.FlowNode(id=name, type="t.t") for name in ("a", "b", "c")]),
        takeovers=1,
        last_sequence=9,
    )
    execution.create_time.FromSeconds(100)
    execution.end_time.FromSeconds(110)
    execution.error.message = "The node `a` failed: [red]No.[/red]"
    a = NodeExecution(node_id="a", state=execution_pb2.NODE_STATE_FAILED, attempt=2)
    a.start_time.FromSeconds(105)
    a.end_time.FromSeconds(110)
    a.error.message = "[red]No.[/red]"
    b = NodeExecution(node_id="b", state=execution_pb2.NODE_STATE_SKIPPED)
    b.skipped.cause_node_id = "a"
    c = NodeExecution(node_id="c", state=execution_pb2.NODE_STATE_SUCCEEDED, cached=True, attempt=1)
    c.start_time.FromSeconds(100)
    c.end_time.FromMilliseconds(100_500)
    c.outputs["text"].text = "x"
    execution.nodes.extend([a, b, c])
    head, error, _, *rows = drawn(run_table(execution)).splitlines()
    assert "run1  f  failed" in head
    assert "10.000 s  9 events  taken over once" in head
    assert error.strip() == "The node `a` failed: [red]No.[/red]"
    assert rows[0].split() == [
        "a",
        "t.t",
        "failed",
        "2",
        "+5.000",
        "s",
        "5.000",
        "s",
        "\N{BLACK RECTANGLE}" * 12,
        "[red]No.[/red]",
    ]
    assert rows[1].split() == ["b", "t.t", "skipped", "a", "failed"]
    assert "from the cache, text" in rows[2]
    (_, row) = drawn(runs_table([execution])).splitlines()
    assert "3/3" in row


async def test_a_replay_keeps_the_pace_divided_by_the_speed(monkeypatch) -> None:
    now, slept = [50.0], list[float]()

    async def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(runs, "monotonic", lambda: now[0])
    monkeypatch.setattr("mediamesh.cli.runs.asyncio.sleep", sleep)

    async def events():
        for number, seconds in enumerate((10, 11, 15), 1):
            event = ExecutionEvent(sequence=number)
            event.time.FromSeconds(seconds)
            yield event

    assert [event.sequence async for event in runs.paced(events(), 2)] == [1, 2, 3]
    assert slept == [0, 0.5, 2]
    slept.clear()
    assert len([event async for event in runs.paced(events(), 0)]) == 3
    assert slept == []
