"""The data folder of a mesh: who uses it, its ports, its secrets, its logs."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mediamesh.stack.log import rotate
from mediamesh.stack.ports import GRPC_TWIN, clash, free_ports, is_free

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

__all__ = ["Folder", "FolderInUse"]


class FolderInUse(Exception):
    """Another mesh runs on the folder."""


class Folder:
    """``data/`` by program, ``logs/NAME.log``, ``secrets/``, and ``ports.json``."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"

    @contextmanager
    def claimed(self) -> Generator[None]:
        """Make the folder and hold it for this process; logs of an earlier run are kept as ``NAME.log.1``.

        Raises:
            FolderInUse: another process holds it.
        """
        for part in (self.path, self.logs):
            part.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                lock.seek(0)
                raise FolderInUse(
                    f"{self.path} is in use by pid {lock.read().strip()}; "
                    "stop that mesh, or take another folder by --data or MEDIAMESH_UP_DATA"
                ) from None
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            for log in [*self.logs.glob("*.log"), *self.logs.glob("*.jsonl")]:
                rotate(log)
            yield

    def of(self, name: str) -> Path:
        """Return the folder of one program, made if missing."""
        folder = self.path / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def ports(self, wanted: Mapping[str, Mapping[str, int | None]]) -> dict[str, dict[str, int]]:
        """Return the ports of every program by label: the one wanted, else that of the run before, else a free one.

        ``ports.json`` has them. They stay the same from run to run as long as they are free, so that what looks at them
        finds them again.
        """
        file = self.path / "ports.json"
        before = _ports_in(file)
        taken = {port for labels in wanted.values() for port in labels.values() if port}
        found: dict[str, dict[str, int]] = {}
        for name, labels in wanted.items():
            found[name] = {}
            for label, port in labels.items():
                found[name][label] = port or _usable(before.get(name, {}).get(label, 0), taken)
                taken.add(found[name][label])
        # A disk that is full, or a machine that stops, must not leave half of it.
        draft = file.with_suffix(".new")
        draft.write_text(json.dumps(found, indent=1))
        draft.replace(file)
        return found

    def s3_keys(self) -> tuple[str, str]:
        """Return access key and secret key of the S3 store, made at the first start and readable by the owner only."""
        folder = self.path / "secrets"
        folder.mkdir(mode=0o700, exist_ok=True)
        file = folder / "s3.json"
        if not file.exists():
            keys = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_urlsafe(30)}
            draft = file.with_suffix(".new")
            draft.unlink(missing_ok=True)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:  # noqa: PTH123 - by descriptor
                json.dump(keys, out)
            draft.replace(file)
        known = json.loads(file.read_text())
        return known["access_key"], known["secret_key"]


def _ports_in(file: Path) -> dict[str, dict[str, int]]:
    """Return the ports of the run before; none where they cannot be read, as other ports do too."""
    try:
        ports: dict[str, dict[str, int]] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return ports


def _usable(port: int, taken: Collection[int]) -> int:
    """Return the port if it can be used, else another one."""
    if port and not clash(port, taken) and is_free(port) and is_free(port + GRPC_TWIN):
        return port
    return free_ports(1, taken)[0]
