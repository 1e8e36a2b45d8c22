"""Whisper in one graph: from a spectrogram to tokens, how sure they are, and where in the sound each was heard.

The decoder runs in a Loop inside of the graph, so that one request to a server gives a whole text and keys and values
never leave it. Tokens are chosen greedily; what Whisper never says outside of its training is suppressed.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.models.converters.graph import BOOL, FLOAT, INT64, STRING, GraphBuilder
from mediamesh.models.converters.whisper import HEAD, KeyValue, NarrowParts, Parts, RoundedParts, read_whisper
from mediamesh.models.converters.whisper_decoder import Step, step
from mediamesh.models.converters.whisper_encoder import cross_memory, encoded
from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from onnx import GraphProto

__all__ = ["convert"]

_END = 50256  # <|endoftext|> of the English models, and the first of the special tokens
_PROMPT_LENGTH = 2
_NEVER = -1e9
_LEAST_VARIANCE = 1e-12


class _Config(NamedTuple):
    """What the package says about the model: see :func:`convert`."""

    suppressed: list[int]
    suppressed_first: list[int]
    alignment_heads: list[tuple[int, int]]


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write ``model.onnx`` and ``tokenizer.json``.

    Inputs:

    - ``mel`` [B, 80, frames]: log-mel spectrogram, a frame every 10 ms, 3000 at most.
    - ``prompt`` [B, P]: what is given of the text: the tokens that start it, and what else is known already.
    - ``limit`` [B, 1]: most tokens to add.

    Outputs, where N is the number of tokens added to the longest row and S = frames / 2:

    - ``tokens`` [B, N]: the end of text, 50256, fills up the shorter rows.
    - ``pieces`` [B, N]: their texts, as byte-level BPE writes bytes; special tokens have none.
    - ``probabilities`` [B, N]: of each token.
    - ``alignment`` [B, P + N - 1, S]: how much the step that gave the *next* token looked at each 20 ms of sound, in
      standard deviations over the steps, mean of the heads that follow the speech (OpenAI's Whisper, timing.py).

    Args:
        sources: ``weights``, a ``model.bin`` of CTranslate2; ``tokenizer.json``; ``config.json``, which names what is
            never to be said and the heads that follow the speech.
        target: Folder to write into.

    Raises:
        BadWeights: a file holds something else.
    """
    weights, config = read_whisper(sources["weights"]), _config(sources["config.json"])
    graph = GraphBuilder()
    parts = RoundedParts(graph, weights)
    mel = graph.input("mel", FLOAT, ["B", weights["encoder/conv1/weight"].shape[1], "frames"])
    prompt, limit = graph.input("prompt", INT64, ["B", "P"]), graph.input("limit", INT64, ["B", 1])
    states = encoded(parts, mel)
    cross = [cross_memory(parts, states, layer) for layer in range(parts.layers)]
    body = _body(NarrowParts(GraphBuilder("step/"), weights), cross, limit, config)
    batch = graph.add("Shape", prompt, start=0, end=1)
    none = graph.add("ConstantOfShape", graph.add("Concat", batch, graph.integers(parts.heads, 0, HEAD), axis=0))
    one = graph.add("Squeeze", graph.integers(1))
    carried = [prompt, graph.add("Greater", limit, graph.integers(0)), *([none] * (3 * parts.layers))]
    most, go_on = graph.add("ReduceMax", limit, keepdims=0), graph.add("Cast", one, to=BOOL)
    made = graph.split("Loop", most, go_on, *carried, into=len(carried) + 2, body=body)
    tokens, probabilities = (
        graph.add("Transpose", graph.add("Squeeze", scanned, graph.integers(2)), perm=[1, 0]) for scanned in made[-2:]
    )
    graph.output(tokens, "tokens", INT64, ["B", "N"])
    texts = graph.constant("texts", _texts(sources["tokenizer.json"], parts.vocabulary))
    graph.output(graph.add("Gather", texts, tokens), "pieces", STRING, ["B", "N"])
    graph.output(probabilities, "probabilities", FLOAT, ["B", "N"])
    queries = made[2 + 2 * parts.layers : 2 + 3 * parts.layers]
    graph.output(_alignment(graph, queries, cross, config), "alignment", FLOAT, ["B", "steps", "S"])
    graph.save("whisper_transcriber", target / "model.onnx", opset=20)
    shutil.copyfile(sources["tokenizer.json"], target / "tokenizer.json")


def _config(path: Path) -> _Config:
    config = json.loads(path.read_text("utf-8"))
    try:
        heads = [(int(layer), int(head)) for layer, head in config["alignment_heads"]]
        return _Config(config["suppress_ids"], config["suppress_ids_begin"], heads)
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{path.name}: it does not say what a Whisper's does: {error}") from error


