"""``mediamesh stream list``: which streams there are, come and go."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mediamesh.api.stream.v1.stream_pb2 import Stream, StreamState
from mediamesh.cli.door import Server, complete, target
from mediamesh.cli.results import clean
from mediamesh.client import Mesh
from mediamesh.wire.json import short_name

__all__ = ["list_streams"]

_PAGE = 200


def list_streams(
    *,
    live: Annotated[bool, typer.Option("--live", help="Only those that have not ended.")] = False,
    workspace: Annotated[str, typer.Option(help="Whose streams; `default` when empty.")] = "",
    execution: Annotated[str, typer.Option(help="Only those of this execution.")] = "",
    most: Annotated[int, typer.Option("--most", min=1, help="How many at most, newest first.")] = 50,
    watch: Annotated[bool, typer.Option("--watch", help="Print those that live, and which come and go.")] = False,
    server: Server = "",
    port: Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")] = 8080,
) -> None:
    """List streams, newest first."""
    door = target(server, port)
    if watch:
        complete(_watch(door, workspace, execution))
        return
    table = Table(box=None)
    for heading in ("stream", "state", "events", "from", "type", "opened", "end"):
        table.add_column(heading, no_wrap=heading in {"stream", "opened"})
    for stream in complete(_list(door, workspace, execution, live_only=live, most=most)):
        table.add_row(*map(Text, _row(stream)))
    Console().print(table)


async def _list(door: str, workspace: str, execution: str, *, live_only: bool, most: int) -> list[Stream]:
    found: list[Stream] = []
    token = ""
    async with Mesh(door) as mesh:
        while len(found) < most:
            page = await mesh.streams.list(
                workspace_id=workspace,
                execution_id=execution,
                live_only=live_only,
                page_size=min(_PAGE, most - len(found)),
                page_token=token,
            )
            found += page.streams
            if not (token := page.next_page_token):
                break
    return found


async def _watch(door: str, workspace: str, execution: str) -> None:
    console = Console()
    async with (
        Mesh(door) as mesh,
        aclosing(mesh.streams.watch(workspace_id=workspace, execution_id=execution)) as frames,
    ):
        async for frame in frames:
            kind = frame.WhichOneof("frame") or ""
            stream = getattr(frame, kind).stream
            told = [kind.removeprefix("stream_"), *(part for part in _row(stream) if part)]
            console.print("  ".join(told), highlight=False, markup=False, soft_wrap=True)


def _row(stream: Stream) -> tuple[str, ...]:
    opened = stream.create_time.ToDatetime(tzinfo=UTC).astimezone()
    parts = (
        stream.stream_id,
        short_name(StreamState.DESCRIPTOR, StreamState.Name(stream.state)),
        str(stream.last_sequence),
        ".".join(part for part in (stream.execution_id, stream.node_id, stream.pin_name) if part),
        stream.mime_type,
        f"{opened:%H:%M:%S}",
        stream.end.error.message or stream.end.reason,
    )
    return tuple(map(clean, parts))
