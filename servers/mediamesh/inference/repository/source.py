"""Where a model's files lie: a directory of the repository, or one made of what a caller has sent."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Self, TypeAlias

from mediamesh.api.inference.v2 import model_config_pb2 as pb
from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError, read_config, read_override
from mediamesh.wire.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

__all__ = ["Fingerprint", "Override", "Source", "checked_name", "fingerprint", "open_source"]

# Of every file its path, size, time of change and number: equal ones were not written to.
Fingerprint: TypeAlias = tuple[tuple[str, int, int, int], ...]
_MOST_FILES = 10_000
_LONGEST_NAME = 255  # of a directory
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class Override:
    """What a caller wants loaded in place of what the repository holds.

    Attributes:
        config: The configuration in JSON; empty takes the file's.
        files: Content by path within the model's directory; if there are any, they are the whole directory.
    """

    config: str = ""
    files: Mapping[str, bytes] = field(default_factory=lambda: MappingProxyType({}))


class Source:
    """A model's directory and configuration, for as long as anything loaded from it is there.

    Args:
        directory: The model's directory.
        config: Its configuration, as read.
        temporary: A directory above it to remove at the end.
    """

    def __init__(self, directory: Path, config: pb.ModelConfig, temporary: Path | None = None) -> None:
        self.directory = directory
        self.config = config
        self._temporary = temporary
        self._users = 0

    def __enter__(self) -> Self:
        self._users += 1
        return self

    def __exit__(self, *_error: object) -> None:
        self._users -= 1
        if not self._users and self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def identity(self, version: int) -> Hashable:
        """Return what is equal as long as a version would be loaded just the same."""
        config = pb.ModelConfig()
        config.CopyFrom(self.config)
        config.ClearField("version_policy")
        beside = fingerprint(
            path for path in self.directory.iterdir() if path.name != CONFIG_FILE and not _number(path)
        )
        return (
            str(self.directory),
            config.SerializeToString(deterministic=True),
            beside,
            fingerprint([self.directory / str(version)]),
        )

    def versions(self) -> list[int]:
        """Return the versions that the policy chooses.

        Raises:
            LoadError: there is none, or one that it names is missing.
        """
        directory = self.directory
        there = sorted(_number(path) for path in directory.iterdir() if _number(path) and path.is_dir())
        if not there:
            raise LoadError(f"{directory}: there is no version; expected a directory such as {directory / '1'}.")
        policy = self.config.version_policy
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


def open_source(repository: Path, name: str, override: Override) -> Source:
    """Return where a model is to be loaded from; what was sent is written into a temporary directory.

    Raises:
        NotFound: the repository has no such model, and nothing was sent.
        InvalidRequest: the name or the path of a file leads elsewhere, or the configuration is none.
        LoadError: the configuration asks for something that this server does not do.
    """
    checked_name(name)
    if override.files:
        return _written(name, override)
    directory = repository / name
    if not directory.is_dir():
        raise NotFound(f"There is no model {name!r} in the repository.", model=name)
    path = directory / CONFIG_FILE
    return Source(directory, read_override(path, override.config) if override.config else read_config(path))


def checked_name(name: str) -> str:
    """Return the name of a model's directory.

    Raises:
        InvalidRequest: it is none.
    """
    if not _is_plain(name) or len(name.encode()) > _LONGEST_NAME:
        raise InvalidRequest.of_field("model_name", f"{name!r} is not the name of a model's directory")
    return name


def fingerprint(paths: Iterable[Path]) -> Fingerprint:
    """Return what changes when a file at or under the paths is written, made or removed.

    Raises:
        LoadError: there are too many files.
    """
    found = []
    for top in sorted(paths):
        for path in (top, *sorted(top.rglob("*"))) if top.is_dir() else (top,):
            try:
                state = path.stat()
            except OSError:
                continue  # gone since, or a link to nothing
            found.append((str(path), state.st_size if path.is_file() else 0, state.st_mtime_ns, state.st_ino))
            if len(found) > _MOST_FILES:
                raise LoadError(f"{top}: has more than {_MOST_FILES} files.")
    return tuple(found)


def _written(name: str, override: Override) -> Source:
    if not override.config:
        raise InvalidRequest.of_field("parameters", "files are sent without a config, which must describe them")
    paths = {sent: _checked_path(sent) for sent in override.files}
    temporary = Path(tempfile.mkdtemp(prefix="mediamesh-model-"))
    try:
        directory = temporary / name
        for sent, content in override.files.items():
            target = directory.joinpath(*paths[sent].parts)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return Source(directory, read_override(directory / CONFIG_FILE, override.config), temporary)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InvalidRequest.of_field("parameters", f"the files cannot be written: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _checked_path(sent: str) -> PurePosixPath:
    parts = sent.split("/")
    if not all(_is_plain(part) for part in parts) or len(parts) > _DEEPEST or len(sent.encode()) > 1024:
        raise InvalidRequest.of_field(f"parameters[file:{sent}]", "is not a path within the model's directory")
    if sent == CONFIG_FILE:
        raise InvalidRequest.of_field(f"parameters[file:{sent}]", "is what the parameter config is for")
    return PurePosixPath(sent)


def _is_plain(part: str) -> bool:
    return bool(part) and part not in {".", ".."} and not any(char in part for char in "/\\") and part.isprintable()


def _number(path: Path) -> int:
    """Return the version whose directory this is; 0 for anything else.

    As in Triton that is a number without leading zeros; others are passed over.
    """
    name = path.name
    return int(name) if name.isascii() and name.isdecimal() and not name.startswith("0") and len(name) < 19 else 0