def _texts(path: Path, count: int) -> np.ndarray[Any, Any]:
    """Return the text of every token; none for those that are special."""
    texts = np.full(count, "", object)
    try:
        for text, token in json.loads(path.read_text("utf-8"))["model"]["vocab"].items():
            if token < _END:
                texts[token] = text
    except (KeyError, AttributeError, TypeError) as error:
        raise BadWeights(f"{path.name}: there is no vocabulary in it: {error}") from error
    return texts


def _body(parts: Parts, cross: Sequence[KeyValue], limit: str, config: _Config) -> GraphProto:
    """Return what runs once for each token; it takes and gives tokens, who goes on, memory and queries by layer."""
    graph = parts.graph
    number, _ = graph.input("step/number", INT64, []), graph.input("step/go_on", BOOL, [])
    tokens, running = graph.input("step/tokens", INT64, ["B", "T"]), graph.input("step/running", BOOL, ["B", 1])
    shape: list[int | str] = ["B", parts.heads, "past", HEAD]
    keys, values, asked = (
        [graph.input(f"step/{kind}_{layer}", FLOAT, shape) for layer in range(parts.layers)]
        for kind in ("key", "value", "query")
    )
    past = [KeyValue(*pair) for pair in zip(keys, values, strict=True)]
    made = step(parts, tokens, past, cross)
    token, probability = _chosen(parts, made, config)
    token = graph.add("Where", running, token, graph.integers(_END))
    within = graph.add("Less", graph.add("Add", number, graph.integer(1)), limit)
    unfinished = graph.add("Not", graph.add("Equal", token, graph.integers(_END)))
    running = graph.add("And", running, graph.add("And", within, unfinished))
    any_runs = graph.add("ReduceMax", graph.add("Cast", running, to=INT64), keepdims=0)
    graph.output(graph.add("Cast", any_runs, to=BOOL), "step/go_on_next", BOOL, [])
    graph.output(token, "step/tokens_next", INT64, ["B", "T_next"])
    graph.output(running, "step/running_next", BOOL, ["B", 1])
    queries = [graph.add("Concat", *pair, axis=2) for pair in zip(asked, made.queries, strict=True)]
    shape = ["B", parts.heads, "present", HEAD]
    for kind, tensors in (
        ("key", [memory.key for memory in made.memory]),
        ("value", [memory.value for memory in made.memory]),
        ("query", queries),
    ):
        for layer, tensor in enumerate(tensors):
            graph.output(tensor, f"step/{kind}_{layer}_next", FLOAT, shape)
    graph.output(token, "step/token", INT64, ["B", 1])
    graph.output(probability, "step/probability", FLOAT, ["B", 1])
    return graph.graph("step")


def _chosen(parts: Parts, made: Step, config: _Config) -> tuple[str, str]:
    """Return the likeliest token that may be said, and how likely it is among those; [B, 1] each."""
    graph = parts.graph
    never, never_first = np.zeros((2, parts.vocabulary), np.float32)
    never[[*config.suppressed, *range(_END + 1, parts.vocabulary)]] = _NEVER
    never_first[config.suppressed_first] = _NEVER
    is_first = graph.add("Equal", made.length, graph.integers(_PROMPT_LENGTH))
    first = graph.add("Where", is_first, graph.constant("never_first", never_first), graph.number(0.0))
    mask = graph.add("Add", graph.constant("never", never), first)
    logits = graph.add("Add", made.logits, mask)
    token = graph.add("ArgMax", logits, axis=-1, keepdims=1)
    best = graph.add("ReduceMax", logits, graph.integers(-1), keepdims=1)
    total = graph.add("ReduceLogSumExp", logits, graph.integers(-1), keepdims=1)
    return token, graph.add("Exp", graph.add("Sub", best, total))


def _alignment(graph: GraphBuilder, queries: Sequence[str], cross: Sequence[KeyValue], config: _Config) -> str:
    """Return how much each step looked at each place of the sound, as :func:`convert` has it."""
    looks = []
    for layer in sorted({layer for layer, _ in config.alignment_heads}):
        heads = graph.integers(*(head for of, head in config.alignment_heads if of == layer))
        query, key = (graph.add("Gather", tensor, heads, axis=1) for tensor in (queries[layer], cross[layer].key))
        scaled = graph.add("Mul", query, graph.number(HEAD**-0.5))
        scores = graph.add("MatMul", scaled, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
        looks.append(graph.add("Softmax", scores, axis=-1))
    together = graph.add("Concat", *looks, axis=1)
    mean = graph.add("ReduceMean", together, graph.integers(2), keepdims=1)
    apart = graph.add("Sub", together, mean)
    variance = graph.add("ReduceMean", graph.add("Mul", apart, apart), graph.integers(2), keepdims=1)
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.number(_LEAST_VARIANCE)))
    return graph.add("ReduceMean", graph.add("Div", apart, deviation), graph.integers(1), keepdims=0)
