"""Whisper's encoder: CTranslate2's file to an ONNX file that turns a spectrogram into what the decoder attends to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.models.converters.graph import FLOAT, GraphBuilder
from mediamesh.models.converters.whisper import HEAD, Parts, read_whisper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``: ``mel`` [B, 80, frames] to ``cross_k_L`` and ``cross_v_L`` [B, H, S, 64] of each layer L.

    The keys and values of the decoder's cross-attention are the same for every token, so they are computed here, once.
    There are at most 3000 frames.

    Args:
        sources: ``weights``, a ``model.bin`` of CTranslate2.
        target: Folder to write into.

    Raises:
        BadWeights: the file holds something else.
    """
    weights = read_whisper(sources["weights"])
    graph = GraphBuilder()
    parts = Parts(graph, weights)
    states = _positioned(parts, graph.input("mel", FLOAT, ["B", weights["encoder/conv1/weight"].shape[1], "frames"]))
    for layer in range(parts.layers):
        name = f"encoder/layer_{layer}"
        normal = parts.normalised(states, f"{name}/self_attention/layer_norm")
        query, memory = parts.query_key_value(normal, f"{name}/self_attention/linear_0")
        states = parts.plus(states, f"{name}/self_attention/linear_1", parts.attended(query, memory))
        states = parts.fed_forward(states, f"{name}/ffn")
    states = parts.normalised(states, "encoder/layer_norm")
    for layer in range(parts.layers):
        cross = parts.key_value(states, f"decoder/layer_{layer}/attention/linear_1")
        graph.output(cross.key, f"cross_k_{layer}", FLOAT, ["B", parts.heads, "S", HEAD])
        graph.output(cross.value, f"cross_v_{layer}", FLOAT, ["B", parts.heads, "S", HEAD])
    graph.save("whisper_encoder", target / "model.onnx", opset=20)


def _positioned(parts: Parts, mel: str) -> str:
    """Return the spectrogram after both convolutions, the second of which halves its length, plus places; [B, S, D]."""
    graph, states = parts.graph, mel
    for name, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
        given = (parts.variable(f"{name}/weight"), parts.variable(f"{name}/bias"))
        states = graph.add("Conv", states, *given, kernel_shape=[3], strides=[stride], pads=[1, 1])
        states = graph.add("Gelu", states)
    states = graph.add("Transpose", states, perm=[0, 2, 1])
    length = graph.add("Shape", states, start=1, end=2)
    places = parts.variable("encoder/position_encodings/encodings")
    return graph.add("Add", states, graph.add("Slice", places, graph.integers(0), length, graph.integers(0)))
