"""One loaded version of a model, kept by a task of its own from its loading to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mediamesh.inference.config import LoadError
from mediamesh.inference.loading import in_a_thread
from mediamesh.inference.memory import give_back
from mediamesh.inference.model import Model, loaded
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mediamesh.inference.settings import Settings
    from mediamesh.inference.source import Source

__all__ = ["Held", "hold"]

_LOG = logging.getLogger(__name__)


class Held:
    """A version that is loaded.

    Attributes:
        model: What runs requests.
        identity: Equal to that of another source's version if that would be just the same.
    """

    def __init__(self, model: Model, identity: Hashable, retired: asyncio.Event, keeper: asyncio.Task[None]) -> None:
        self.model = model
        self.identity = identity
        self._retired = retired
        self._keeper = keeper

    async def retire(self) -> None:
        """Let it serve what has begun, then free it; returns when that is done. It cannot be used any more."""
        self._retired.set()
        await asyncio.wait([self._keeper])
        # What refers to the sessions must be gone before the memory is given back.
        del self.model
        await in_a_thread("memory", give_back)


async def hold(tasks: asyncio.TaskGroup, source: Source, version: int, settings: Settings) -> Held:
    """Load a version; it stays until it is retired.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    identity = await asyncio.to_thread(source.identity, version)
    ready: asyncio.Future[Model] = asyncio.get_running_loop().create_future()
    retired = asyncio.Event()
    # The same task enters and leaves the backend's blocks, as a task group in one of them demands.
    keeper = tasks.create_task(_keep(source, version, settings, ready, retired))
    try:
        return Held(await ready, identity, retired, keeper)
    except BaseException:
        keeper.cancel()  # nobody would ever retire it
        raise


async def _keep(
    source: Source, version: int, settings: Settings, ready: asyncio.Future[Model], retired: asyncio.Event
) -> None:
    label = f"{source.directory.name}/{version}"
    with source:
        try:
            async with loaded(source.directory, version, source.config, settings) as model:
                ready.set_result(model)
                await retired.wait()
                if not await model.uses.ended(settings.unload_seconds):
                    _LOG.warning("model %s is unloaded, requests run after %g s", label, settings.unload_seconds)
        except Exception as error:  # noqa: BLE001 - one model's trouble must not end the others
            if ready.done():
                _LOG.exception("model %s could not be unloaded in order", label)
            else:
                ready.set_exception(_load_error(label, error))
        finally:
            if not ready.done():
                ready.cancel()


def _load_error(label: str, error: Exception) -> LoadError:
    if isinstance(error, LoadError):
        return error
    if isinstance(error, MeshError):
        return LoadError(f"Model {label}: {error}")
    _LOG.error("model %s could not be loaded", label, exc_info=error)
    return LoadError(f"Model {label} could not be loaded; the server's log has the cause: {type(error).__name__}.")
