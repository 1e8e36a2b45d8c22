"""NanoDet: the ONNX file with its ends arranged for a server.

Upstream takes normalised float32 pixels of one size and gives the scores and distances of 3549 cells: 2 MB in, 1.8 MB
out, though few cells have seen anything. Here pixels travel as bytes, pictures may have any size in steps of 32 pixels
(the net is convolutional, and a wide picture has fewer cells than a square), and only the best cells come back, as
boxes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["convert"]

_SCORES, _DISTANCES = ["Identity", "Identity_1", "Identity_2"], ["Identity_3", "Identity_4", "Identity_5"]
_CELLS = 256  # at most; what is left when overlapping boxes are dropped is a tenth of it
_BINS = 11
# How the pyramid of features is scaled, in the order of the net: up from the large grid, then down to it.
_RESIZES = ("up", "up", "down", "down")
_CONSTANTS: dict[str, np.ndarray[Any, Any]] = {
    # Blue, green, red: https://github.com/RangiLyu/nanodet, config/nanodet_m_416.yml.
    "means": np.array([103.53, 116.28, 123.675], np.float32).reshape(1, 3, 1, 1),
    "scales": 1 / np.array([57.375, 57.12, 58.395], np.float32).reshape(1, 3, 1, 1),
    "up": np.array([1, 1, 2, 2], np.float32),
    "down": np.array([1, 1, 0.5, 0.5], np.float32),
    "most_cells": np.array([_CELLS], np.int64),
    "last_axis": np.array([-1], np.int64),
    "classes_axis": np.array([2], np.int64),
    "height_axis": np.array(2, np.int64),
    "width_axis": np.array(3, np.int64),
    "small": np.array(8, np.int64),
    "middle": np.array(16, np.int64),
    "large": np.array(32, np.int64),
    "none": np.array(0, np.int64),
    "sides_and_bins": np.array([0, 0, 4, _BINS], np.int64),
    "bins": np.arange(_BINS, dtype=np.float32).reshape(_BINS, 1),
    "half": np.array(0.5, np.float32),
    "outwards": np.array([-1, -1, 1, 1], np.float32),
}


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``: ``frames`` uint8 [N, 3, H, W] to ``objects`` float32 [N, K, 6].

    H and W are multiples of 32. K is 256, or the number of cells where there are fewer; the six are left, top, right
    and bottom in pixels, score, and class. The best score comes first; boxes overlap.

    Args:
        sources: ``model``, upstream's net in 8 bits.
        target: Folder to write into.

    Raises:
        BadWeights: the file is another net.
    """
    model = onnx.load(sources["model"])
    graph = model.graph
    ends = [[end.name for end in side] for side in (graph.input, graph.output)]
    if ends != [["images"], [*_SCORES, *_DISTANCES]]:
        raise BadWeights(f"{sources['model'].name}: it has inputs and outputs {ends}.")
    core = _of_any_size(graph.node)
    # What was worked out for the one size upstream has would contradict the others.
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend([*_before(), *core, *_best(), *_places(), *_boxes()])
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in _CONSTANTS.items())
    used = {name for node in graph.node for name in node.input}
    for unused in [values for values in graph.initializer if values.name not in used]:
        graph.initializer.remove(unused)
    graph.input.append(helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 3, "H", "W"]))
    graph.output.append(helper.make_tensor_value_info("objects", TensorProto.FLOAT, ["N", "K", 6]))
    onnx.checker.check_model(model)
    (target / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


def _of_any_size(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes with scaling by factors in place of scaling to the sizes of one picture."""
    kept = list(nodes)
    resizes = [node for node in kept if node.op_type == "Resize"]
    if len(resizes) != len(_RESIZES):
        raise BadWeights(f"The net scales {len(resizes)} times, not {len(_RESIZES)}.")
    sizes = {node.input[3] for node in resizes}
    for node, factor in zip(resizes, _RESIZES, strict=True):
        node.input[:] = [node.input[0], "", factor]
    return [node for node in kept if node.op_type != "Shape" and not sizes.intersection(node.output)]


def _before() -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Cast", ["frames"], ["pixels"], to=TensorProto.FLOAT),
        node("Sub", ["pixels", "means"], ["centred"]),
        node("Mul", ["centred", "scales"], ["images"]),
    ]


def _best() -> list[onnx.NodeProto]:
    """Choose the cells whose best class has the highest scores."""
    node = helper.make_node
    return [
        node("Concat", _SCORES, ["scores"], axis=1),
        node("Concat", _DISTANCES, ["distances"], axis=1),
        node("ReduceMax", ["scores", "classes_axis"], ["best_of_cell"], keepdims=0),
        node("Shape", ["scores"], ["number_of_cells"], start=1, end=2),
        node("Min", ["number_of_cells", "most_cells"], ["chosen"]),
        node("TopK", ["best_of_cell", "chosen"], ["score", "cell"], axis=1),
        node("Unsqueeze", ["cell", "last_axis"], ["rows"]),
        node("GatherND", ["scores", "rows"], ["chosen_scores"], batch_dims=1),
        node("ArgMax", ["chosen_scores"], ["kind"], axis=2, keepdims=0),
    ]


def _places() -> list[onnx.NodeProto]:
    """Work out where a cell lies: there are three grids, one behind the other, row by row."""
    node = helper.make_node
    nodes = [
        node("Shape", ["frames"], ["shape"]),
        node("Gather", ["shape", "height_axis"], ["height"]),
        node("Gather", ["shape", "width_axis"], ["width"]),
        node("Mul", ["height", "width"], ["area"]),
    ]
    for grid in ("small", "middle"):
        nodes += [
            node("Mul", [grid, grid], [f"{grid}_area"]),
            node("Div", ["area", f"{grid}_area"], [f"{grid}_cells"]),
        ]
    return [
        *nodes,
        node("Add", ["small_cells", "middle_cells"], ["cells_before_large"]),
        node("Less", ["cell", "small_cells"], ["is_small"]),
        node("Less", ["cell", "cells_before_large"], ["is_not_large"]),
        node("Where", ["is_not_large", "middle", "large"], ["stride_above_small"]),
        node("Where", ["is_small", "small", "stride_above_small"], ["stride"]),
        node("Where", ["is_not_large", "small_cells", "cells_before_large"], ["begin_above_small"]),
        node("Where", ["is_small", "none", "begin_above_small"], ["begin"]),
        node("Sub", ["cell", "begin"], ["cell_of_grid"]),
        node("Div", ["width", "stride"], ["columns"]),
        node("Div", ["cell_of_grid", "columns"], ["row"]),
        node("Mod", ["cell_of_grid", "columns"], ["column"]),
    ]


def _boxes() -> list[onnx.NodeProto]:
    """Measure how far the sides of the boxes are from the centres of their cells, in strides."""
    node = helper.make_node
    nodes = []
    for name in ("column", "row", "stride", "kind"):
        nodes += [
            node("Unsqueeze", [name, "last_axis"], [f"{name}_alone"]),
            node("Cast", [f"{name}_alone"], [f"{name}_value"], to=TensorProto.FLOAT),
        ]
    return [
        *nodes,
        node("GatherND", ["distances", "rows"], ["chosen_distances"], batch_dims=1),
        node("Reshape", ["chosen_distances", "sides_and_bins"], ["logits"]),
        node("Softmax", ["logits"], ["shares"], axis=-1),
        node("MatMul", ["shares", "bins"], ["mean_bin"]),
        node("Squeeze", ["mean_bin", "last_axis"], ["strides_to_side"]),
        node("Mul", ["strides_to_side", "outwards"], ["strides_from_centre"]),
        node("Concat", ["column_value", "row_value", "column_value", "row_value"], ["corner_of_cell"], axis=2),
        node("Add", ["corner_of_cell", "half"], ["centre_of_cell"]),
        node("Add", ["centre_of_cell", "strides_from_centre"], ["box_in_strides"]),
        node("Mul", ["box_in_strides", "stride_value"], ["box"]),
        node("Unsqueeze", ["score", "last_axis"], ["score_alone"]),
        node("Concat", ["box", "score_alone", "kind_value"], ["objects"], axis=2),
    ]
