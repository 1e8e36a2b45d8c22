"""Writes small GGUF files of SmolLM2's kind, for tests of what reads them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["HIDDEN", "INNER", "VOCABULARY", "write_smollm"]

HIDDEN, INNER, HEADS, KV_HEADS, LAYERS = 64, 96, 4, 2, 2
VOCABULARY = 64
_F32, _Q4_1, _Q8_0 = 0, 3, 8
_BLOCK = 32


def write_smollm(path: Path, changes: Mapping[str, Any] | None = None) -> dict[str, np.ndarray]:
    """Write a file of random weights; returns their exact values by name."""
    letters = [chr(code) for code in range(33, 33 + VOCABULARY - 3)]
    metadata: dict[str, Any] = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": HIDDEN,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.vocab_size": VOCABULARY,
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters],
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * len(letters)],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 2,
        **(changes or {}),
    }
    random = np.random.default_rng(11)
    keys = HIDDEN * KV_HEADS // HEADS
    tensors: dict[str, tuple[int, tuple[int, ...]]] = {"token_embd.weight": (_Q8_0, (VOCABULARY, HIDDEN))}
    for layer in range(LAYERS):
        shapes = {
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (keys, HIDDEN),
            "attn_v": (keys, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }
        tensors |= {f"blk.{layer}.{name}.weight": (_Q4_1, shape) for name, shape in shapes.items()}
        tensors |= {f"blk.{layer}.{name}.weight": (_F32, (HIDDEN,)) for name in ("attn_norm", "ffn_norm")}
    tensors["output_norm.weight"] = (_F32, (HIDDEN,))

    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    body, values = b"", {}
    for name, (kind, shape) in tensors.items():
        raw, values[name] = _random(random, kind, shape)
        head += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        head += struct.pack("<IQ", kind, len(body))
        body += raw + bytes(-len(raw) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + body)
    return values


def _random(random: np.random.Generator, kind: int, shape: tuple[int, ...]) -> tuple[bytes, np.ndarray]:
    if kind == _F32:
        values = random.normal(1, 0.1, shape).astype(np.float32)
        return values.tobytes(), values
    blocks = int(np.prod(shape)) // _BLOCK
    scale = random.uniform(0.01, 0.03, (blocks, 1)).astype(np.float16)
    if kind == _Q8_0:
        quants = random.integers(-127, 128, (blocks, _BLOCK)).astype(np.int8)
        values = scale.astype(np.float32) * quants
        return np.concatenate([scale.view(np.uint8), quants.view(np.uint8)], 1).tobytes(), values.reshape(shape)
    offset = random.uniform(-0.3, 0, (blocks, 1)).astype(np.float16)
    nibbles = random.integers(0, 16, (blocks, _BLOCK)).astype(np.uint8)
    packed = nibbles[:, :16] | nibbles[:, 16:] << 4
    raw = np.concatenate([scale.view(np.uint8), offset.view(np.uint8), packed], 1).tobytes()
    return raw, (scale.astype(np.float32) * nibbles + offset.astype(np.float32)).reshape(shape)


def _value(value: Any) -> bytes:
    if isinstance(value, list):
        kind = 8 if not value or isinstance(value[0], str) else 5
        packed = (_text(item) if kind == 8 else struct.pack("<i", item) for item in value)
        return struct.pack("<IIQ", 9, kind, len(value)) + b"".join(packed)
    match value:
        case str():
            return struct.pack("<I", 8) + _text(value)
        case float():
            return struct.pack("<If", 6, value)
        case _:
            return struct.pack("<II", 4, value)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
