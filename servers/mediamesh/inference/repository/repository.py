"""The models that are loaded, the states of those that are not, and how both come about at the start."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.repository.control import READY, Control
from mediamesh.wire.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from mediamesh.inference.model import Model
    from mediamesh.inference.settings import Settings

__all__ = ["Repository", "open_repository"]

_LOG = logging.getLogger(__name__)
_Index = pb.RepositoryIndexResponse.ModelIndex


@asynccontextmanager
async def open_repository(settings: Settings) -> AsyncGenerator[Repository]:
    """Load what the settings ask for, and hold it as long as the block lasts.

    A model that cannot be loaded is logged, listed, and keeps no other back.
    """
    raised: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        repository = Repository(settings.model_repository)
        repository.control = control = Control(repository, settings, tasks)
        try:
            await control.start()
            if not repository.loaded():
                _LOG.warning("no model was loaded from %s", settings.model_repository)
            yield repository
        except Exception as error:  # noqa: BLE001 - the group would wrap it; whoever waits for this block wants it bare
            raised = error
        finally:
            await control.stop()
    if raised is not None:
        raise raised


@dataclass(frozen=True, slots=True)
class State:
    """What the index says about a version.

    Attributes:
        name: ``READY``, ``LOADING``, ``UNLOADING`` or ``UNAVAILABLE``.
        reason: Why, where there is something to say.
    """

    name: str
    reason: str = ""


class Repository:
    """The loaded models by name and version, and why others are not.

    Args:
        directory: Where models are found that nobody has loaded.

    Attributes:
        control: Loads and unloads models.
    """

    control: Control

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._models: dict[str, dict[int, Model]] = {}
        self._newest: dict[str, Model] = {}
        # By name and version; 0 stands for a model as a whole.
        self._states: dict[str, dict[int, State]] = {}

    def offer(self, model: Model, reason: str = "") -> None:
        """Let requests find a model; in place of the one of the same version, if there is one."""
        versions = self._models.setdefault(model.name, {})
        versions[model.version] = model
        self._newest[model.name] = versions[max(versions)]
        self.mark(model.name, model.version, READY, reason)

    def withdraw(self, name: str, version: int) -> None:
        """Let no more requests find a version."""
        versions = self._models[name]
        del versions[version]
        if versions:
            self._newest[name] = versions[max(versions)]
        else:
            del self._models[name], self._newest[name]

    def mark(self, name: str, version: int, state: str, reason: str = "") -> None:
        """Say in the index how a version is; 0 is the model as a whole, whose state goes once a version has one."""
        states = self._states.setdefault(name, {})
        states[version] = State(state, reason)
        if version:
            states.pop(0, None)

    def forget(self, name: str) -> None:
        """Leave a model that is not loaded out of the index."""
        self._states.pop(name, None)

    def find(self, name: str, version: str = "") -> Model:
        """Return a model; the highest version when none is named.

        Raises:
            NotFound: there is none; names what is loaded, or why this one is not.
        """
        if not version and (newest := self._newest.get(name)) is not None:
            return newest
        versions = self._models.get(name, {})
        if version.isascii() and version.isdecimal() and len(version) < 20 and (model := versions.get(int(version))):
            return model
        wanted = f"{name!r}" + (f" version {version!r}" if version else "")
        for number, state in self._states.get(name, {}).items():
            if state.name != READY and version in {"", str(number or "")}:
                raise NotFound(f"Model {wanted} {_sentence(state)}", model=name)
        known = ", ".join(f"{model.name}/{model.version}" for model in self.loaded()) or "none"
        raise NotFound(f"There is no model {wanted}; loaded are: {known}.", model=name)

    def has(self, name: str, version: str = "") -> bool:
        """Tell whether a model is loaded."""
        try:
            return bool(self.find(name, version))
        except NotFound:
            return False

    async def check(self) -> None:
        """Raise when nothing can be served; one broken model does not take the others out of service.

        Raises:
            Unavailable: there were models to load at the start, and none could be.
        """
        if self.control.start_failed and not self._models:
            raise Unavailable(f"No model could be loaded; {self.control.start_failed}")

    def loaded(self, name: str = "", version: str = "") -> list[Model]:
        """Return the loaded models, or those of a name, or one version of it.

        Raises:
            NotFound: a name or version is given and not loaded.
        """
        if version:
            return [self.find(name, version)]
        if name:
            self.find(name)
        return [
            versions[number]
            for own, versions in sorted(self._models.items())
            if name in {"", own}
            for number in sorted(versions)
        ]

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model that are loaded."""
        return sorted(self._models.get(name, {}))

    def index(self) -> Iterator[_Index]:
        """List all models, loaded or not; of one that nobody has loaded the name alone."""
        untouched = {path.name for path in self._directory.iterdir() if path.is_dir()}.difference(self._states)
        for name in sorted(untouched.union(self._states)):
            states = self._states.get(name)
            if states is None:
                yield _Index(name=name)
                continue
            for version, state in sorted(states.items()):
                yield _Index(name=name, version=str(version or ""), state=state.name, reason=state.reason)


def _sentence(state: State) -> str:
    match state.name:
        case "UNAVAILABLE" if state.reason != "unloaded":
            return f"could not be loaded: {state.reason}"
        case "LOADING":
            return "is being loaded."
        case "UNLOADING":
            return "is being unloaded."
        case _:
            return "is unloaded."
