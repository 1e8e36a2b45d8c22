"""The set ``speech`` hears, says and cuts what it should, served by the inference server."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mediamesh.client.inference import InferenceClient
from tests.models import speech

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

BECKETT = "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better."
FOX = "the quick brown fox jumps over the lazy dog"
PHONEMES = "ðə kwˈɪk bɹˈaʊn fˈɑːks dʒˈʌmps ˌoʊvɚ ðə lˈeɪzi dˈɔːɡ."  # noqa: RUF001 - letters of the IPA
# A Tale of Two Cities, book 1, chapter 1.
DICKENS = """
It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness, it was
the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was the season of Darkness, it was
the spring of hope, it was the winter of despair, we had everything before us, we had nothing before us, we were all
going direct to Heaven, we were all going direct the other way -- in short, the period was so far like the present
period, that some of its noisiest authorities insisted on its being received, for good or for evil, in the superlative
degree of comparison only.
"""


@pytest.fixture(scope="module")
def recordings(model_store):
    model_store.pull(model_store.manifest.choose(["speech_samples"]))
    folder = model_store.files("speech_samples")
    return {name: speech.read(folder / f"{name}.wav") for name in ("beckett", "two_cities")}


@pytest.mark.parametrize(("name", "text"), [("beckett", BECKETT), ("two_cities", DICKENS)], ids=["beckett", "dickens"])
async def test_whisper_makes_no_mistake_in_the_recordings(serving_models, model_store, recordings, name, text) -> None:
    async with serving_models("whisper_tiny_en") as client:
        heard = await speech.transcribe(client, recordings[name], model_store.files("whisper_tiny_en"))
    assert speech.word_error_rate(speech.words(text), speech.words(heard)) == 0, heard


async def test_silero_finds_the_six_phrases_and_no_speech_in_noise(serving_models, recordings) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, speech.RATE).astype(np.float32)
    async with serving_models("silero_vad") as client:
        likely = await _speech(client, recordings["beckett"]) > 0.5
        assert np.count_nonzero(np.diff(np.r_[False, likely]) & likely) == 6
        assert (await _speech(client, noise)).max() < 0.1


async def _speech(client: InferenceClient, samples: np.ndarray) -> np.ndarray:
    state, likely = np.zeros((1, 320), np.float32), []
    for frame in samples[: len(samples) // 512 * 512].reshape(-1, 1, 512):
        answer = await client.infer("silero_vad", {"audio": frame, "state": state})
        likely.append(float(answer["speech"][0, 0]))
        state = answer["next_state"]
    return np.array(likely)


async def test_smart_turn_knows_a_finished_sentence_from_a_broken_one(serving_models, recordings) -> None:
    whole, broken = recordings["beckett"], recordings["two_cities"][: 12 * speech.RATE]
    async with serving_models("smart_turn") as client:
        assert await _finished(client, whole) > 0.9
        assert await _finished(client, broken) < 0.1


async def _finished(client: InferenceClient, samples: np.ndarray) -> float:
    last = samples[-8 * speech.RATE :]
    last = np.pad(last, (8 * speech.RATE - len(last), 0))
    scaled = ((last - last.mean()) / np.sqrt(last.var() + 1e-7)).astype(np.float32)
    answer = await client.infer("smart_turn", {"input_features": speech.log_mel(scaled)})
    return float(answer["logits"][0, 0])


async def test_piper_says_the_same_each_time_and_whisper_understands_it(serving_models, model_store) -> None:
    async with serving_models("piper_en_us_joe", "whisper_tiny_en") as client:
        voice = json.loads((model_store.files("piper_en_us_joe") / "voice.json").read_text())
        ids = _ids(voice, PHONEMES)
        inputs = {
            "input": ids,
            "input_lengths": np.array([ids.shape[1]], np.int64),
            "scales": np.array([0, 1, 0], np.float32),
        }
        said = [(await client.infer("piper_en_us_joe", inputs))["output"] for _ in range(2)]
        np.testing.assert_array_equal(*said)
        sound = speech.resampled(said[0].ravel(), voice["audio"]["sample_rate"])
        padded = np.pad(sound, (0, 28 * speech.RATE - len(sound)))
        heard = await speech.transcribe(client, padded, model_store.files("whisper_tiny_en"))
    assert speech.words(heard) == speech.words(FOX)


def _ids(voice: dict[str, Any], phonemes: str) -> np.ndarray:
    table = voice["phoneme_id_map"]
    ids = [*table["^"], 0]
    for symbol in phonemes:
        ids += [*table[symbol], 0]
    return np.array([[*ids, *table["$"]]], np.int64)


def test_the_dictionaries_know_how_words_are_said(model_store) -> None:
    model_store.pull(model_store.manifest.choose(["english_g2p"]))
    folder = model_store.files("english_g2p")
    assert json.loads((folder / "us_gold.json").read_text(encoding="utf-8"))["weather"] == "wˈɛðəɹ"  # noqa: RUF001 - IPA
    with np.load(folder / "oov_bart_en_us.npz") as weights:  # no pickles in it
        assert all(weights[name].dtype.kind in "fiuUS" for name in weights.files)
