"""The parts of the transcriber that need no model: where segments begin and end, times of words, repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from mediamesh.agents.audio_transcriber.activity import FRAME
from mediamesh.agents.audio_transcriber.hypothesis import Hypothesis
from mediamesh.agents.audio_transcriber.quiet import quietest
from mediamesh.agents.audio_transcriber.said import said_of
from mediamesh.agents.audio_transcriber.segments import MARGIN, Segmenter
from mediamesh.agents.audio_transcriber.sound import RATE
from mediamesh.agents.audio_transcriber.spectrogram import log_mel
from mediamesh.agents.audio_transcriber.words import Token, Word, starts, words_of
from tests.models import speech

SILENCE = np.zeros(RATE, np.float32)
PAUSE = 10 * FRAME / RATE


def segments(likely: list[float]) -> list[tuple[int, int | None]]:
    segmenter = Segmenter(PAUSE)
    ended = [*filter(None, map(segmenter.take, likely)), *filter(None, [segmenter.close()])]
    return [(segment.start, segment.end) for segment in ended]


def test_a_segment_is_speech_with_a_margin_and_ends_at_a_pause() -> None:
    likely = [0.0] * 20 + [0.9] * 30 + [0.0] * 10 + [0.9] * 5 + [0.0] * 9 + [0.9] * 5
    begin, end = 20 * FRAME - MARGIN, 50 * FRAME + MARGIN
    assert segments(likely) == [(begin, end), (60 * FRAME - MARGIN, 79 * FRAME)]


def test_a_click_is_no_speech_and_a_weak_moment_no_end_of_it() -> None:
    assert segments([0.0, 0.9, 0.9, 0.0] * 10) == []
    assert segments([0.9] * 5 + [0.4] * 40 + [0.9] * 5) == [(0, 50 * FRAME)]


def test_a_segment_that_is_cut_goes_on_behind_the_cut() -> None:
    segmenter = Segmenter(PAUSE)
    for _ in range(100):
        segmenter.take(0.9)
    first = segmenter.cut(60 * FRAME)
    assert (first.index, first.start, first.end, first.spoken_frames) == (0, 0, 60 * FRAME, 60)
    second = segmenter.close()
    assert second is not None
    assert (second.index, second.start, second.end, second.spoken_frames) == (1, 60 * FRAME, 100 * FRAME, 40)


def test_the_quietest_place_is_found() -> None:
    sound = np.ones(5 * RATE, np.float32)
    sound[3 * RATE : 4 * RATE] = 0.1
    assert 3 * RATE < quietest(sound, 0.3) < 4 * RATE
    assert quietest(sound[:100], 0.3) == 50


def test_the_spectrogram_is_whisper_s_and_silence_behind_the_sound_costs_nothing() -> None:
    sound = np.random.default_rng(3).normal(0, 0.1, 3 * RATE).astype(np.float32)
    reference = speech.log_mel(np.pad(sound, (0, 2 * RATE)))[0]
    np.testing.assert_allclose(log_mel(sound, 500), reference[:, :500], atol=2e-4)
    assert log_mel(np.zeros(0, np.float32), 100).shape == (80, 100)


def test_the_path_follows_what_each_step_looks_at() -> None:
    looks = np.zeros((4, 60))
    for step, place in enumerate((0, 12, 30, 50)):
        looks[step, place : place + 10] = 1
    found = starts(looks)
    assert found[0] == 0
    assert found[1:] == pytest.approx([12, 30, 50], abs=4)
    assert starts(np.ones((3, 1))) == [0, 0, 0]


def token(piece: str, number: int = 0) -> Token:
    return Token(number or sum(map(ord, piece)), piece, 0.5)


def test_words_begin_with_a_space_and_keep_their_punctuation_and_accents() -> None:
    pieces = ["Ġsome", "thing", ",", "Ġna", "\u00c3", "\u00af", "ve", 'Ġ"', "."]
    words = words_of([token(piece) for piece in pieces], [0.1 * place for place in range(10)], SILENCE)
    assert [word.text for word in words] == ["something,", 'naïve ".']
    assert (words[0].start, words[1].end, words[1].probability) == pytest.approx((0.0, 0.75, 0.5), abs=0.06)


def test_a_word_ends_in_the_pause_that_its_comma_looks_at() -> None:
    sound = np.ones(RATE, np.float32)
    sound[RATE // 2 : RATE * 6 // 10] = 0
    words = words_of([token("Ġyes"), token(","), token("Ġno")], [0.1, 0.4, 0.8, 0.9], sound)
    assert [word.start for word in words] == pytest.approx([0.1, 0.55], abs=0.05)
    assert words[0].end == words[1].start


@pytest.mark.parametrize(
    ("text", "sure", "kept"),
    [
        ("abcabcabc", True, "abc"),
        ("abcabc", True, "abcabc"),
        ("abcabc", False, "abc"),
        ("noo", False, "noo"),
        ("", True, ""),
    ],
)
def test_what_is_repeated_at_the_end_is_left_out(text: str, sure: bool, kept: str) -> None:  # noqa: FBT001 - a parameter
    said = said_of([*map(token, text), token("")], [*range(len(text) + 2)])
    tokens, begins = said.without_repeats(sure=sure)
    assert "".join(one.piece for one in tokens) == kept
    assert len(begins) == len(kept) + 1
    assert not said.goes_on


def word(text: str, start: float) -> Word:
    return Word(text, start, start + 0.3, (token(text),))


def test_words_that_two_hearings_agree_on_are_not_asked_again() -> None:
    hypothesis = Hypothesis(0)
    hypothesis.take([word("It", 0.5), word("was,", 1.0), word("bad", 1.5)], 2.0)
    assert hypothesis.known == []
    hypothesis.take([word("it", 0.5), word("was", 1.0), word("best", 1.5)], 2.5)
    assert [one.piece for one in hypothesis.known] == ["it", "was"]
    assert hypothesis.known_seconds == pytest.approx(1.3)


def test_a_long_segment_is_heard_from_its_last_pause_on() -> None:
    hypothesis = Hypothesis(RATE)
    heard = [word(text, 1.5 + place / 2) for place, text in enumerate("abcdefghij")]
    heard[6:] = [one._replace(start=one.start + 1, end=one.end + 1) for one in heard[6:]]
    hypothesis.take(heard, 8.0)
    hypothesis.take(heard, 8.5)
    assert 4.3 * RATE < hypothesis.begin < 5.5 * RATE  # in the pause of 1.2 s
    assert [one.text for one in hypothesis.words] == list("abcdefghij")
    hypothesis.take([word("x", 6.0)], 9.0)
    assert [one.text for one in hypothesis.words] == list("abcdefx")
