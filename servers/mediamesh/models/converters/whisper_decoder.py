"""Whisper's decoder as nodes of ONNX: some tokens further, with keys and values of those before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mediamesh.models.converters.whisper import KeyValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.models.converters.whisper import Parts

__all__ = ["Step", "step"]

_HIDDEN = -1e9  # makes a score vanish in a softmax


class Step(NamedTuple):
    """What the decoder makes of its tokens.

    Attributes:
        logits: Of the last token, [B, vocabulary].
        memory: Keys and values by layer, [B, H, P + T, 64]: the past of the next step.
        queries: What each layer asks the sound, [B, H, T, 64].
        length: Number of places in the memory; a vector of one.
    """

    logits: str
    memory: Sequence[KeyValue]
    queries: Sequence[str]
    length: str


def step(parts: Parts, tokens: str, past: Sequence[KeyValue], cross: Sequence[KeyValue]) -> Step:
    """Add one step of the decoder.

    Args:
        parts: The net.
        tokens: The new tokens, [B, T].
        past: Keys and values of the tokens before, by layer; [B, H, P, 64].
        cross: Those of the sound, by layer; [B, H, S, 64].
    """
    graph = parts.graph
    start = graph.add("Shape", past[0].key, start=2, end=3)
    end = graph.add("Add", start, graph.add("Shape", tokens, start=1, end=2))
    places = graph.add("Slice", parts.variable("decoder/position_encodings/encodings"), start, end, graph.integers(0))
    states = graph.add("Add", parts.embedded(tokens), places)
    mask = _causal(parts, start, end)
    memory, queries = [], []
    for layer, (before, sound) in enumerate(zip(past, cross, strict=True)):
        name = f"decoder/layer_{layer}"
        normal = parts.normalised(states, f"{name}/self_attention/layer_norm")
        query, new = parts.query_key_value(normal, f"{name}/self_attention/linear_0")
        memory.append(KeyValue(*(graph.add("Concat", *pair, axis=2) for pair in zip(before, new, strict=True))))
        states = parts.plus(states, f"{name}/self_attention/linear_1", parts.attended(query, memory[-1], mask))
        normal = parts.normalised(states, f"{name}/attention/layer_norm")
        queries.append(parts.in_heads(parts.linear(normal, f"{name}/attention/linear_0")))
        states = parts.plus(states, f"{name}/attention/linear_2", parts.attended(queries[-1], sound))
        states = parts.fed_forward(states, f"{name}/ffn")
    last = graph.add("Squeeze", graph.add("Gather", states, graph.integers(-1), axis=1), graph.integers(1))
    logits = parts.scores(parts.normalised(last, "decoder/layer_norm"))
    return Step(logits, memory, queries, end)


def _causal(parts: Parts, start: str, end: str) -> str:
    """Return what is added to scores [T, P + T], so that no token attends to a later one."""
    graph = parts.graph
    first, beyond = (graph.add("Squeeze", place) for place in (start, end))
    queries = graph.add("Range", first, beyond, graph.integer(1))
    keys = graph.add("Range", graph.integer(0), beyond, graph.integer(1))
    rows, columns = graph.add("Unsqueeze", queries, graph.integers(1)), graph.add("Unsqueeze", keys, graph.integers(0))
    seen = graph.add("LessOrEqual", columns, rows)
    return graph.add("Where", seen, graph.number(0.0), graph.number(_HIDDEN))
