"""A small builder of ONNX graphs: tensors are named by strings, nodes are added in the order of the computation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

__all__ = ["BOOL", "FLOAT", "INT64", "MICROSOFT", "STRING", "GraphBuilder"]

BOOL: int = TensorProto.BOOL
FLOAT: int = TensorProto.FLOAT
INT64: int = TensorProto.INT64
STRING: int = TensorProto.STRING
MICROSOFT = "com.microsoft"  # the domain of onnxruntime's own operators
# Not what onnx writes today, so that the bytes stay the same when it learns new ones; 10 knows operators of opset 21.
_IR_VERSION = 10


class GraphBuilder:
    """Collects nodes, constants and ends of one graph.

    Args:
        prefix: Begins every name that is made here; the body of a loop needs one, as it sees the names around it.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, kind: int, shape: Sequence[int | str]) -> str:
        """Add an input; a text in the shape names a dimension that varies. Returns its name."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, tensor: str, name: str, kind: int, shape: Sequence[int | str]) -> None:
        """Offer a tensor as an output."""
        self._nodes.append(helper.make_node("Identity", [tensor], [name], name=f"out_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def constant(self, name: str, values: Array) -> str:
        """Add a constant, unless there is one of this name, and return its name."""
        name = self._prefix + name
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def weights(self, name: str, values: Array) -> str:
        """Add a constant of float32 values and return its name."""
        return self.constant(name, values.astype(np.float32))

    def number(self, value: float) -> str:
        """Return a scalar constant of float32."""
        return self.constant(f"float_{value}", np.array(value, np.float32))

    def integers(self, *values: int) -> str:
        """Return a constant vector of int64."""
        return self.constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def integer(self, value: int) -> str:
        """Return a scalar constant of int64."""
        return self.constant(f"int_{value}", np.array(value, np.int64))

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the name of that."""
        return self.split(operator, *inputs, into=1, **attributes)[0]

    def split(self, operator: str, *inputs: str, into: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs and return their names."""
        name = f"{self._prefix}{operator}_{len(self._nodes)}"
        outputs = [f"{name}_{index}" for index in range(into)]
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs

    def graph(self, name: str) -> onnx.GraphProto:
        """Return the graph, to be a model or the body of a loop."""
        return helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._constants.values()))

    def save(self, name: str, path: Path, *, opset: int) -> None:
        """Check the graph and write it as an ONNX file.

        Raises:
            onnx.checker.ValidationError: it breaks a rule of ONNX.
        """
        graph = self.graph(name)
        domains = {node.domain for node in _nodes(graph)}
        opsets = [
            helper.make_opsetid("", opset),
            *(helper.make_opsetid(domain, 1) for domain in sorted(domains - {""})),
        ]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph, and of those inside of them."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g)
