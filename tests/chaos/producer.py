"""A producer as a program of its own, to be killed: publishes until it is, and notes each step in a file.

``python -m tests.chaos.producer DOOR STREAM TOKEN PRODUCER EPOCH FILE``
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from mediamesh.client import Mesh
from mediamesh.wire.errors import MeshError
from tests.chaos.history import History
from tests.chaos.producers import Producing

_PAUSE_SECONDS = 0.01


class _Notes(History):
    """A history that is written down at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", buffering=1)

    def add(self, kind: str, stream_id: str, client: str, **fields: object) -> None:
        super().add(kind, stream_id, client, **fields)
        self._file.write(json.dumps(self.records.pop()) + "\n")


async def _main(door: str, stream_id: str, token: str, producer_id: str, epoch: str, path: str) -> None:
    notes = _Notes(Path(path))
    async with Mesh(door) as mesh:
        try:
            async with mesh.streams.publish(stream_id, token, producer_id=producer_id, epoch=int(epoch)) as publisher:
                producing = Producing(notes, publisher, producer_id)
                if not publisher.last_sequence:
                    await producing.start()
                while True:
                    await producing.send(f"{producer_id} after {publisher.last_sequence}")
                    await asyncio.sleep(_PAUSE_SECONDS)
                    producing.acknowledged()
        except MeshError as error:
            sys.stdout.write(f"{type(error).__name__}: {error.text} {error.metadata}\n")


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
