"""A decoder of random weights, two layers and some hundred tokens, written with the converters' own graph builder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from mediamesh.models.converters.decoder_graph import Dense, Layer, Shape, Weights, build

__all__ = ["CONTEXT", "SPECIAL", "add_decoder", "printable_tokenizer", "tokenizer"]

CONTEXT = 512
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_PRINTABLE = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]  # the last two stand for space and line feed
_CONFIG = 'backend: "mediamesh_decoder" model_transaction_policy { decoupled: true } '


def add_decoder(repository: Path, name: str = "tiny", config: str = "", *, seed: int = 7, **generation) -> Path:
    """Write such a model into a repository and return its directory."""
    directory = repository / name
    version = directory / "1"
    version.mkdir(parents=True)
    words = printable_tokenizer()
    onnx.save(_model(words.get_vocab_size(), seed), version / "model.onnx")
    (version / "tokenizer.json").write_text(words.to_str())
    facts = {"context_tokens": CONTEXT, "end_token_ids": [], "chat": {"template": "chatml", "system": "Be kind."}}
    (version / "generation.json").write_text(json.dumps({**facts, **generation}))
    (directory / "config.pbtxt").write_text(_CONFIG + config)
    return directory


def printable_tokenizer() -> Tokenizer:
    """Every printable character of ASCII is a token, and so are the special ones."""
    return tokenizer(_PRINTABLE)


def tokenizer(alphabet) -> Tokenizer:
    """Tokens are the letters of an alphabet of bytes, as ByteLevel spells them."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return made


def _model(vocabulary: int, seed: int) -> onnx.ModelProto:
    shape = Shape(
        hidden=64, heads=4, kv_heads=2, context=CONTEXT, vocabulary=vocabulary, rope_base=1e4, epsilon=1e-5
    )  # fmt: skip
    random = np.random.default_rng(seed)

    def matrix(outputs: int, inputs: int) -> Dense:
        return Dense(random.normal(size=(outputs, inputs), scale=2 / np.sqrt(inputs)).astype(np.float32))

    ones = np.ones(shape.hidden, np.float32)
    layers = [
        Layer(
            attention_norm=ones,
            qkv=matrix(8 * shape.head, shape.hidden),
            output=matrix(shape.hidden, shape.hidden),
            feed_forward_norm=ones,
            gate_up=matrix(2 * 96, shape.hidden),
            down=matrix(shape.hidden, 96),
        )
        for _ in range(2)
    ]
    embedding = matrix(vocabulary, shape.hidden)
    embedding.values[: len(SPECIAL)] = 0  # special tokens have no text, which tests would miss
    return build("tiny", shape, Weights(embedding=embedding, layers=layers, norm=ones), accuracy_level=0)
