"""The ONNX graph of a decoder of Llama's kind, with a KV cache that is written in place.

Inputs and outputs are named and shaped as onnxruntime-genai's exports are:

====================================  =====================================  ==================================
``input_ids``                         int64 [batch, tokens]                  the new tokens of every row
``attention_mask``                    int64 [batch, total]                   1 for the tokens of a row, old and new
``past_key_values.L.key``, ``.value``  float [batch, kv_heads, capacity, head]  the cache, filled from its start on
``logits``                            float [batch, 1, vocabulary]           of the last new token
``present.L.key``, ``.value``          as the cache                           bound to the same memory
====================================  =====================================  ==================================

GroupQueryAttention (onnxruntime's own operator) appends to the cache and rotates queries and keys by their positions,
which it derives from the mask; rows may differ in length, and each costs what its own length does.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import TensorProto, helper

from mediamesh.models.converters.graph import FLOAT, INT64, GraphBuilder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import ModelProto

    Array = np.ndarray[Any, Any]

__all__ = ["Dense", "EightBits", "Embedding", "FourBits", "Graph", "Layer", "Matrix", "Shape", "Weights", "build"]

_MICROSOFT = "com.microsoft"
_INT32: int = TensorProto.INT32
_OPSET = 20
_IR_VERSION = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a decoder.

    Attributes:
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Heads of keys and values.
        context: Most tokens of a sequence.
        vocabulary: Tokens there are.
        rope_base: Base of the rotary position embedding.
        epsilon: Added to the variance by the norms.
    """

    hidden: int
    heads: int
    kv_heads: int
    context: int
    vocabulary: int
    rope_base: float
    epsilon: float

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads


class Matrix(Protocol):
    """A weight matrix [outputs, inputs] in whatever form it is kept."""

    def linear(self, graph: Graph, x: str, name: str) -> str:
        """Multiply the last dimension of ``x``; returns the product's name."""
        ...


class Embedding(Matrix, Protocol):
    """A weight matrix [vocabulary, hidden] whose rows can be looked up."""

    def embed(self, graph: Graph, ids: str, name: str) -> str:
        """Look rows up; returns their name."""
        ...


@dataclass(frozen=True, slots=True)
class Layer:
    """The weights of one layer.

    Attributes:
        attention_norm: [hidden].
        qkv: Queries, keys and values [(heads + 2 * kv_heads) * head, hidden], rotated half against half.
        output: [hidden, hidden].
        feed_forward_norm: [hidden].
        gate_up: Gate and up projection [2 * inner, hidden].
        down: [hidden, inner].
    """

    attention_norm: Array
    qkv: Matrix
    output: Matrix
    feed_forward_norm: Array
    gate_up: Matrix
    down: Matrix


@dataclass(frozen=True, slots=True)
class Weights:
    """All weights of a decoder; the embedding serves as head, too."""

    embedding: Embedding
    layers: Sequence[Layer]
    norm: Array


@dataclass(frozen=True, slots=True)
class Dense:
    """A matrix in FP32 [outputs, inputs]."""

    values: Array

    def linear(self, graph: Graph, x: str, name: str) -> str:
        """Multiply exactly."""
        return graph.add("MatMul", x, graph.constant(f"{name}.transposed", self.values.T.astype(np.float32)))

    def embed(self, graph: Graph, ids: str, name: str) -> str:
        """Look rows up."""
        return graph.add("Gather", graph.constant(name, self.values.astype(np.float32)), ids)


@dataclass(frozen=True, slots=True)
class FourBits:
    """Q4_1: element = scale * quant + offset, in blocks.

    MatMulNBits knows no offsets that are not multiples of the scale. Written as scale * (quant - 8) + (offset + 8 *
    scale), the second term is a product with the sums of the input's blocks: nothing is lost.

    Attributes:
        quants: 0 to 15 [outputs, blocks, block].
        scales: [outputs, blocks].
        offsets: [outputs, blocks].
    """

    quants: Array
    scales: Array
    offsets: Array

    def linear(self, graph: Graph, x: str, name: str) -> str:
        """Multiply by four-bit weights."""
        outputs, blocks, block = self.quants.shape
        packed = self.quants[..., 0::2] | (self.quants[..., 1::2] << 4)
        product = graph.multiply_quantised(x, name, packed, self.scales, bits=4, sizes=(outputs, blocks, block))
        rest = (self.offsets + 8 * self.scales).T.astype(np.float32)
        correction = graph.add("MatMul", graph.block_sums(x, blocks, block), graph.constant(f"{name}.offsets", rest))
        return graph.add("Add", product, correction)


