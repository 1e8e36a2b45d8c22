"""Silero VAD: the ONNX file with its ends arranged for a server.

Upstream wants 64 samples of context before each 512 new ones, a state whose batch is the second dimension, and the rate
as an input. Here the rate is fixed, and all that is carried from frame to frame is one vector for each stream, with the
batch in front, so that frames of many streams can run together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]

_RATE = 16_000
_FRAME, _CONTEXT = 512, 64  # samples
_CELLS = 2 * 128
_STATE = _CELLS + _CONTEXT


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``: ``audio`` [N, 512] and ``state`` [N, 320] to ``speech`` [N, 1] and ``next_state`` [N, 320].

    ``audio`` is 32 ms at 16 kHz, ``speech`` the probability of speech. The state is zeros at the start of a stream.

    Args:
        sources: ``model``, upstream's file for 16 kHz.
        target: Folder to write into.

    Raises:
        BadWeights: the file has other inputs and outputs.
    """
    model = onnx.load(sources["model"])
    graph = model.graph
    ends = [[end.name for end in side] for side in (graph.input, graph.output)]
    if ends != [["input", "state", "sr"], ["output", "stateN"]]:
        raise BadWeights(f"{sources['model'].name}: it has inputs and outputs {ends}.")
    inner = {name: f"upstream_{name}" for name in ("input", "state", "sr", "output", "stateN")}
    _rename(graph, inner)
    core = [*graph.node]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.initializer.append(numpy_helper.from_array(np.array(_RATE, np.int64), inner["sr"]))
    for name, values in _SHAPES.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    graph.node.extend([*_before(inner), *core, *_after(inner)])
    graph.input.extend([_end("audio", _FRAME), _end("state", _STATE)])
    graph.output.extend([_end("speech", 1), _end("next_state", _STATE)])
    onnx.checker.check_model(model)
    (target / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))


_SHAPES = {
    "parts_of_state": [_CELLS, _CONTEXT],
    "shape_of_cells": [-1, 2, 128],
    "shape_of_flat_cells": [-1, _CELLS],
    "start_of_context": [_FRAME - _CONTEXT],
    "end_of_context": [_FRAME],
    "axis_of_samples": [1],
}


def _rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Give tensors other names, in the branches of conditions too, which see those of the graph around them."""
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _rename(attribute.g, names)


def _before(inner: Mapping[str, str]) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Split", ["state", "parts_of_state"], ["flat_cells", "context"], axis=1),
        node("Reshape", ["flat_cells", "shape_of_cells"], ["cells"]),
        node("Transpose", ["cells"], [inner["state"]], perm=[1, 0, 2]),
        node("Concat", ["context", "audio"], [inner["input"]], axis=1),
    ]


def _after(inner: Mapping[str, str]) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Identity", [inner["output"]], ["speech"]),
        node("Transpose", [inner["stateN"]], ["next_cells"], perm=[1, 0, 2]),
        node("Reshape", ["next_cells", "shape_of_flat_cells"], ["next_flat_cells"]),
        node("Slice", ["audio", "start_of_context", "end_of_context", "axis_of_samples"], ["next_context"]),
        node("Concat", ["next_flat_cells", "next_context"], ["next_state"], axis=1),
    ]


def _end(name: str, width: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
