"""A GGUF file becomes a decoder of the same values, and a damaged one a sentence."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mediamesh.inference.generation.decoder import Decoder
from mediamesh.models.converters import smollm2
from mediamesh.models.errors import BadWeights
from tests.models.gguf_writer import HIDDEN, write_smollm

HEADS, KV_HEADS, HEAD = 4, 2, 16


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The weights of a GGUF file, and the directory of what was made of it."""
    folder = tmp_path_factory.mktemp("gguf")
    values = write_smollm(folder / "weights.gguf")
    smollm2.convert({"weights": folder / "weights.gguf"}, folder / "1")
    return values, folder


def reference(values, tokens) -> np.ndarray:
    """Return the logits after each token, in plain numpy and with the weights as GGUF has them."""
    angles = np.outer(np.arange(len(tokens)), 1e4 ** (-np.arange(0, HEAD, 2) / HEAD))[:, None]

    def rotated(x):  # neighbours are pairs, as in GGUF
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = [even * np.cos(angles) - odd * np.sin(angles), even * np.sin(angles) + odd * np.cos(angles)]
        return np.stack(turned, -1).reshape(x.shape)

    def normed(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * values[name]

    x = values["token_embd.weight"][tokens]
    for layer in range(2):
        own = {name.split(".")[2]: matrix for name, matrix in values.items() if name.startswith(f"blk.{layer}.")}
        h = normed(x, f"blk.{layer}.attn_norm.weight")
        q = rotated((h @ own["attn_q"].T).reshape(-1, HEADS, HEAD))
        k = rotated((h @ own["attn_k"].T).reshape(-1, KV_HEADS, HEAD)).repeat(HEADS // KV_HEADS, 1)
        v = (h @ own["attn_v"].T).reshape(-1, KV_HEADS, HEAD).repeat(HEADS // KV_HEADS, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(HEAD) + np.triu(np.full((len(tokens),) * 2, -1e9), 1)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("hqk,khd->qhd", weights, v).reshape(-1, HIDDEN) @ own["attn_output"].T
        h = normed(x, f"blk.{layer}.ffn_norm.weight")
        gate = h @ own["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ own["ffn_up"].T)) @ own["ffn_down"].T
    logits: np.ndarray = normed(x, "output_norm.weight") @ values["token_embd.weight"].T
    return logits


def test_the_decoder_computes_what_the_weights_say(converted) -> None:
    values, folder = converted
    tokens = [5, 9, 9, 33, 60, 1, 17]
    expected = reference(values, tokens)
    decoder = Decoder("m", folder / "1" / "model.onnx", rows=2, context=128, threads=1)
    got = [decoder.prefill(0, tokens[:4], 0).copy()]
    for position in range(4, len(tokens)):
        step = decoder.step(np.array(tokens[position : position + 1]), np.array([position + 1]))
        got.append(step[0].copy())
    cosines = [
        float(np.dot(own, wanted) / np.linalg.norm(own) / np.linalg.norm(wanted))
        for own, wanted in zip(got, expected[3:], strict=True)
    ]
    assert min(cosines) > 0.999  # the weights are the same; activations are rounded to 8 bits
    decoder.close()


def test_the_same_file_gives_the_same_bytes(converted, tmp_path) -> None:
    _, folder = converted
    smollm2.convert({"weights": folder / "weights.gguf"}, tmp_path)
    for name in ("model.onnx", "tokenizer.json", "generation.json"):
        assert (tmp_path / name).read_bytes() == (folder / "1" / name).read_bytes()
    assert json.loads((tmp_path / "generation.json").read_text())["end_token_ids"] == [0, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "mamba"}, "is no SmolLM model"),
        ({"llama.block_count": 9000}, "claims 9000 layers"),
        ({"llama.block_count": 3}, "no tensor 'blk.2"),
        ({"llama.embedding_length": 128}, r"token_embd.weight' has shape \[64, 64\]"),
        ({"llama.attention.head_count": 5}, "cannot be"),
        ({"llama.context_length": "long"}, "expected a whole number"),
        ({"tokenizer.ggml.merges": ["one two three"]}, "do not belong together"),
        ({"tokenizer.ggml.merges": ["? ??"]}, "do not fit its vocabulary"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "do not belong together"),
        ({"general.alignment": 7}, "power of two"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path, changes, message) -> None:
    write_smollm(tmp_path / "weights.gguf", changes)
    with pytest.raises(BadWeights, match=message):
        smollm2.convert({"weights": tmp_path / "weights.gguf"}, tmp_path / "1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"ONNX", "no GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "claims 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "cut short"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 4, 1 << 50), "a list of 1125899906842624"),
        (b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 9, 1), "of type 9"),
        (b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 99), "type 99"),
    ],
)
def test_a_file_that_lies_about_its_lengths_is_refused(tmp_path, content, message) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(content)
    with pytest.raises(BadWeights, match=message):
        smollm2.convert({"weights": path}, tmp_path / "1")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_anywhere_is_refused(converted, tmp_path, data) -> None:
    whole = (converted[1] / "weights.gguf").read_bytes()
    path = tmp_path / "weights.gguf"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 64))])
    with pytest.raises(BadWeights):
        smollm2.convert({"weights": path}, tmp_path / "1")
