"""MiniLM puts sentences of one meaning side by side, served by the inference server, which batches them."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from tokenizers import Tokenizer

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

PAIRS = [
    ("A cat sits on the sofa.", "A kitten is lying on the couch."),
    ("The stock market fell sharply today.", "Shares dropped on Wall Street."),
    ("How do I reset my password?", "I forgot my login credentials."),
]


async def test_paraphrases_are_near_and_other_sentences_far(serving_models, model_store) -> None:
    async with serving_models("minilm_l6_v2") as client:
        tokenizer = Tokenizer.from_file(str(model_store.files("minilm_l6_v2") / "tokenizer.json"))
        tokenizer.no_padding()
        sentences = [sentence for pair in PAIRS for sentence in pair]
        vectors = np.array(await asyncio.gather(*(_vector(client, tokenizer, sentence) for sentence in sentences)))
    cosines = vectors @ vectors.T
    near = cosines[range(0, 6, 2), range(1, 6, 2)]
    assert (near > 0.5).all()
    assert (near < 0.7).all()
    different = [cosines[row, column] for row in range(6) for column in range(6) if row // 2 != column // 2]
    assert max(different) < 0.15


async def _vector(client, tokenizer: Tokenizer, sentence: str):
    ids = np.array([tokenizer.encode(sentence).ids], np.int64)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    mean = (await client.infer("minilm_l6_v2", inputs))["last_hidden_state"][0].mean(0)
    return mean / np.linalg.norm(mean)
