"""``mediamesh demo``: from nothing to what is in a real photo, a recording and a video; one picture is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mediamesh.cli.door import errors_as_sentences
from mediamesh.cli.up import require_parts
from mediamesh.client import Mesh
from mediamesh.wire.errors import MeshError
from mediamesh.wire.shipped import shipped

__all__ = ["MeshProcess", "demo", "mesh_up"]

EXAMPLES = shipped("clients/examples")
_READY_SECONDS = 90.0
_STOP_SECONDS = 30.0
_SAMPLES = ("speech_samples", "video_samples")


@dataclass(frozen=True, slots=True)
class MeshProcess:
    """A mesh that runs as ``mediamesh up``.

    Attributes:
        door: ``host:port`` that it listens on.
        data: Where it keeps everything.
        pid: The supervisor's process.
    """

    door: str
    data: Path
    pid: int


@dataclass(frozen=True, slots=True)
class _Samples:
    """Real media for the flows.

    Attributes:
        photo: A photo, which ships.
        speech: A recording; None when it cannot be had.
        video: A video, likewise.
    """

    photo: Path
    speech: Path | None
    video: Path | None


def demo(
    photo: Annotated[Path, typer.Option(help="The photo to look at.")] = EXAMPLES / "media" / "cat.jpg",
    speech: Annotated[Path | None, typer.Option(help="A recording of English speech; a sample by default.")] = None,
    video: Annotated[Path | None, typer.Option(help="A video; a sample by default.")] = None,
    picture: Annotated[Path, typer.Option(help="Where the picture of what was found goes.")] = Path(
        ".mediamesh/demo.png"
    ),
) -> None:
    """Start the mesh, run the shipped flows on a photo, a recording and a video, draw what was found, stop the mesh."""
    require_parts()
    # Only here: a client can do without all that a mesh is made of.
    from mediamesh.kit.settings import SettingsError  # noqa: PLC0415

    with errors_as_sentences():
        try:
            is_well = _shown(_samples(photo, speech, video), picture)
        except (OSError, RuntimeError, SettingsError) as error:
            typer.echo(error, err=True)
            is_well = False
    raise typer.Exit(0 if is_well else 1)


def _shown(media: _Samples, picture: Path) -> bool:
    """Run the flows on a mesh of their own; return whether all went well."""
    console = Console()
    failed = False
    with tempfile.TemporaryDirectory(prefix="mediamesh-demo-") as data:
        begin = time.monotonic()
        with mesh_up(Path(data)) as mesh:
            console.print(f"The mesh is up at {mesh.door} ({time.monotonic() - begin:.1f} s).", highlight=False)
            for flow, given in _runs(media):
                command = ["run", str(EXAMPLES / "flows" / flow), "--server", mesh.door]
                command += [word for pin, path in given.items() for word in ("--input", f"{pin}={path}")]
                console.print(
                    "\n$ mediamesh " + " ".join(command), style="bold", soft_wrap=True, highlight=False, markup=False
                )
                done = subprocess.run([sys.executable, "-m", "mediamesh.cli.main", *command], check=False)
                failed = failed or done.returncode != 0
            if media.video is not None and not failed:
                asyncio.run(_draw(mesh.door, media.photo, media.video, picture))
                console.print(f"\nWhat was found is in {picture}.", highlight=False, markup=False)
        console.print("The mesh is down.")
    return not failed


def _samples(photo: Path, speech: Path | None, video: Path | None) -> _Samples:
    """Return the media, having pulled samples and models; without a network what ships is left."""
    # Only here: a client can do without all that a mesh is made of.
    from mediamesh.models.errors import ManifestError  # noqa: PLC0415
    from mediamesh.models.progress import PullProgress  # noqa: PLC0415
    from mediamesh.models.settings import Settings  # noqa: PLC0415
    from mediamesh.models.store import open_store  # noqa: PLC0415
    from mediamesh.stack.settings import UpSettings  # noqa: PLC0415

    names = [*UpSettings.load().models, *_SAMPLES]
    try:
        with PullProgress() as progress, open_store(Settings.load(), progress) as store:
            store.pull(store.manifest.choose(names))
            found = {name: store.files(name) for name in _SAMPLES}
    except (ManifestError, MeshError, OSError) as error:
        typer.echo(f"Without models and samples only the photo is looked at: {error}", err=True)
        return _Samples(photo, None, None)
    return _Samples(
        photo,
        speech or found["speech_samples"] / "beckett.wav",
        video or found["video_samples"] / "bikes.mp4",
    )


def _runs(media: _Samples) -> Iterator[tuple[str, dict[str, Path]]]:
    """Yield the flows that can run, and what goes into each."""
    yield "classify.mlab", {"upload.file": media.photo}
    if media.speech is not None and media.video is not None:
        yield "multimodal-test.mlab", {"audio.file": media.speech}
        yield (
            "showcase.mlab",
            {"photo.file": media.photo, "recorder.audio": media.speech, "video.file": media.video},
        )


async def _draw(door: str, photo: Path, video: Path, picture: Path) -> None:
    """Draw what the newest run of the mesh found."""
    # Only here: a client can do without what draws.
    from mediamesh.cli.sheet import Found, draw  # noqa: PLC0415

    found = Found()
    async with Mesh(door) as mesh:
        newest = (await mesh.flows.list(page_size=1)).executions[0]
        async for event in mesh.flows.watch(newest.execution_id):
            found.add(event)
    drawn = await asyncio.to_thread(draw, found, photo=photo, video=video)
    picture.parent.mkdir(parents=True, exist_ok=True)
    drawn.save(picture)


@contextmanager
def mesh_up(data: Path, **environment: str) -> Generator[MeshProcess]:
    """Run ``mediamesh up`` on a free port as a process of its own; yield it when it is ready.

    It ends with the block, and with the thread that began it.

    Args:
        data: Where it keeps everything, its output in ``up.log`` too.
        environment: Variables on top of this process's own.

    Raises:
        RuntimeError: it ended or was not ready within 90 seconds; the text ends with its last lines.
    """
    # Only here: a client can do without all that a mesh is made of.
    from mediamesh.stack.ports import free_ports  # noqa: PLC0415
    from mediamesh.stack.process import tether  # noqa: PLC0415

    (port,) = free_ports(1)
    log = data / "up.log"
    with log.open("wb") as output:
        up = subprocess.Popen(
            [*tether(), sys.executable, "-m", "mediamesh.cli.main", "up", "--port", str(port), "--data", str(data)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(up, port, log)
        yield MeshProcess(f"127.0.0.1:{port}", data, up.pid)
    finally:
        up.send_signal(signal.SIGTERM)
        try:
            up.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()


def _wait_until_ready(up: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end and up.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    last = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
    raise RuntimeError(f"the mesh did not come up:\n{last}")
