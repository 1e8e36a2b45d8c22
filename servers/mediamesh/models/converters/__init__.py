"""Converters: each module makes a model's files of the files that packages hold.

``convert(sources, target)`` reads the files that the manifest names for the model and writes those of one version
directory. The same sources give the same bytes. None needs the framework that the weights were trained with, and none
runs code out of a file of weights.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from mediamesh.models.errors import ManifestError

__all__ = ["Converter", "converter"]

Converter: TypeAlias = Callable[[Mapping[str, Path], Path], None]


def converter(name: str) -> Converter:
    """Return the converter of this name.

    Raises:
        ManifestError: there is none.
    """
    if importlib.util.find_spec(f"{__name__}.{name}") is None:
        raise ManifestError(f"There is no converter {name!r}.")
    convert: Converter | None = getattr(importlib.import_module(f"{__name__}.{name}"), "convert", None)
    if convert is None:
        raise ManifestError(f"{name!r} is no converter: its module has no function `convert`.")
    return convert
