"""Flows from files: the text of one, and those of the flows that it names."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from mediamesh.api.flow.v1.flow_pb2 import FlowFile, FlowSource
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_flow_source"]

# What YAML makes of it is the server's to say: a file too many does no harm, and one that is missing is told with its
# line there.
_NAMED = re.compile(r"""\bflow["']?[ \t]*:[ \t]*(?:"([^"\n]+\.mlab)"|'([^'\n]+\.mlab)'|([^\s"',}\]]+\.mlab))""")
_MAX_FILES = 64
_MAX_BYTES = 1024 * 1024


def read_flow_source(path: Path) -> FlowSource:
    """Read a flow, and the flows that its nodes name by ``flow``, and so on.

    Args:
        path: The ``.mlab`` file. What it names is looked up from its folder; only ``.mlab`` files are read.

    Raises:
        InvalidRequest: there is no such file, or it is not UTF-8, or there are more than 64.
    """
    try:
        source = FlowSource(name=path.name, yaml=path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path} cannot be read: {error}") from error
    found: dict[str, str] = {}
    waiting = [("", source.yaml)]
    while waiting:
        folder, text = waiting.pop()
        for name in _names(folder, text):
            if name in found or name == source.name:
                continue
            inner = _read(path.parent / name)
            if inner is not None:
                found[name] = inner
                waiting.append((posixpath.dirname(name), inner))
        if len(found) > _MAX_FILES:
            raise InvalidRequest(f"{path} names more than {_MAX_FILES} flows.")
    source.files.extend(FlowFile(name=name, yaml=text) for name, text in sorted(found.items()))
    return source


def _names(folder: str, text: str) -> list[str]:
    paths = ["".join(groups) for groups in _NAMED.findall(text)]
    return [posixpath.normpath(posixpath.join(folder, path)) for path in paths if not posixpath.isabs(path)]


def _read(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return None
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        return None
