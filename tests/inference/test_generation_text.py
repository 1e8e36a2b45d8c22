"""Tokens become text: whole characters only, and stop texts are found wherever tokens end."""

from __future__ import annotations

import pytest
from tokenizers.pre_tokenizers import ByteLevel

from mediamesh.inference.generation.text import TextStream
from tests.inference.tiny_decoder import tokenizer

pytestmark = pytest.mark.slow

BYTES = tokenizer(sorted(ByteLevel.alphabet()))  # each of the 256 bytes is a token


def ids(text: str | bytes) -> list[int]:
    content = text.encode() if isinstance(text, str) else text
    by_byte = {_spelled(byte): byte for byte in range(256)}
    numbers = {by_byte[token]: number for token, number in BYTES.get_vocab().items() if token in by_byte}
    return [numbers[byte] for byte in content]


def _spelled(byte: int) -> str:
    """Return GPT-2's letter for a byte: itself where it is printable, else the next free one from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [number for number in range(256) if number not in printable]
    return chr(byte) if byte in printable else chr(256 + others.index(byte))


def pieces(content: str | bytes, *stops: str) -> list[str]:
    stream, got = TextStream(BYTES, stops), []
    for token in ids(content):
        got.append(stream.push(token))
        if stream.stopped:
            return got
    return [*got, stream.finish()]


def test_a_character_of_four_tokens_comes_as_one() -> None:
    assert pieces("a😀é") == ["a", "", "", "", "😀", "", "é", ""]


@pytest.mark.parametrize("text", ["日本語 and more", "e\u0301 combines", "🏳️‍🌈 joins", "tab\tand\nlines", " leading"])
def test_pieces_put_together_are_the_text(text) -> None:
    got = pieces(text)
    assert "".join(got) == text
    assert not any("\ufffd" in piece for piece in got)


def test_half_a_character_at_the_end_is_left_out() -> None:
    assert "".join(pieces("ok 日".encode()[:-1])) == "ok "


def test_bytes_that_are_no_text_do_not_hold_back_what_follows() -> None:
    assert "".join(pieces(b"\xff\xfe\xfd\xfcgoes on")).endswith("goes on")


@pytest.mark.parametrize("stop", ["\n", "STOP", "P it", "😀"])
def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(stop) -> None:
    text = "one\ntwo STOP it 😀 three"
    got = pieces(text, stop)
    assert "".join(got) == text[: text.index(stop)]


def test_of_two_stop_texts_the_first_in_the_text_counts() -> None:
    assert "".join(pieces("abcdef", "ef", "cd")) == "ab"


def test_what_may_begin_a_stop_text_is_held_back_until_it_is_sure() -> None:
    assert pieces("a##b", "###") == ["a", "", "", "##b", ""]
    assert pieces("a##", "###") == ["a", "", "", "##"]


def test_special_tokens_have_no_text() -> None:
    stream = TextStream(BYTES)
    assert stream.push(BYTES.get_vocab()["<|im_end|>"]) == ""
    assert stream.push(ids("x")[0]) == "x"
