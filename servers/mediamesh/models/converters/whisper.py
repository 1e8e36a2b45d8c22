"""The parts of Whisper (Radford et al. 2022) as nodes of ONNX, on weights in CTranslate2's names.

Heads are 64 wide, normalisation stands before each part. Shapes: B batch, T tokens given, P tokens before them, S
places of the encoder (two frames of the spectrogram each), D width of the model, H heads.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.models.converters.ctranslate2 import read_weights
from mediamesh.models.converters.graph import FLOAT, MICROSOFT, GraphBuilder
from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Array = np.ndarray[Any, Any]

__all__ = ["HEAD", "KeyValue", "NarrowParts", "Parts", "RoundedParts", "read_whisper"]

HEAD = 64  # width of an attention head
_EPSILON = 1e-5
_BLOCK = 128  # weights that share a scale


class KeyValue(NamedTuple):
    """Keys and values of one attention, [B, H, places, 64] each."""

    key: str
    value: str


def read_whisper(path: Path) -> dict[str, Array]:
    """Return the weights of a Whisper in CTranslate2's form.

    Raises:
        BadWeights: the file holds something else.
    """
    weights = read_weights(path, "WhisperSpec")
    for name in ("encoder/conv1/weight", "decoder/embeddings/weight"):
        if name not in weights:
            raise BadWeights(f"{path.name}: there is no {name} in it.")
    return weights


class Parts:
    """Adds parts of the net to a graph.

    Args:
        graph: Where nodes go.
        weights: The variables by CTranslate2's names.
    """

    def __init__(self, graph: GraphBuilder, weights: Mapping[str, Array]) -> None:
        self.graph, self.weights = graph, weights

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return int(self.weights["encoder/conv1/weight"].shape[0]) // HEAD

    @property
    def layers(self) -> int:
        """Number of layers, which is the same in encoder and decoder."""
        found = (re.match(r"encoder/layer_(\d+)/", name) for name in self.weights)
        return len({match[1] for match in found if match})

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self.weights["decoder/embeddings/weight"].shape[0])

    def variable(self, name: str) -> str:
        """Return a variable as a constant of float32."""
        return self.graph.weights(name, self.weights[name])

    def normalised(self, states: str, name: str) -> str:
        """Return layer-normalised states."""
        scale, shift = self.variable(f"{name}/gamma"), self.variable(f"{name}/beta")
        return self.graph.add("LayerNormalization", states, scale, shift, axis=-1, epsilon=_EPSILON)

    def linear(self, states: str, name: str) -> str:
        """Return states times the transposed weight, plus the bias where there is one."""
        weight = self.graph.weights(f"{name}/weight.T", self.weights[f"{name}/weight"].T)
        product = self.graph.add("MatMul", states, weight)
        if f"{name}/bias" not in self.weights:
            return product
        return self.graph.add("Add", product, self.variable(f"{name}/bias"))

    def in_heads(self, states: str) -> str:
        """Return [B, places, D] as [B, H, places, 64]."""
        parted = self.graph.add("Reshape", states, self.graph.integers(0, 0, self.heads, HEAD))
        return self.graph.add("Transpose", parted, perm=[0, 2, 1, 3])

    def query_key_value(self, states: str, name: str) -> tuple[str, KeyValue]:
        """Return query, key and value of self-attention, each [B, H, places, 64]."""
        query, key, value = self.graph.split("Split", self.linear(states, name), into=3, axis=-1, num_outputs=3)
        return self.in_heads(query), KeyValue(self.in_heads(key), self.in_heads(value))

    def key_value(self, states: str, name: str) -> KeyValue:
        """Return key and value of cross-attention, each [B, H, S, 64]."""
        key, value = self.graph.split("Split", self.linear(states, name), into=2, axis=-1, num_outputs=2)
        return KeyValue(self.in_heads(key), self.in_heads(value))

    def attended(self, query: str, memory: KeyValue, mask: str = "") -> str:
        """Return softmax(query keys^T / 8 + mask) values, as [B, places, D]; 8 is the root of a head's width."""
        scaled = self.graph.add("Mul", query, self.graph.number(HEAD**-0.5))
        scores = self.graph.add("MatMul", scaled, self.graph.add("Transpose", memory.key, perm=[0, 1, 3, 2]))
        if mask:
            scores = self.graph.add("Add", scores, mask)
        mixed = self.graph.add("MatMul", self.graph.add("Softmax", scores, axis=-1), memory.value)
        together = self.graph.add("Transpose", mixed, perm=[0, 2, 1, 3])
        return self.graph.add("Reshape", together, self.graph.integers(0, 0, -1))

    def plus(self, states: str, name: str, addition: str) -> str:
        """Return states plus a linear map of the addition."""
        return self.graph.add("Add", states, self.linear(addition, name))

    def fed_forward(self, states: str, name: str) -> str:
        """Return states plus what the two-layer perceptron makes of them."""
        inner = self.linear(self.normalised(states, f"{name}/layer_norm"), f"{name}/linear_0")
        return self.plus(states, f"{name}/linear_1", self.graph.add("Gelu", inner))

    def embedded(self, tokens: str) -> str:
        """Return the tokens' embeddings, [B, T, D]; the matrix is held once, as :meth:`scores` needs it."""
        rows = self.graph.add("Gather", self._embeddings(), tokens, axis=1)
        return self.graph.add("Transpose", rows, perm=[1, 2, 0])

    def scores(self, states: str) -> str:
        """Return the score of each token to be the next, from [..., D]."""
        return self.graph.add("MatMul", states, self._embeddings())

    def _embeddings(self) -> str:
        return self.graph.weights("embeddings.T", self.weights["decoder/embeddings/weight"].T)


