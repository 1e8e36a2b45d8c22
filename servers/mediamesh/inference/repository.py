"""The models of a directory in Triton's layout: ``NAME/config.pbtxt`` and ``NAME/VERSION/model.onnx``."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.api.inference.v2 import inference_service_pb2 as pb
from mediamesh.inference.config import CONFIG_FILE, LoadError, read_config
from mediamesh.inference.model import Model, loaded
from mediamesh.wire.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb
    from mediamesh.inference.settings import Settings

__all__ = ["Repository", "open_repository"]

_LOG = logging.getLogger(__name__)
_Index = pb.RepositoryIndexResponse.ModelIndex


@asynccontextmanager
async def open_repository(settings: Settings) -> AsyncGenerator[Repository]:
    """Load all models for as long as the block lasts; one that fails is logged, listed, and keeps no other back."""
    async with AsyncExitStack() as stack:
        repository = Repository()
        for directory in sorted(path for path in settings.model_repository.iterdir() if path.is_dir()):
            try:
                config = read_config(directory / CONFIG_FILE)
                versions = _versions(directory, config)
            except LoadError as error:
                repository.refuse(directory.name, 0, error)
                continue
            for version in versions:
                try:
                    repository.add(await stack.enter_async_context(loaded(directory, version, config, settings)))
                except LoadError as error:
                    repository.refuse(directory.name, version, error)
        if not repository.loaded():
            _LOG.warning("no model was loaded from %s", settings.model_repository)
        yield repository


class Repository:
    """The loaded models by name and version, and why others are not."""

    def __init__(self) -> None:
        self._models: dict[str, dict[int, Model]] = {}
        self._refused: list[_Index] = []

    def add(self, model: Model) -> None:
        """Offer a model."""
        self._models.setdefault(model.config.name, {})[model.version] = model

    def refuse(self, name: str, version: int, error: LoadError) -> None:
        """List a model that could not be loaded."""
        _LOG.error("model %s cannot be loaded: %s", name, error)
        self._refused.append(_Index(name=name, version=str(version or ""), state="UNAVAILABLE", reason=str(error)))

    def find(self, name: str, version: str = "") -> Model:
        """Return a model; the highest version when none is named.

        Raises:
            NotFound: there is none; names what is loaded, or why this one is not.
        """
        versions = self._models.get(name, {})
        if not version and versions:
            return versions[max(versions)]
        if version.isascii() and version.isdecimal() and len(version) < 20 and (model := versions.get(int(version))):
            return model
        wanted = f"{name!r}" + (f" version {version!r}" if version else "")
        for refused in self._refused:
            if refused.name == name and version in {"", refused.version}:
                raise NotFound(f"Model {wanted} could not be loaded: {refused.reason}", model=name)
        known = ", ".join(f"{model.config.name}/{model.version}" for model in self.loaded()) or "none"
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
            Unavailable: there are models, and none could be loaded.
        """
        if self._refused and not self._models:
            raise Unavailable(f"No model could be loaded; {self._refused[0].reason}")

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

    def index(self) -> Iterator[_Index]:
        """List all models, loaded or not."""
        for model in self.loaded():
            yield _Index(name=model.config.name, version=str(model.version), state="READY")
        yield from self._refused


def _versions(directory: Path, config: config_pb.ModelConfig) -> list[int]:
    """Return the versions that the policy chooses.

    Raises:
        LoadError: there is none, or one that it names is missing.
    """
    # As in Triton, a version is a directory whose name is a number without leading zeros; others are passed over.
    there = sorted(
        int(path.name)
        for path in directory.iterdir()
        if path.is_dir() and path.name.isascii() and path.name.isdecimal() and not path.name.startswith("0")
    )
    if not there:
        raise LoadError(f"{directory}: there is no version; expected a directory such as {directory / '1'}.")
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "all":
            return there
        case "specific":
            wanted = list(dict.fromkeys(policy.specific.versions))
            if missing := set(wanted).difference(there):
                file = directory / CONFIG_FILE
                raise LoadError(f"{file}: version_policy.specific: {sorted(missing)} not among {there}.")
            return wanted
        case _:
            return there[-(policy.latest.num_versions or 1) :]
