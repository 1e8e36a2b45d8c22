"""Begins agents: a folder with an agent that works, its manifest, and a test that passes.

The Python one is filled in from ``templates/``. The TypeScript one is the example of clients/examples under another
name, with the SDK and the contracts beside it, as neither is in a registry.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from mediamesh.wire.errors import AlreadyExists, InvalidRequest
from mediamesh.wire.shipped import shipped

__all__ = ["LANGUAGES", "scaffold"]

LANGUAGES = ("python", "typescript")
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}(\.[a-z][a-z0-9-]{0,62})*")
_LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", "package-lock.json")
_LEFT_OUT_OF_SDK = shutil.ignore_patterns("node_modules", "dist", "test")


@dataclass(frozen=True, slots=True)
class _Names:
    """One name in all its spellings."""

    id: str

    @property
    def package(self) -> str:
        return self.id.rpartition(".")[2]

    @property
    def class_name(self) -> str:
        return "".join(part.capitalize() for part in self.package.split("-"))

    @property
    def title(self) -> str:
        return self.package.replace("-", " ").capitalize()


def scaffold(name: str, language: str, parent: Path) -> Path:
    """Write an agent into a new folder, and return the folder.

    Args:
        name: Id such as ``acme.word-counter``, or only its last part; the folder has the name of the last part.
        language: One of LANGUAGES.
        parent: Where the folder is to be.

    Raises:
        InvalidRequest: the name, or the language, is none.
        AlreadyExists: the folder is there.
    """
    if not _NAME.fullmatch(name):
        raise InvalidRequest.of_field("NAME", f"{name!r} is not of lower-case letters, digits and -, such as my-agent")
    if language not in LANGUAGES:
        raise InvalidRequest.of_field("--language", f"must be one of {', '.join(LANGUAGES)}; is {language!r}")
    names = _Names(name if "." in name else f"example.{name}")
    folder = parent / names.package
    if folder.exists():
        raise AlreadyExists(f"{folder} is there already.")
    (_python if language == "python" else _typescript)(names, folder)
    return folder


def _python(names: _Names, folder: Path) -> None:
    folder.mkdir(parents=True)
    values = {"id": names.id, "package": names.package, "class_name": names.class_name, "title": names.title}
    for template in files("mediamesh.agent").joinpath("templates", "python").iterdir():
        text = Template(template.read_text("utf-8")).substitute(values)
        (folder / template.name.removesuffix(".tmpl")).write_text(text, "utf-8")


def _typescript(names: _Names, folder: Path) -> None:
    example = _Names("example.word-splitter")
    shutil.copytree(shipped("clients/examples/agents/typescript"), folder, ignore=_LEFT_OUT)
    shutil.copytree(shipped("clients/typescript"), folder / "mediamesh/agent", ignore=_LEFT_OUT_OF_SDK)
    shutil.copytree(shipped("generated/ts"), folder / "mediamesh/contracts", ignore=_LEFT_OUT)
    replaced = {
        example.id: names.id,
        example.package: names.package,
        example.class_name: names.class_name,
        example.title: names.title,
        "file:../../../typescript": "file:./mediamesh/agent",
        "file:../../../../generated/ts": "file:./mediamesh/contracts",
    }
    own = (path for path in folder.rglob("*") if path.is_file() and folder / "mediamesh" not in path.parents)
    for path in own:
        text = path.read_text("utf-8")
        for before, after in replaced.items():
            text = text.replace(before, after)
        path.write_text(text, "utf-8")
