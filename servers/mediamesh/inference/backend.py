"""What a backend makes of a version of a model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
from mediamesh.inference.settings import Settings

if TYPE_CHECKING:
    from mediamesh.inference.scheduling import Scheduler
    from mediamesh.inference.tensors import Signature

__all__ = ["Backend", "Open"]


@dataclass(frozen=True, slots=True)
class Backend:
    """A version of a model in memory.

    Attributes:
        config: Its configuration, complete.
        signature: What it takes and gives.
        scheduler: Runs it.
        providers: What it really runs on.
    """

    config: config_pb.ModelConfig
    signature: Signature
    scheduler: Scheduler
    providers: tuple[str, ...]


# Takes the model's directory, its version, its configuration as read, and the server's settings; raises LoadError.
Open: TypeAlias = Callable[[Path, int, config_pb.ModelConfig, Settings], AbstractAsyncContextManager[Backend]]
