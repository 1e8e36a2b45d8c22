"""Files that are right as they are: each source is copied into a file of its name."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Copy each source into a file of its name.

    Args:
        sources: Files by the names that the copies get.
        target: Folder to write into.
    """
    for name, path in sources.items():
        shutil.copyfile(path, target / name)
