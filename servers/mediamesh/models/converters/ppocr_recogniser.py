"""PP-OCR's recogniser: the ONNX file as it is, and the characters of its classes out of its metadata."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import onnx

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``, and ``characters.txt`` with a line for each class from class 1 on.

    Class 0 is the blank of CTC (Graves et al. 2006). The last line is a space, which the metadata leaves to the reader.

    Args:
        sources: ``model``, an ONNX file with the metadata ``character``.
        target: Folder to write into.

    Raises:
        BadWeights: the metadata is missing, or counts other classes than the output.
    """
    model = onnx.load(sources["model"])
    listed = {entry.key: entry.value for entry in model.metadata_props}.get("character", "")
    characters = [*listed.splitlines(), " "]
    classes = model.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    if len(characters) + 1 != classes:
        raise BadWeights(f"It lists {len(characters)} characters for {classes} classes, expected {classes - 1}.")
    (target / "characters.txt").write_text("\n".join(characters) + "\n", encoding="utf-8")
    shutil.copyfile(sources["model"], target / "model.onnx")
