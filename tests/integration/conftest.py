"""The whole mesh, as a user starts it, once for all tests of this folder."""

from __future__ import annotations

import uuid
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
    return a_cat()


def a_cat() -> dict[str, Value]:
    """Return the same photo in bytes that no cache has seen: with a comment of its own at the begin."""
    jpeg, note = CAT.read_bytes(), uuid.uuid4().bytes
    unseen = jpeg[:2] + b"\xff\xfe" + (len(note) + 2).to_bytes(2, "big") + note + jpeg[2:]
    return {"upload.file": Value(media=MediaValue(type=MEDIA_TYPE_IMAGE, inline=unseen))}


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
