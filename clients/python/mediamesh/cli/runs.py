"""``mediamesh runs``: runs of flows that go on or were: listed, shown, cancelled, played again."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from time import monotonic
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.cli.door import Server, complete, target
from mediamesh.cli.run import print_lines, show
from mediamesh.cli.run_tables import run_table, runs_table
from mediamesh.cli.view import RunView
from mediamesh.client import Mesh
from mediamesh.wire.json import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from mediamesh.api.flow.v1.execution_pb2 import Execution, ExecutionEvent

__all__ = ["paced", "runs"]

_PAGE = 200

Port = Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")]
RunId = Annotated[str, typer.Argument(help="Id of the run, as `mediamesh runs list` shows it.", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]

runs = typer.Typer(help="List runs of flows, show, cancel and replay them.", no_args_is_help=True)


@runs.command("list")
def list_runs(
    *,
    workspace: Annotated[str, typer.Option(help="Whose runs.")] = "default",
    most: Annotated[int, typer.Option("--most", min=1, help="How many at most, newest first.")] = 20,
    as_json: AsJson = False,
    server: Server = "",
    port: Port = 8080,
) -> None:
    """List runs, newest first: those that go on, and those of the last day."""
    found = complete(_list(target(server, port), workspace, most))
    if as_json:
        for execution in found:
            typer.echo(to_json(execution))
    else:
        Console().print(runs_table(found))


@runs.command("show")
def show_run(run: RunId, *, as_json: AsJson = False, server: Server = "", port: Port = 8080) -> None:
    """Show one run: its nodes, when each ran and for how long, and what became of it."""
    execution = complete(_get(target(server, port), run))
    if as_json:
        typer.echo(to_json(execution))
    else:
        Console().print(run_table(execution))


@runs.command()
def cancel(run: RunId, *, server: Server = "", port: Port = 8080) -> None:
    """Cancel a run; exit 0 only if it is cancelled then, and did not end otherwise before."""
    execution = complete(_cancel(target(server, port), run))
    state = execution_pb2.ExecutionState.Name(execution.state).removeprefix("EXECUTION_STATE_").lower()
    typer.echo(f"{execution.execution_id} {state}")
    raise typer.Exit(0 if execution.state == execution_pb2.EXECUTION_STATE_CANCELLED else 1)


@runs.command()
def replay(
    run: RunId,
    *,
    speed: Annotated[
        float, typer.Option(min=0, help="How many times as fast as it was; 0 for all at once, 1 for its own pace.")
    ] = 1.0,
    as_json: AsJson = False,
    server: Server = "",
    port: Port = 8080,
) -> None:
    """Play the events of a run again at their own pace; of one that goes on, the rest follows as it comes."""
    state = complete(_replay(target(server, port), run, speed, as_json=as_json))
    raise typer.Exit(0 if state == execution_pb2.EXECUTION_STATE_SUCCEEDED else 1)


async def _list(door: str, workspace: str, most: int) -> list[Execution]:
    found: list[Execution] = []
    token = ""
    async with Mesh(door) as mesh:
        while len(found) < most:
            page = await mesh.flows.list(
                workspace_id=workspace, page_size=min(_PAGE, most - len(found)), page_token=token
            )
            found += page.executions
            if not (token := page.next_page_token):
                break
    return found


async def _get(door: str, run: str) -> Execution:
    async with Mesh(door) as mesh:
        return await mesh.flows.get(run)


async def _cancel(door: str, run: str) -> Execution:
    async with Mesh(door) as mesh:
        return await mesh.flows.cancel(run)


async def _replay(door: str, run: str, speed: float, *, as_json: bool) -> execution_pb2.ExecutionState.ValueType:
    async with Mesh(door) as mesh, aclosing(mesh.flows.watch(run)) as events:
        played = paced(events, speed)
        return await (print_lines(played) if as_json else show(played, RunView()))


async def paced(events: AsyncIterator[ExecutionEvent], speed: float) -> AsyncGenerator[ExecutionEvent]:
    """Yield events as far apart as they happened, divided by the speed; 0 waits for nothing.

    What is late is not waited for, so that the whole takes as long as the run did, and not longer.
    """
    begin, first = monotonic(), 0
    async for event in events:
        happened = event.time.ToNanoseconds()
        if speed and event.sequence:
            first = first or happened
            await asyncio.sleep(max(0.0, begin + (happened - first) / 1e9 / speed - monotonic()))
        yield event
