"""Silero VAD: the ONNX file with its ends arranged for a server.

Upstream wants 64 samples of context before each 512 new ones, a state whose batch is the second dimension, and the rate
as an input. Here the rate is fixed, and all that is carried from frame to frame is one vector for each stream, with the
batch in front, so that frames of many streams can run together; and a request may bring many frames of one stream,
which run one after the other inside of the graph.
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
    """Write ``model.onnx``: ``audio`` [N, 512 W], ``state`` [N, 320] to ``speech`` [N, W], ``next_state`` [N, 320].

    ``audio`` is W times 32 ms at 16 kHz, ``speech`` the probabilities of speech. The state is zeros at the start.

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
    # A body of Scan has what it carries first, then what comes anew each time.
    graph.input.extend([_end("frame_state", _STATE), _end("frame_audio", _FRAME)])
    graph.output.extend([_end("frame_next_state", _STATE), _end("frame_speech", 1)])
    model.graph.CopyFrom(_over_frames(graph))
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


def _over_frames(frame: onnx.GraphProto) -> onnx.GraphProto:
    """Return the graph that runs another one frame by frame."""
    node = helper.make_node
    shapes = {"shape_of_frames": [0, -1, _FRAME], "axis_of_one": [2]}
    constants = [numpy_helper.from_array(np.array(values, np.int64), name) for name, values in shapes.items()]
    nodes = [
        node("Reshape", ["audio", "shape_of_frames"], ["frames"]),
        node(
            "Scan", ["state", "frames"], ["next_state", "each_speech"], body=frame, num_scan_inputs=1,
            scan_input_axes=[1], scan_output_axes=[1],
        ),
        node("Squeeze", ["each_speech", "axis_of_one"], ["speech"]),
    ]  # fmt: skip
    inputs = [_end("audio", "samples"), _end("state", _STATE)]
    outputs = [_end("speech", "frames"), _end("next_state", _STATE)]
    return helper.make_graph(nodes, "silero", inputs, outputs, constants)


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
        node("Split", ["frame_state", "parts_of_state"], ["flat_cells", "context"], axis=1),
        node("Reshape", ["flat_cells", "shape_of_cells"], ["cells"]),
        node("Transpose", ["cells"], [inner["state"]], perm=[1, 0, 2]),
        node("Concat", ["context", "frame_audio"], [inner["input"]], axis=1),
    ]


def _after(inner: Mapping[str, str]) -> list[onnx.NodeProto]:
    node = helper.make_node
    return [
        node("Identity", [inner["output"]], ["frame_speech"]),
        node("Transpose", [inner["stateN"]], ["next_cells"], perm=[1, 0, 2]),
        node("Reshape", ["next_cells", "shape_of_flat_cells"], ["next_flat_cells"]),
        node("Slice", ["frame_audio", "start_of_context", "end_of_context", "axis_of_samples"], ["next_context"]),
        node("Concat", ["next_flat_cells", "next_context"], ["frame_next_state"], axis=1),
    ]


def _end(name: str, width: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width])