@dataclass(frozen=True, slots=True)
class EightBits:
    """Q8_0: element = scale * (quant - 128), in blocks.

    Attributes:
        quants: 0 to 255 [outputs, blocks, block].
        scales: [outputs, blocks].
    """

    quants: Array
    scales: Array

    def linear(self, graph: Graph, x: str, name: str) -> str:
        """Multiply by eight-bit weights."""
        return graph.multiply_quantised(x, name, self.quants, self.scales, bits=8, sizes=self.quants.shape)

    def embed(self, graph: Graph, ids: str, name: str) -> str:
        """Look rows up in the same bytes that the head multiplies by."""
        outputs, blocks, block = self.quants.shape
        quants = graph.constant(f"{name}.quants", self.quants)
        scales = graph.constant(f"{name}.scales", self.scales.reshape(-1).astype(np.float32))
        by_row = graph.add("Reshape", scales, graph.integers(outputs, blocks))
        signed = graph.add("Sub", graph.add("Cast", graph.add("Gather", quants, ids), to=FLOAT), graph.number(128.0))
        scale = graph.add("Unsqueeze", graph.add("Gather", by_row, ids), graph.integers(-1))
        return graph.add("Reshape", graph.add("Mul", signed, scale), graph.integers(0, 0, blocks * block))


class Graph(GraphBuilder):
    """A graph while it is written; the same calls give the same bytes.

    Args:
        accuracy_level: How MatMulNBits computes: 0 in FP32, 4 in INT8, which is several times as fast.
    """

    def __init__(self, accuracy_level: int) -> None:
        super().__init__()
        self._accuracy_level = accuracy_level
        self._sums: dict[str, str] = {}

    def gives(self, name: str, shape: Sequence[int | str]) -> str:
        """Make a tensor of this name an output, with no node between: the cache must stay where it is."""
        self._outputs.append(helper.make_tensor_value_info(name, FLOAT, shape))
        return name

    def node(self, operator: str, *inputs: str, outputs: Sequence[str], **attributes: Any) -> str:
        """Add a node whose outputs have names; returns the first."""
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, outputs, name=name, **attributes))
        return outputs[0]

    def multiply_quantised(
        self, x: str, name: str, quants: Array, scales: Array, *, bits: int, sizes: Sequence[int]
    ) -> str:
        """Multiply by a matrix kept in blocks of integers; sizes are its outputs, blocks and elements of a block."""
        rows, blocks, block = sizes
        return self.add(
            "MatMulNBits", x, self.constant(f"{name}.quants", quants), self.weights(f"{name}.scales", scales.ravel()),
            domain=_MICROSOFT, K=blocks * block, N=rows, bits=bits, block_size=block,
            accuracy_level=self._accuracy_level,
        )  # fmt: skip

    def block_sums(self, x: str, blocks: int, block: int) -> str:
        """Sum the last dimension in blocks; once for every matrix that multiplies the same tensor."""
        if x not in self._sums:
            shaped = self.add("Reshape", x, self.integers(0, 0, blocks, block))
            self._sums[x] = self.add("ReduceSum", shaped, self.integers(3), keepdims=0)
        return self._sums[x]

    def model(self, name: str) -> ModelProto:
        """Return the model; onnx cannot check it, as it does not know onnxruntime's operators."""
        domains = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(self.graph(name), opset_imports=domains, ir_version=_IR_VERSION)


