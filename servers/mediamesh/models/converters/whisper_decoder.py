"""Whisper's decoder: CTranslate2's file to an ONNX file of one step, past keys and values being inputs."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from mediamesh.models.converters.graph import FLOAT, INT64, GraphBuilder
from mediamesh.models.converters.whisper import HEAD, KeyValue, Parts, read_whisper

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["convert"]

_BEYOND = np.array([2**62], np.int64)  # later than any place
_HIDDEN = -1e9  # makes a score vanish in a softmax


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx``, and beside it ``tokenizer.json`` and ``config.json``, which names what is never to be said.

    From ``tokens`` [B, T], the encoder's ``cross_k_L`` and ``cross_v_L`` [B, H, S, 64], and ``past_k_L`` and
    ``past_v_L`` [B, H, P, 64], P being 0 at first, to ``logits`` [B, 1, vocabulary] of the last token, and
    ``present_k_L`` and ``present_v_L`` [B, H, P + T, 64], which are the next step's past.

    Args:
        sources: ``weights``, a ``model.bin`` of CTranslate2; ``tokenizer.json``; ``config.json``.
        target: Folder to write into.

    Raises:
        BadWeights: the file of weights holds something else.
    """
    graph = GraphBuilder()
    parts = Parts(graph, read_whisper(sources["weights"]))
    tokens = graph.input("tokens", INT64, ["B", "T"])
    cross = [_inputs(parts, "cross", layer, "S") for layer in range(parts.layers)]
    past = [_inputs(parts, "past", layer, "P") for layer in range(parts.layers)]
    embeddings = graph.weights("embeddings.T", parts.weights["decoder/embeddings/weight"].T)
    start = graph.add("Shape", past[0].key, start=2, end=3)
    end = graph.add("Add", start, graph.add("Shape", tokens, start=1, end=2))
    states = _embedded(parts, tokens, embeddings, start, end)
    mask = _causal(graph, start, end)
    for layer in range(parts.layers):
        states = _layer(parts, states, layer, past=past[layer], cross=cross[layer], mask=mask)
    states = parts.normalised(states, "decoder/layer_norm")
    last = graph.add("Slice", states, graph.integers(-1), graph.constant("beyond", _BEYOND), graph.integers(1))
    vocabulary = parts.weights["decoder/embeddings/weight"].shape[0]
    graph.output(graph.add("MatMul", last, embeddings), "logits", FLOAT, ["B", 1, vocabulary])
    graph.save("whisper_decoder", target / "model.onnx", opset=20)
    for name in ("tokenizer.json", "config.json"):
        shutil.copyfile(sources[name], target / name)


def _inputs(parts: Parts, kind: str, layer: int, places: str) -> KeyValue:
    shape: list[int | str] = ["B", parts.heads, places, HEAD]
    return KeyValue(*(parts.graph.input(f"{kind}_{part}_{layer}", FLOAT, shape) for part in "kv"))


def _embedded(parts: Parts, tokens: str, embeddings: str, start: str, end: str) -> str:
    """Return the tokens' embeddings plus their places; [B, T, D]. The matrix is held once, as the output needs it."""
    graph = parts.graph
    rows = graph.add("Transpose", graph.add("Gather", embeddings, tokens, axis=1), perm=[1, 2, 0])
    places = parts.variable("decoder/position_encodings/encodings")
    return graph.add("Add", rows, graph.add("Slice", places, start, end, graph.integers(0)))


def _causal(graph: GraphBuilder, start: str, end: str) -> str:
    """Return what is added to scores [T, P + T], so that no token attends to a later one."""
    first, beyond = (graph.add("Squeeze", place) for place in (start, end))
    queries = graph.add("Range", first, beyond, graph.integer(1))
    keys = graph.add("Range", graph.integer(0), beyond, graph.integer(1))
    rows, columns = graph.add("Unsqueeze", queries, graph.integers(1)), graph.add("Unsqueeze", keys, graph.integers(0))
    seen = graph.add("LessOrEqual", columns, rows)
    return graph.add("Where", seen, graph.number(0.0), graph.number(_HIDDEN))


def _layer(parts: Parts, states: str, layer: int, *, past: KeyValue, cross: KeyValue, mask: str) -> str:
    graph, name = parts.graph, f"decoder/layer_{layer}"
    normal = parts.normalised(states, f"{name}/self_attention/layer_norm")
    query, new = parts.query_key_value(normal, f"{name}/self_attention/linear_0")
    memory = KeyValue(*(graph.add("Concat", *pair, axis=2) for pair in zip(past, new, strict=True)))
    for part, tensor in zip("kv", memory, strict=True):
        graph.output(tensor, f"present_{part}_{layer}", FLOAT, ["B", parts.heads, "P_T", HEAD])
    states = parts.plus(states, f"{name}/self_attention/linear_1", parts.attended(query, memory, mask))
    normal = parts.normalised(states, f"{name}/attention/layer_norm")
    query = parts.in_heads(parts.linear(normal, f"{name}/attention/linear_0"))
    states = parts.plus(states, f"{name}/attention/linear_2", parts.attended(query, cross))
    return parts.fed_forward(states, f"{name}/ffn")
