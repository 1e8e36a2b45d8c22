"""One loaded version of a model, kept by a task of its own from its loading to its end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.model import Model, loaded
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Hashable

    from mediamesh.inference.repository.source import Source
    from mediamesh.inference.settings import Settings

__all__ = ["Held", "hold"]

_LOG = logging.getLogger(__name__)
# A sequence may end by its last request or by idleness; who waits for that looks now and then.
_LOOK_SECONDS = 0.02


class Held:
    """A version that is loaded.

    Attributes:
        model: What runs requests.
        identity: Equal to that of another source's version if that would be just the same.
    """

    def __init__(
        self, model: Model, identity: Hashable, retired: asyncio.Future[bool], keeper: asyncio.Task[None]
    ) -> None:
        self.model = model
        self.identity = identity
        self._retired = retired
        self._keeper = keeper

    async def retire(self, *, replaced: bool = False) -> None:
        """Let it serve what has begun, then free it; returns when that is done. It cannot be used any more.

        Args:
            replaced: Requests find another in its place; sequences that are in progress here go on here.
        """
        if not self._retired.done():
            self._retired.set_result(replaced)
        await asyncio.wait([self._keeper])
        del self.model  # which refers to the sessions


async def hold(tasks: asyncio.TaskGroup, source: Source, version: int, settings: Settings) -> Held:
    """Load a version; it stays until it is retired.

    Raises:
        LoadError: it cannot be loaded; names the file and what is wrong.
    """
    identity = await asyncio.to_thread(source.identity, version)
    ready: asyncio.Future[Model] = asyncio.get_running_loop().create_future()
    retired: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    # The same task enters and leaves the backend's blocks, as a task group in one of them demands.
    keeper = tasks.create_task(_keep(source, version, settings, ready, retired))
    try:
        return Held(await ready, identity, retired, keeper)
    except BaseException:
        keeper.cancel()  # nobody would ever retire it
        raise


async def _keep(
    source: Source, version: int, settings: Settings, ready: asyncio.Future[Model], retired: asyncio.Future[bool]
) -> None:
    label = f"{source.directory.name}/{version}"
    with source:
        try:
            async with loaded(source.directory, version, source.config, settings) as model:
                ready.set_result(model)
                replaced = await retired
                if not await _ended(model, settings.unload_seconds, sequences=replaced):
                    _LOG.warning("model %s is unloaded, requests run after %g s", label, settings.unload_seconds)
        except Exception as error:  # noqa: BLE001 - one model's trouble must not end the others
            if ready.done():
                _LOG.exception("model %s could not be unloaded in order", label)
            else:
                ready.set_exception(_load_error(label, error))
        finally:
            if not ready.done():
                ready.cancel()


async def _ended(model: Model, seconds: float, *, sequences: bool) -> bool:
    """Wait until a model serves nothing any more; tell whether that came in time."""
    until = asyncio.get_running_loop().time() + seconds
    while await model.uses.ended(until - asyncio.get_running_loop().time()):
        slots = model.sequences
        if not sequences or slots is None or not slots.active + slots.waiting:
            return True
        await asyncio.sleep(_LOOK_SECONDS)
        if asyncio.get_running_loop().time() > until:
            return False
    return False


def _load_error(label: str, error: Exception) -> LoadError:
    if isinstance(error, LoadError):
        return error
    if isinstance(error, MeshError):
        return LoadError(f"Model {label}: {error}")
    _LOG.error("model %s could not be loaded", label, exc_info=error)
    return LoadError(f"Model {label} could not be loaded; the server's log has the cause: {type(error).__name__}.")
