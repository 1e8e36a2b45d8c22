"""Loads and unloads models: at the start, when a caller asks for it, and when files change.

What one model goes through is done one after the other. A version that takes another's place is loaded and warm before
requests find it, and the other serves what it has before it goes: no request fails of a reload.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

from mediamesh.inference.configuration.config import LoadError
from mediamesh.inference.repository.held import Held, hold
from mediamesh.inference.repository.loading import in_a_thread
from mediamesh.inference.repository.memory import give_back
from mediamesh.inference.repository.source import Override, Source, checked_name, fingerprint, open_source
from mediamesh.wire.errors import FailedPrecondition, MeshError, NotFound, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mediamesh.inference.repository.repository import Repository
    from mediamesh.inference.repository.source import Fingerprint
    from mediamesh.inference.settings import Settings

    Work = Callable[[asyncio.Future[None]], Awaitable[None]]

__all__ = ["READY", "Control"]

_LOG = logging.getLogger(__name__)
# Triton's names for the states of a version.
READY, LOADING, UNLOADING, UNAVAILABLE = "READY", "LOADING", "UNLOADING", "UNAVAILABLE"
_UNLOADED = "unloaded"
EVERY = "*"
# Callers that wait for their turn with one model, and names that may be in use at once.
_MOST_WAITING = 16
_MOST_MODELS = 4096
_RETRY_SECONDS = 1.0


class Control:
    """Decides which models are loaded.

    Args:
        repository: Where they are found by requests.
        settings: What is loaded at the start, and who may change that.
        tasks: Keeps what is loaded.

    Attributes:
        start_failed: Why nothing was loaded at the start, though there was something to load.
    """

    def __init__(self, repository: Repository, settings: Settings, tasks: asyncio.TaskGroup) -> None:
        self.start_failed = ""
        self._repository = repository
        self._settings = settings
        self._tasks = tasks
        self._held: dict[str, dict[int, Held]] = defaultdict(dict)
        # What requests find no more, until it is freed: whoever was about to see to that may be cancelled before.
        self._leaving: set[Held] = set()
        self._turns: dict[str, asyncio.Lock] = {}
        self._waiting: dict[str, int] = {}
        self._room = asyncio.Semaphore(settings.loads_at_once)
        self._poller: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load what the settings name."""
        known = self._seen() if self._settings.model_control == "poll" else {}
        wanted = self._wanted()
        errors = [error for error in await asyncio.gather(*map(self._try_load, wanted)) if error is not None]
        if errors and not self._repository.loaded():
            self.start_failed = errors[0].text
        if self._settings.model_control == "poll":
            self._poller = self._tasks.create_task(self._poll(known))

    async def stop(self) -> None:
        """Give up what is being loaded, and unload everything."""
        if self._poller is not None:
            self._poller.cancel()
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)
        self._leaving.update(held for versions in self._held.values() for held in versions.values())
        self._held.clear()
        await asyncio.gather(*map(self._free, list(self._leaving)))

    async def load(self, name: str, override: Override | None = None) -> None:
        """Load a model, or load it again where its files or configuration have changed; returns when it is ready.

        Raises:
            FailedPrecondition: the settings do not let callers load models.
            NotFound: the repository has no such model.
            InvalidRequest: the name or the override is none.
            LoadError: it cannot be loaded; what was loaded before serves on.
            Overloaded: too many wait to do something with this model.
        """
        self._check_allowed()
        if len(self._held) >= _MOST_MODELS and name not in self._held:
            raise Overloaded.retry(f"{len(self._held)} models are loaded, which is the limit.", _RETRY_SECONDS)
        await self._in_turn(checked_name(name), partial(self._load, name, override or Override()))

    async def unload(self, name: str) -> None:
        """Unload all versions of a model; returns when no more requests find it, and what has begun is still served.

        Raises:
            FailedPrecondition: the settings do not let callers unload models.
            NotFound: there is no such model.
            Overloaded: too many wait to do something with this model.
        """
        self._check_allowed()
        if name not in self._held and not (self._settings.model_repository / checked_name(name)).is_dir():
            raise NotFound(f"There is no model {name!r} in the repository.", model=name)
        await self._in_turn(name, partial(self._unload, name))

    def _check_allowed(self) -> None:
        mode = self._settings.model_control
        if mode != "explicit":
            raise FailedPrecondition(
                f"Models are not loaded or unloaded on request here: the setting model_control is {mode!r}, "
                "expected 'explicit'."
            )

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._settings.model_repository.iterdir() if path.is_dir())

    def _wanted(self) -> list[str]:
        if self._settings.model_control != "explicit" or EVERY in self._settings.load_models:
            return self._names()
        return list(dict.fromkeys(self._settings.load_models))

    async def _try_load(self, name: str) -> MeshError | None:
        """Load a model on nobody's request; an error is logged, and told by the index."""
        try:
            await self._in_turn(checked_name(name), partial(self._load, name, Override()))
        except MeshError as error:
            if not isinstance(error, LoadError):
                self._repository.mark(name, 0, UNAVAILABLE, error.text)
                _LOG.error("model %s cannot be loaded: %s", name, error)
            return error
        return None

    async def _in_turn(self, name: str, work: Work) -> None:
        """Do something with a model when all before it is done; returns when the work says that it is.

        The work goes on to its end even when its caller leaves, or was told before.
        """
        waiting = self._waiting.get(name, 0)
        if waiting >= _MOST_WAITING or len(self._waiting) >= _MOST_MODELS:
            raise Overloaded.retry(f"{waiting} wait to load or unload model {name}.", _RETRY_SECONDS)
        self._waiting[name] = waiting + 1
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = self._tasks.create_task(self._work(name, work, done))
        self._working.add(task)
        task.add_done_callback(self._working.discard)
        await done

    async def _work(self, name: str, work: Work, done: asyncio.Future[None]) -> None:
        turn = self._turns.setdefault(name, asyncio.Lock())
        try:
            async with turn:
                await work(done)
        except asyncio.CancelledError:
            _settle(done, Unavailable("The server stops."))
            raise
        except MeshError as error:
            _settle(done, error)
        except Exception:  # noqa: BLE001 - one model's trouble must not end the others
            _LOG.exception("something went wrong with model %s", name)
            _settle(done, MeshError("The server failed; its log has the cause."))
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name], self._turns[name]
            _settle(done)

    async def _load(self, name: str, override: Override, done: asyncio.Future[None]) -> None:
        try:
            source = await asyncio.to_thread(open_source, self._settings.model_repository, name, override)
        except LoadError as error:
            self._refuse(name, 0, error)
            raise
        with source:
            try:
                versions = source.versions()
            except (LoadError, OSError) as failure:
                refusal = _load_error(failure)
                self._refuse(name, 0, refusal)
                raise refusal from None
            outcomes = await asyncio.gather(*(self._load_version(name, source, version) for version in versions))
            errors = [outcome for outcome in outcomes if isinstance(outcome, LoadError)]
            left = [outcome for outcome in outcomes if isinstance(outcome, Held)]
            if errors:
                _settle(done, LoadError("; ".join(error.text for error in errors)))
                if override.files and not self._held[name]:
                    self._repository.forget(name)  # what callers send must not fill the index
            else:
                left += [self._take_away(name, version) for version in set(self._held[name]).difference(versions)]
                _settle(done)
        await self._retire(name, left)

    async def _load_version(self, name: str, source: Source, version: int) -> Held | LoadError | None:
        """Load a version unless it is there just so; return the one whose place it took, or why it failed."""
        before = self._held[name].get(version)
        try:
            if before is not None and before.identity == await asyncio.to_thread(source.identity, version):
                return None
            if before is None:
                self._repository.mark(name, version, LOADING)
            async with self._room:
                held = await hold(self._tasks, source, version, self._settings)
        except (LoadError, OSError) as failure:
            error = _load_error(failure)
            self._refuse(name, version, error)
            return error
        # A sequence that is in progress on another goes on there.
        held.model.earlier.extend(other.model for other in self._held[name].values())
        self._held[name][version] = held
        if before is not None:
            self._leaving.add(before)
        self._repository.offer(held.model)
        return before

    async def _unload(self, name: str, done: asyncio.Future[None]) -> None:
        left = [self._take_away(name, version) for version in list(self._held.get(name, ()))]
        _settle(done)
        await self._retire(name, left)
        if not (self._settings.model_repository / name).is_dir():
            self._repository.forget(name)

    def _take_away(self, name: str, version: int) -> Held:
        self._repository.withdraw(name, version)
        self._repository.mark(name, version, UNLOADING)
        held = self._held[name].pop(version)
        self._leaving.add(held)
        return held

    async def _retire(self, name: str, left: Iterable[Held]) -> None:
        """Free what no request finds any more, once it has served what it had."""
        versions = {held: held.model.version for held in left}
        gone = {id(held.model) for held in versions}
        staying = self._held.get(name, {}).values()
        await asyncio.gather(*(self._free(held, replaced=bool(staying)) for held in versions))
        for held in staying:
            held.model.earlier[:] = [model for model in held.model.earlier if id(model) not in gone]
        if gone:  # and nothing refers to their sessions any more
            await in_a_thread("memory", give_back)
        for version in set(versions.values()).difference(self._held.get(name, ())):
            self._repository.mark(name, version, UNAVAILABLE, _UNLOADED)
        if not self._held.get(name, True):
            del self._held[name]

    async def _free(self, held: Held, *, replaced: bool = False) -> None:
        await held.retire(replaced=replaced)
        self._leaving.discard(held)

    def _refuse(self, name: str, version: int, error: LoadError) -> None:
        """Say why a version is not loaded, or not as it is now on the disk."""
        _LOG.error("model %s cannot be loaded: %s", name, error)
        held = self._held.get(name, {})
        if version in held:
            self._repository.offer(held[version].model, f"could not be loaded again: {error.text}")
        elif version or not held:
            self._repository.mark(name, version, UNAVAILABLE, error.text)

    async def _poll(self, known: dict[str, Fingerprint | None]) -> None:
        """Load what is new or has changed, unload what is gone; only after two looks in a row have seen the same.

        What is just being copied into the repository changes from one look to the next.
        """
        before = dict(known)
        while True:
            await asyncio.sleep(self._settings.poll_seconds)
            try:
                seen = await asyncio.to_thread(self._seen)
            except OSError as error:
                _LOG.warning("the repository cannot be read: %s", error)
                continue
            for name in sorted({*seen, *before, *known}):
                if seen.get(name) != before.get(name) or seen.get(name) == known.get(name):
                    continue
                if name in seen:
                    known[name] = seen[name]
                    await self._try_load(name)
                else:
                    del known[name]
                    await self._in_turn(name, partial(self._unload, name))
            before = seen

    def _seen(self) -> dict[str, Fingerprint | None]:
        """Return what tells of each model of the repository whether it has changed."""
        seen: dict[str, Fingerprint | None] = {}
        for name in self._names():
            try:
                seen[name] = fingerprint([self._settings.model_repository / name])
            except LoadError:
                seen[name] = None
        return seen


def _load_error(failure: LoadError | OSError) -> LoadError:
    """Return why a model was not loaded whose files cannot be read, as they vanished meanwhile, say."""
    if isinstance(failure, LoadError):
        return failure
    return LoadError(f"{failure.filename}: {failure.strerror}." if failure.filename else f"{failure}.")


def _settle(done: asyncio.Future[None], error: MeshError | None = None) -> None:
    """Tell the caller how it ended, unless that was told before, or nobody waits any more."""
    if done.done():
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