def build(name: str, shape: Shape, weights: Weights, *, accuracy_level: int) -> ModelProto:
    """Write the graph of a decoder.

    Args:
        name: What the graph is called.
        shape: Its sizes.
        weights: Its weights.
        accuracy_level: How quantised matrices are multiplied: 0 in FP32, 4 in INT8.
    """
    graph = Graph(accuracy_level)
    ids = graph.input("input_ids", INT64, ["batch", "tokens"])
    mask = graph.input("attention_mask", INT64, ["batch", "total"])
    cache: list[int | str] = ["batch", shape.kv_heads, "capacity", shape.head]
    graph.gives("logits", ["batch", 1, shape.vocabulary])
    for number, part in itertools.product(range(len(weights.layers)), ("key", "value")):
        graph.input(f"past_key_values.{number}.{part}", FLOAT, cache)
        graph.gives(f"present.{number}.{part}", cache)

    positions = _positions(graph, mask, shape)
    residual = weights.embedding.embed(graph, ids, "embedding")
    first = graph.constant("0.attention_norm", weights.layers[0].attention_norm)
    normed = graph.add("SimplifiedLayerNormalization", residual, first, epsilon=shape.epsilon, axis=-1, stash_type=1)
    for number, layer in enumerate(weights.layers):
        mixed = _attention(graph, layer.qkv.linear(graph, normed, f"{number}.qkv"), number, shape, positions)
        attended = layer.output.linear(graph, mixed, f"{number}.output")
        normed, residual = _add_and_norm(
            graph, residual, attended, (f"{number}.feed_forward_norm", layer.feed_forward_norm), shape
        )
        fed = _feed_forward(graph, normed, number, layer)
        if number + 1 < len(weights.layers):
            norm = (f"{number + 1}.attention_norm", weights.layers[number + 1].attention_norm)
        else:
            residual, fed = (_last_token(graph, tensor) for tensor in (residual, fed))
            norm = ("norm", weights.norm)
        normed, residual = _add_and_norm(graph, residual, fed, norm, shape)
    head = weights.embedding.linear(graph, normed, "embedding")
    graph.node("Identity", head, outputs=["logits"])
    return graph.model(name)


def _positions(graph: Graph, mask: str, shape: Shape) -> list[str]:
    """Return what attention derives positions from: last position by row, longest row, and rotations."""
    ones = graph.add("ReduceSum", mask, graph.integers(1), keepdims=0)
    last = graph.add("Cast", graph.add("Sub", ones, graph.integers(1)), to=_INT32)
    longest = graph.add("Squeeze", graph.add("Shape", mask, start=1, end=2))
    steps = shape.rope_base ** (-np.arange(0, shape.head, 2) / shape.head)
    angles = np.outer(np.arange(shape.context), steps)
    cosines, sines = (
        graph.constant(name, values.astype(np.float32))
        for name, values in (("cosines", np.cos(angles)), ("sines", np.sin(angles)))
    )
    return [last, graph.add("Cast", longest, to=_INT32), cosines, sines]


def _attention(graph: Graph, qkv: str, number: int, shape: Shape, positions: Sequence[str]) -> str:
    past = [f"past_key_values.{number}.{part}" for part in ("key", "value")]
    present = [f"present.{number}.{part}" for part in ("key", "value")]
    return graph.node(
        "GroupQueryAttention", qkv, "", "", *past, *positions, outputs=[f"mixed_{number}", *present],
        domain=_MICROSOFT, num_heads=shape.heads, kv_num_heads=shape.kv_heads, do_rotary=1, rotary_interleaved=0,
    )  # fmt: skip


def _feed_forward(graph: Graph, x: str, number: int, layer: Layer) -> str:
    both = layer.gate_up.linear(graph, x, f"{number}.gate_up")
    gate, up = f"gate_{number}", f"up_{number}"
    graph.node("Split", both, outputs=[gate, up], axis=-1, num_outputs=2)
    swish = graph.add("Mul", gate, graph.add("Sigmoid", gate))
    return layer.down.linear(graph, graph.add("Mul", swish, up), f"{number}.down")


def _add_and_norm(graph: Graph, x: str, y: str, norm: tuple[str, Array], shape: Shape) -> tuple[str, str]:
    """Return the normed sum, and the sum."""
    name, weight = norm
    outputs = [f"{name}.normed", "", "", f"{name}.sum"]
    graph.node(
        "SkipSimplifiedLayerNormalization", x, y, graph.constant(name, weight), outputs=outputs, domain=_MICROSOFT,
        epsilon=shape.epsilon,
    )  # fmt: skip
    return outputs[0], outputs[3]


def _last_token(graph: Graph, x: str) -> str:
    """Only the last token's logits are of use; of a long prompt all others would cost as much as the layers."""
    return graph.add("Slice", x, graph.integers(-1), graph.integers(2**62), graph.integers(1))
