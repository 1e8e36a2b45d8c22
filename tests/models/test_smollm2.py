"""SmolLM2 in the inference server: the text of the reference, alone and among others, as it is made."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import numpy as np
import pytest

from mediamesh.inference.generation.decoder import Decoder

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

MODEL = "smollm2_135m"
QUESTION = "What is the capital of France? Tell me one fact about it."


@pytest.fixture(scope="module")
async def client(serving_models):
    async with serving_models(MODEL) as client:
        yield client


async def said(client, *messages: str, **parameters) -> str:
    inputs = {"messages": np.array(messages)}
    stream = client.stream(MODEL, inputs, outputs=["text_output"], parameters={"stream": True, **parameters})
    return "".join([answer["text_output"][0].decode() async for answer in stream])


async def test_the_capital_of_france_is_paris(client) -> None:
    assert await said(client, QUESTION) == "The capital of France is Paris."


async def test_a_conversation_goes_on_from_what_was_said(client) -> None:
    assert "Paris" in await said(client, "Which city is the capital of France?", "Paris.", "Say its name again.")


async def test_eight_at_once_answer_what_one_answers(client) -> None:
    # 8-bit products differ between shapes of a batch, so only the clear beginning of an answer is the same.
    answers = await asyncio.gather(*(said(client, QUESTION) for _ in range(8)))
    assert {answer[:24] for answer in answers} == {"The capital of France is"}


async def test_the_first_tokens_come_before_the_others_are_made(client, monkeypatch) -> None:
    go_on, step = threading.Event(), Decoder.step

    def held(self, tokens, lengths):
        assert go_on.wait(60)
        return step(self, tokens, lengths)

    monkeypatch.setattr(Decoder, "step", held)
    inputs = {"messages": np.array(["Write a story about a lighthouse."])}
    parameters = {"stream": True, "max_tokens": 20}
    async with aclosing(client.stream(MODEL, inputs, parameters=parameters)) as stream:
        first = await anext(stream)
        go_on.set()
        rest = [answer async for answer in stream]
    assert first["num_output_tokens"][0] == 1
    assert rest[-1]["num_output_tokens"][0] == 20


async def test_a_seed_tells_the_same_story_twice(client) -> None:
    sampling = {"max_tokens": 30, "temperature": 0.8, "top_p": 0.95, "repetition_penalty": 1.1}
    one, same, other = [await said(client, "Write a story.", seed=seed, **sampling) for seed in (1, 1, 2)]
    assert one == same != other


async def test_words_of_other_alphabets_come_whole(client) -> None:
    answer = await said(client, "Repeat: naïve café, Привет, 日本語, 😀", max_tokens=48)
    assert "\ufffd" not in answer
