"""The base class of agents."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mediamesh.agent.manifest import load_manifest

if TYPE_CHECKING:
    from mediamesh.agent.output import Output
    from mediamesh.agent.run import Run
    from mediamesh.api.agent.v1.manifest_pb2 import Manifest

__all__ = ["Agent"]


class Agent(ABC):
    """What every agent derives from; one object serves all runs, any number of them at once.

    Attributes:
        manifest_file: The manifest, beside the module of the class.
    """

    manifest_file: ClassVar[str] = "manifest.yaml"

    def describe(self) -> Manifest:
        """Read the manifest; called once, before the first run.

        Raises:
            InvalidManifest: the file is missing or wrong; each line names the place in it.
        """
        return load_manifest(Path(inspect.getfile(type(self))).resolve().with_name(self.manifest_file))

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Surround the life of the server, for what an agent opens once: override to open before and close after."""
        yield

    @abstractmethod
    async def process(self, run: Run) -> Mapping[str, Output] | None:
        """Do the work of one run and return its outputs by pin.

        A cancelled run raises ``asyncio.CancelledError`` in here. A class of mediamesh.wire.errors reaches the caller
        as it is; everything else becomes AgentFailed.
        """
