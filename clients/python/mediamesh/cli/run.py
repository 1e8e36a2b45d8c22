"""``mediamesh run``: runs a flow and shows it while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live

from mediamesh.api.flow.v1 import execution_pb2, flow_pb2
from mediamesh.cli import inputs
from mediamesh.cli.door import Server, complete, target
from mediamesh.cli.view import RunView, line
from mediamesh.client import Mesh
from mediamesh.client.flow_files import read_flow_source
from mediamesh.wire.errors import InvalidFlow, MeshError
from mediamesh.wire.json import to_json

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
    from mediamesh.api.flow.v1.flow_pb2 import FlowIssue

__all__ = ["checked", "print_lines", "run", "show", "source"]


def run(
    flow: Annotated[Path, typer.Argument(help="The .mlab file.")],
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="A value for an input, node.pin=VALUE; a path for media. May be repeated."),
    ] = None,
    *,
    server: Server = "",
    port: Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")] = 8080,
    workspace: Annotated[str, typer.Option(help="Workspace that the run belongs to.")] = "default",
    timeout: Annotated[float, typer.Option(help="Longest time the run may take, in seconds.")] = 3600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one line of JSON.")] = False,
) -> None:
    """Run a flow and stream its events; exit 0 only if it succeeded."""
    state = complete(
        _run(flow, given or [], target(server, port), workspace=workspace, timeout=timeout, as_json=as_json)
    )
    raise typer.Exit(0 if state == execution_pb2.EXECUTION_STATE_SUCCEEDED else 1)


async def _run(
    path: Path, given: Sequence[str], door: str, *, workspace: str, timeout: float, as_json: bool
) -> execution_pb2.ExecutionState.ValueType:
    texts, text = inputs.read(given), source(path)
    view = RunView()
    async with Mesh(door) as mesh:
        flow = await checked(mesh, text)
        values = await inputs.values(texts, flow, mesh.media, workspace_id=workspace, progress=view.uploaded)
        events = mesh.flows.run(text, values, workspace_id=workspace, timeout=timeout)
        if as_json:
            return await print_lines(events)
        return await show(events, view)


def source(path: Path) -> flow_pb2.FlowSource:
    """Read a flow from a file, with the flows that it names.

    Raises:
        InvalidRequest: there is no such file, or it is not UTF-8.
    """
    return read_flow_source(path)


async def checked(mesh: Mesh, text: flow_pb2.FlowSource) -> flow_pb2.Flow:
    """Return the flow as the mesh reads it.

    Raises:
        InvalidFlow: it has mistakes; each is a line of the text.
    """
    answer = await mesh.flows.validate(text)
    if answer.issues:
        raise InvalidFlow("the flow cannot run.\n" + "\n".join(map(_issue_line, answer.issues)))
    return answer.flow


def _issue_line(issue: FlowIssue) -> str:
    return f"{issue.file}:{issue.line}:{issue.column}: {issue.message}"


async def print_lines(events: AsyncIterator[ExecutionEvent]) -> execution_pb2.ExecutionState.ValueType:
    """Print every event of a run as a line of JSON; return how the run ended."""
    state = execution_pb2.EXECUTION_STATE_UNSPECIFIED
    async for event in events:
        sys.stdout.write(to_json(event) + "\n")
        sys.stdout.flush()
        if event.HasField("execution_finished"):
            state = event.execution_finished.state
    return state


async def show(events: AsyncIterator[ExecutionEvent], view: RunView) -> execution_pb2.ExecutionState.ValueType:
    """Draw a run while its events come, then its results; return how it ended.

    Raises:
        MeshError: what the run failed for.
    """
    console = Console()
    follow = _redraw if console.is_terminal else _print_plain
    finished = await follow(console, events, view)
    console.print(view.results())
    if finished.HasField("error"):
        raise MeshError.from_status(finished.error)
    console.print(f"Done in {finished.duration.ToMilliseconds()} ms.")
    return finished.state


async def _redraw(
    console: Console, events: AsyncIterator[ExecutionEvent], view: RunView
) -> execution_pb2.ExecutionFinished:
    """Draw the nodes in place while they run."""
    finished = execution_pb2.ExecutionFinished()
    with Live(view, console=console, refresh_per_second=20):
        async for event in events:
            view.see(event)
            finished = event.execution_finished
    return finished


async def _print_plain(
    console: Console, events: AsyncIterator[ExecutionEvent], view: RunView
) -> execution_pb2.ExecutionFinished:
    """Print a line for each event: what a pipe or a log can take."""
    finished = execution_pb2.ExecutionFinished()
    async for event in events:
        view.see(event)
        console.print(line(event), highlight=False, markup=False, soft_wrap=True)
        finished = event.execution_finished
    return finished
