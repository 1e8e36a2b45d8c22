"""SmolLM2-135M-Instruct: a GGUF file becomes an ONNX decoder of four-bit weights, bit for bit the same values.

Q4_1 matrices and the Q8_0 embedding keep their bits; norms are FP32. GGUF keeps the rows of queries and keys in the
order of interleaved rotation; here they go half against half.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mediamesh.models.converters.decoder_graph import EightBits, FourBits, Layer, Shape, Weights, build
from mediamesh.models.converters.gguf import Q4_1, Q8_0, Gguf, blocks_of_eight_bits, blocks_of_four_bits
from mediamesh.models.errors import BadWeights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    Array = np.ndarray[Any, Any]

__all__ = ["convert"]

_CONTROL = 3  # token type of the GGUF vocabulary
_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_MOST_LAYERS = 256
_MOST_TOKENS = 1 << 20


def convert(sources: Mapping[str, Path], target: Path) -> None:
    """Write model.onnx, tokenizer.json and generation.json.

    Args:
        sources: ``weights`` is the GGUF file.
        target: The directory to write into.

    Raises:
        BadWeights: the file is no GGUF file of such a model.
    """
    file = Gguf(sources["weights"])
    if file.metadata.get("general.architecture") != "llama" or file.metadata.get("tokenizer.ggml.pre") != "smollm":
        raise BadWeights(f"{sources['weights']}: is no SmolLM model: architecture or tokenizer differ.")
    shape = _shape(file)
    model = build("smollm2", shape, _weights(file, shape), accuracy_level=4)
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(model, target / "model.onnx")
    (target / "tokenizer.json").write_text(_tokenizer(file).to_str(), encoding="utf-8")
    generation = {
        "context_tokens": shape.context,
        "end_token_ids": sorted({0, file.integer("tokenizer.ggml.eos_token_id")}),  # 0 is <|endoftext|>
        "chat": {"template": "chatml", "system": _SYSTEM},
    }
    (target / "generation.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def _shape(file: Gguf) -> Shape:
    shape = Shape(
        hidden=file.integer("llama.embedding_length"),
        heads=file.integer("llama.attention.head_count"),
        kv_heads=file.integer("llama.attention.head_count_kv"),
        context=file.integer("llama.context_length"),
        vocabulary=file.integer("llama.vocab_size"),
        rope_base=file.number("llama.rope.freq_base"),
        epsilon=file.number("llama.attention.layer_norm_rms_epsilon"),
    )
    sane = (
        0 < shape.kv_heads <= shape.heads <= shape.hidden <= 1 << 16
        and shape.heads % shape.kv_heads == 0
        and shape.hidden % (2 * shape.heads) == 0
        and 0 < shape.context <= 1 << 20
        and 0 < shape.vocabulary <= _MOST_TOKENS
        and shape.rope_base > 1
    )
    if not sane:
        raise BadWeights(f"The GGUF file describes a model that cannot be: {shape}.")
    return shape


def _weights(file: Gguf, shape: Shape) -> Weights:
    layers, inner = file.integer("llama.block_count"), file.integer("llama.feed_forward_length")
    if not 0 < layers <= _MOST_LAYERS or not 0 < inner <= 1 << 20:
        raise BadWeights(f"The GGUF file claims {layers} layers with {inner} inner units.")
    hidden, keys = shape.hidden, shape.kv_heads * shape.head

    def layer(number: int) -> Layer:
        name = f"blk.{number}."
        queries = _four_bits(file, f"{name}attn_q.weight", (hidden, hidden))
        own = _four_bits(file, f"{name}attn_k.weight", (keys, hidden))
        values = _four_bits(file, f"{name}attn_v.weight", (keys, hidden))
        gate, up = (_four_bits(file, f"{name}ffn_{part}.weight", (inner, hidden)) for part in ("gate", "up"))
        return Layer(
            attention_norm=file.floats(f"{name}attn_norm.weight", (hidden,)),
            qkv=_stacked([_halved(queries, shape.heads), _halved(own, shape.kv_heads), values]),
            output=_four_bits(file, f"{name}attn_output.weight", (hidden, hidden)),
            feed_forward_norm=file.floats(f"{name}ffn_norm.weight", (hidden,)),
            gate_up=_stacked([gate, up]),
            down=_four_bits(file, f"{name}ffn_down.weight", (hidden, inner)),
        )

    embedding = file.raw("token_embd.weight", (shape.vocabulary, hidden), Q8_0)
    return Weights(
        embedding=EightBits(*blocks_of_eight_bits(embedding, shape.vocabulary)),
        layers=[layer(number) for number in range(layers)],
        norm=file.floats("output_norm.weight", (hidden,)),
    )


def _four_bits(file: Gguf, name: str, shape: tuple[int, int]) -> FourBits:
    return FourBits(*blocks_of_four_bits(file.raw(name, shape, Q4_1), shape[0]))


def _stacked(matrices: Sequence[FourBits]) -> FourBits:
    """Put matrices of the same input above each other: one multiplication instead of several."""
    return FourBits(
        *(np.concatenate([getattr(matrix, part) for matrix in matrices]) for part in ("quants", "scales", "offsets"))
    )


def _halved(matrix: FourBits, heads: int) -> FourBits:
    """Reorder the rows of every head from interleaved rotation to half against half."""
    rows = matrix.scales.shape[0]
    order = np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)
    return FourBits(matrix.quants[order], matrix.scales[order], matrix.offsets[order])


def _tokenizer(file: Gguf) -> Tokenizer:
    tokens, merges = file.texts("tokenizer.ggml.tokens"), file.texts("tokenizer.ggml.merges")
    kinds = file.metadata.get("tokenizer.ggml.token_type")
    pairs = [tuple(merge.split(" ")) for merge in merges]
    if (
        len(tokens) != file.integer("llama.vocab_size")
        or not isinstance(kinds, list)
        or len(kinds) != len(tokens)
        or any(len(pair) != 2 for pair in pairs)
    ):
        raise BadWeights("The GGUF file's vocabulary, token types and merges do not belong together.")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=pairs))  # type: ignore[arg-type]  # lengths are checked
    except Exception as error:  # tokenizers raises bare exceptions
        raise BadWeights(f"The GGUF file's merges do not fit its vocabulary: {error}") from error
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer
