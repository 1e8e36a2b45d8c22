"""``mediamesh stream publish``: standard input or a file becomes a stream."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from mediamesh.api.stream.v1.stream_pb2 import StreamMetadata
from mediamesh.cli.chunks import PIECE_BYTES, FilePieces, lines
from mediamesh.cli.door import Server, complete, target
from mediamesh.client import Mesh
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from mediamesh.client import Publisher

__all__ = ["publish"]


def publish(
    *,
    file: Annotated[
        Path | None, typer.Option(help="A file to send in pieces of 64 KiB; the lines of standard input when empty.")
    ] = None,
    stream: Annotated[str, typer.Option(help="A stream that is open already; needs --token.")] = "",
    token: Annotated[str, typer.Option(help="The publish token of that stream.")] = "",
    workspace: Annotated[str, typer.Option(help="Workspace of a new stream.")] = "",
    execution: Annotated[str, typer.Option(help="Execution that a new stream belongs to.")] = "",
    mime_type: Annotated[str, typer.Option(help="Media type; guessed from the name of a file.")] = "",
    server: Server = "",
    port: Annotated[int, typer.Option(envvar="MEDIAMESH_PORT", help="Port of the door on this machine.")] = 8080,
) -> None:
    """Publish standard input or a file, through breaks of the connection; exit 0 when all of it is stored.

    Prints the id of a new stream; its address and its token are told on standard error. With --stream and --token, a
    file goes on where an earlier try left it.
    """
    if bool(stream) != bool(token):
        raise typer.BadParameter("--stream and --token go together")
    complete(
        _publish(
            target(server, port),
            stream,
            token,
            file=file,
            workspace=workspace,
            execution=execution,
            mime_type=mime_type,
        )
    )


async def _publish(
    door: str, stream_id: str, token: str, *, file: Path | None, workspace: str, execution: str, mime_type: str
) -> None:
    pieces = FilePieces.of(file, mime_type) if file is not None else None
    known = pieces.mime_type if pieces else mime_type or "text/plain"
    async with Mesh(door) as mesh:
        if not stream_id:
            opened = await mesh.streams.open(workspace_id=workspace, execution_id=execution, mime_type=known)
            stream_id, token = opened.stream_id, opened.publish_token
            sys.stdout.write(f"{stream_id}\n")
            sys.stdout.flush()
            _note(f"url {opened.ws_url}\ntoken {token}")
        async with mesh.streams.publish(stream_id, token) as publisher:
            # The start is event 1, and the first piece event 2.
            done = max(0, publisher.last_sequence - 1)
            if not publisher.last_sequence:
                await publisher.start(StreamMetadata(mime_type=known, total_chunks=pieces.count if pieces else 0))
            if pieces:
                await _send_file(publisher, pieces, done)
            else:
                await _send_lines(publisher)
            last = await publisher.end()
    _note(f"Stored {last} events of stream {stream_id}.")


def _note(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, markup=False, soft_wrap=True)


async def _send_file(publisher: Publisher, pieces: FilePieces, done: int) -> None:
    if done > pieces.count:
        raise InvalidRequest.of_field(
            "--stream",
            f"has {done} chunks already, and {pieces.path} makes {pieces.count}",
            stream_id=publisher.stream_id,
        )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(pieces.path.name, total=pieces.size, completed=done * PIECE_BYTES)
        for chunk in pieces.chunks(done):
            await publisher.send(chunk, StreamMetadata(mime_type=pieces.mime_type))
            progress.advance(task, len(chunk.media.binary))
        await publisher.flush()


async def _send_lines(publisher: Publisher) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TextColumn("{task.completed} chunks"))
    # What is typed at a terminal must not be drawn over.
    is_quiet = not console.is_terminal or sys.stdin.isatty()
    with Progress(*columns, console=console, disable=is_quiet) as progress:
        task = progress.add_task("publishing", total=None)
        async for chunk in lines(sys.stdin.buffer):
            await publisher.send(chunk)
            progress.advance(task)
        await publisher.flush()
