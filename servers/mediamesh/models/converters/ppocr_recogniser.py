"""PP-OCR's recogniser, its graph gone on to the likeliest character at each place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto, helper

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["convert"]


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``, and ``characters.txt`` with a line for each class from class 1 on.

    Class 0 is the blank of CTC (Graves et al. 2006). The last line is a space, which the metadata leaves to the reader.
    To its own output, the probabilities of 18 710 classes at each place, the graph gets three more that a line of text
    is decoded from: ``class``, ``probability`` and ``character`` of the likeliest, the blank's character being empty.
    They are a thousandth of the size.

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
    _go_on(model.graph, ["", *characters])
    onnx.checker.check_model(model)
    (target / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


def _go_on(graph: onnx.GraphProto, characters: Sequence[str]) -> None:
    likely = graph.output[0].name
    table = onnx.TensorProto(name="characters", data_type=TensorProto.STRING, dims=[len(characters)])
    table.string_data.extend(character.encode() for character in characters)
    graph.initializer.append(table)
    graph.node.extend(
        [
            helper.make_node("ArgMax", [likely], ["class"], name="best_class", axis=-1, keepdims=0),
            helper.make_node("ReduceMax", [likely], ["probability"], name="best_probability", axes=[-1], keepdims=0),
            helper.make_node("Gather", [table.name, "class"], ["character"], name="best_character"),
        ]
    )
    kinds = {"class": TensorProto.INT64, "probability": TensorProto.FLOAT, "character": TensorProto.STRING}
    places = ["DynamicDimension.0", "places"]
    graph.output.extend(helper.make_tensor_value_info(name, kind, places) for name, kind in kinds.items())
