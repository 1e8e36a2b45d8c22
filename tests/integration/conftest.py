"""The whole mesh, as a user starts it, once for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.flow.v1.flow_pb2 import FlowSource
from mediamesh.api.media.v1.media_pb2 import MEDIA_TYPE_IMAGE, MediaValue
from mediamesh.client import Mesh

EXAMPLES = Path(__file__).resolve().parents[2] / "clients" / "examples"
CLASSIFY = EXAMPLES / "flows" / "classify.mlab"
CAT = EXAMPLES / "media" / "cat.jpg"


@pytest.fixture
def classify() -> FlowSource:
    """Return the flow that names what a photo shows."""
    return FlowSource(name=CLASSIFY.name, yaml=CLASSIFY.read_text())


@pytest.fixture
def cat() -> dict[str, Value]:
    """Return a photo of a cat, as that flow's input."""
    return {"upload.file": Value(media=MediaValue(type=MEDIA_TYPE_IMAGE, inline=CAT.read_bytes()))}


@pytest.fixture(scope="session")
async def door(mesh):
    """Return a client at the door of the running mesh."""
    async with Mesh(mesh.door) as client:
        yield client


def server_process(mesh, name: str) -> psutil.Process:
    """Return the process of one of the mesh's servers."""
    (found,) = [
        process
        for process in psutil.Process(mesh.pid).children(recursive=True)
        if f"mediamesh.{name}" in process.cmdline()
    ]
    return found
