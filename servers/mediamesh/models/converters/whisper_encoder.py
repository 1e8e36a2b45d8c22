"""Whisper's encoder as nodes of ONNX: from a spectrogram to what the decoder attends to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mediamesh.models.converters.whisper import KeyValue, Parts

__all__ = ["cross_memory", "encoded"]


def encoded(parts: Parts, mel: str) -> str:
    """Return what the encoder makes of a spectrogram [B, 80, frames], at most 3000; [B, S, D], S being half of them."""
    states = _positioned(parts, mel)
    for layer in range(parts.layers):
        name = f"encoder/layer_{layer}"
        normal = parts.normalised(states, f"{name}/self_attention/layer_norm")
        query, memory = parts.query_key_value(normal, f"{name}/self_attention/linear_0")
        states = parts.plus(states, f"{name}/self_attention/linear_1", parts.attended(query, memory))
        states = parts.fed_forward(states, f"{name}/ffn")
    return parts.normalised(states, "encoder/layer_norm")


def cross_memory(parts: Parts, states: str, layer: int) -> KeyValue:
    """Return what a layer of the decoder attends to: the same for every token, so it is computed once."""
    return parts.key_value(states, f"decoder/layer_{layer}/attention/linear_1")


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