class NarrowParts(Parts):
    """The same with matrices of 8 bits, in blocks that share a scale; sums are of integers, as activations are cut too.

    A step of one token reads every weight once, so it takes a quarter of the time.
    """

    def linear(self, states: str, name: str) -> str:
        """Return states times the transposed weight, plus the bias where there is one."""
        bias = f"{name}/bias"
        product = self._times(states, f"{name}/weight")
        return self.graph.add("Add", product, self.variable(bias)) if bias in self.weights else product

    def embedded(self, tokens: str) -> str:
        """Return the tokens' embeddings, [B, T, D]."""
        quants, scales = self._narrow("decoder/embeddings/weight")
        graph, (rows, blocks, block) = self.graph, _narrow(self.weights["decoder/embeddings/weight"])[0].shape
        by_row = graph.add("Reshape", scales, graph.integers(rows, blocks, 1))
        signed = graph.add("Sub", graph.add("Cast", graph.add("Gather", quants, tokens), to=FLOAT), graph.number(128.0))
        wide = graph.add("Mul", signed, graph.add("Gather", by_row, tokens))
        return graph.add("Reshape", wide, graph.integers(0, 0, blocks * block))

    def scores(self, states: str) -> str:
        """Return the score of each token to be the next, from [..., D]."""
        return self._times(states, "decoder/embeddings/weight")

    def _times(self, states: str, name: str) -> str:
        rows, columns = self.weights[name].shape
        return self.graph.add(
            "MatMulNBits", states, *self._narrow(name), domain=MICROSOFT, K=columns, N=rows, bits=8, block_size=_BLOCK,
            accuracy_level=4,
        )  # fmt: skip

    def _narrow(self, name: str) -> tuple[str, str]:
        quants, scales = _narrow(self.weights[name])
        return self.graph.constant(f"{name}.quants", quants), self.graph.constant(f"{name}.scales", scales.ravel())


def _narrow(weight: Array) -> tuple[Array, Array]:
    """Return a matrix [rows, columns] as 0 to 255 [rows, blocks, block] around 128, and scales [rows, blocks]."""
    blocks = weight.astype(np.float32).reshape(len(weight), -1, _BLOCK)
    scales = np.maximum(np.abs(blocks).max(-1), 1e-12) / 127
    return (np.round(blocks / scales[..., None]) + 128).astype(np.uint8), scales.astype(np.float32)


class RoundedParts(Parts):
    """The same with states and matrices rounded to 8 bits where they are multiplied: for many places at once.

    States have one scale for all of them, so what is heard depends a little on what is heard beside it in a batch.
    """

    def linear(self, states: str, name: str) -> str:
        """Return states times the transposed weight, plus the bias where there is one."""
        graph = self.graph
        quants, scales = _rounded(self.weights[f"{name}/weight"].astype(np.float32))
        rounded = graph.split("DynamicQuantizeLinear", states, into=3)
        weight = graph.constant(f"{name}/weight.quants", quants)
        product = graph.add("MatMulInteger", rounded[0], weight, rounded[2])
        scale = graph.add("Mul", rounded[1], graph.constant(f"{name}/weight.scales", scales))
        product = graph.add("Mul", graph.add("Cast", product, to=FLOAT), scale)
        bias = f"{name}/bias"
        return graph.add("Add", product, self.variable(bias)) if bias in self.weights else product


def _rounded(weight: Array) -> tuple[Array, Array]:
    """Return a matrix [rows, columns] transposed, as int8 with a scale for each of its rows."""
    scales = np.maximum(np.abs(weight).max(1), 1e-12) / 127
    return np.round(weight / scales[:, None]).astype(np.int8).T, scales.astype(np.float32)
