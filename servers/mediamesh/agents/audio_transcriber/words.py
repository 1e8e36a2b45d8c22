"""Words and their times, out of tokens and where in the sound each was heard.

The path through the alignment is found by dynamic time warping, as OpenAI's Whisper does it (timing.py).
"""

from __future__ import annotations

import unicodedata
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mediamesh.agents.audio_transcriber.quiet import quietest
from mediamesh.agents.audio_transcriber.sound import RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.sound import Samples

    Array = np.ndarray[Any, Any]

__all__ = ["PLACE_SECONDS", "Token", "Word", "starts", "words_of"]

PLACE_SECONDS = 0.02
_PAUSE_SECONDS = 0.06
_MEDIAN = 7  # places over which a look is smoothed


class Token(NamedTuple):
    """A piece of a text.

    Attributes:
        number: In the vocabulary.
        piece: Its text in byte-level BPE; empty where it is special.
        probability: 0 to 1.
    """

    number: int
    piece: str
    probability: float


class Word(NamedTuple):
    """A word with the punctuation at it.

    Attributes:
        text: Without the space before it.
        start: In seconds.
        end: In seconds.
        tokens: What it is made of.
    """

    text: str
    start: float
    end: float
    tokens: tuple[Token, ...]

    @property
    def probability(self) -> float:
        """Mean of its tokens', 0 to 1."""
        return sum(token.probability for token in self.tokens) / len(self.tokens)


def words_of(tokens: Sequence[Token], begins: Sequence[float], sound: Samples) -> list[Word]:
    """Return the words that tokens make.

    Args:
        tokens: A text.
        begins: When each token begins, and one more: when the last ends; in seconds.
        sound: What was heard.
    """
    words, start = [], begins[0]
    for first, beyond in _parts(tokens):
        if text := _text("".join(token.piece for token in tokens[first:beyond])).strip():
            end = _end(tokens[first:beyond], begins[first : beyond + 1], sound)
            words.append(Word(text, start, end, tuple(tokens[first:beyond])))
            start = end
    return words


def _end(tokens: Sequence[Token], begins: Sequence[float], sound: Samples) -> float:
    """Return when a word ends, and the next one begins.

    Punctuation has no sound: its step looks at the pause, and on to the next word, which then has no time left. So the
    word ends where it is quietest meanwhile.
    """
    marks = len(list(takewhile(lambda token: _is_punctuation(_text(token.piece).strip()), reversed(tokens))))
    if not marks or marks == len(tokens):
        return begins[-1]
    begin, end = begins[-1 - marks], begins[-1]
    return begin + quietest(sound[int(begin * RATE) : int(end * RATE)], _PAUSE_SECONDS) / RATE


def _parts(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """Return from which token to which each word goes: a new one begins with a space that no punctuation follows."""
    texts = [_text(token.piece) for token in tokens]
    firsts = [
        place
        for place, text in enumerate(texts)
        if not place or (text.startswith(" ") and not _is_punctuation(text.strip()))
    ]
    return list(zip(firsts, [*firsts[1:], len(texts)], strict=True))


def _text(piece: str) -> str:
    return bytes(_BYTES[character] for character in piece).decode("utf-8", "replace")


def _bytes() -> dict[str, int]:
    """Return the byte that each character of byte-level BPE stands for (OpenAI's GPT-2, encoder.py).

    Bytes that are visible characters of Latin-1 stand for themselves, the others for those from 256 on.
    """
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _bytes()


def _is_punctuation(text: str) -> bool:
    return bool(text) and all(unicodedata.category(character).startswith("P") for character in text)


def starts(alignment: Array) -> list[int]:
    """Return the place where each step begins to look, on the best path that goes on in both steps and places.

    Args:
        alignment: How much each step looked at each place, [steps, places].
    """
    cost = -_smoothed(alignment).astype(np.float64)
    columns = np.arange(cost.shape[1])
    entered, stayed = np.zeros(cost.shape, np.int64), np.zeros(cost.shape, bool)
    # What a step costs until place j when it began at k: the way to k, and the places from k to j. With sums from the
    # left the best k is where a running minimum is, so a row takes no loop.
    reached = np.cumsum(cost[0])
    for step in range(1, len(cost)):
        diagonal = np.concatenate([[np.inf], reached[:-1]])
        stayed[step] = reached < diagonal  # at the place where the step before ended
        sums = np.cumsum(cost[step])
        way = np.minimum(diagonal, reached) - sums + cost[step]
        least = np.minimum.accumulate(way)
        entered[step] = np.maximum.accumulate(np.where(way <= least, columns, 0))
        reached = least + sums
    begins, place = [0] * len(cost), cost.shape[1] - 1
    for step in range(len(cost) - 1, 0, -1):
        begins[step] = int(entered[step, place])
        place = begins[step] if stayed[step, begins[step]] else begins[step] - 1
    return begins


def _smoothed(alignment: Array) -> Array:
    """Return the median over the places about each."""
    if alignment.shape[1] <= _MEDIAN // 2:
        return alignment
    padded: Array = np.pad(alignment, ((0, 0), (_MEDIAN // 2, _MEDIAN // 2)), mode="reflect")
    middles: Array = np.median(np.lib.stride_tricks.sliding_window_view(padded, _MEDIAN, axis=1), axis=-1)
    return middles
