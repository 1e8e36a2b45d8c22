"""What Whisper answered, and how it betrays itself where it makes words up: it repeats what it said."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from mediamesh.agents.audio_transcriber.words import PLACE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mediamesh.agents.audio_transcriber.words import Token

__all__ = ["Said", "said_of"]

_SURE_REPEATS = 3  # what is said so often in a row was said once
_LONGEST, _SHORTEST = 16, 3  # tokens that are looked for at the end; what is shorter people do say twice


class Said(NamedTuple):
    """A text with its places.

    Attributes:
        tokens: Without the end.
        begins: Where each begins, and where the last ends, in seconds.
        goes_on: Whether it did not come to an end within the tokens that it was given.
        length: Tokens at the end that are said several times in a row.
        times: How often.
    """

    tokens: list[Token]
    begins: list[float]
    goes_on: bool
    length: int
    times: int

    @property
    def is_doubtful(self) -> bool:
        """Whether it may have been said less often than it is repeated."""
        return self.times >= _SURE_REPEATS or (self.times > 1 and self.length >= _SHORTEST)

    def without_repeats(self, *, sure: bool) -> tuple[list[Token], list[float]]:
        """Return tokens and begins with what is repeated said once, if that is sure or else only doubtful."""
        is_left_out = self.times >= _SURE_REPEATS if sure else self.is_doubtful
        count = len(self.tokens) - self.length * (self.times - 1) if is_left_out else len(self.tokens)
        return self.tokens[:count], self.begins[: count + 1]


def said_of(tokens: Sequence[Token], places: Sequence[int]) -> Said:
    """Return what an answer says.

    Args:
        tokens: The text, maybe with its end.
        places: Where each begins, in places of the sound, and one more: where the sound ends.
    """
    text = list(takewhile(lambda token: token.piece, tokens))  # the end of the text has none
    begins = [place * PLACE_SECONDS for place in places[: len(text) + 1]]
    return Said(text, begins, len(text) == len(tokens), *_repeated(text))


def _repeated(tokens: Sequence[Token]) -> tuple[int, int]:
    """Return how many tokens at the end are said several times in a row, and how often: the most in all."""
    numbers = [token.number for token in tokens]
    found = [(length, _times(numbers, length)) for length in range(1, _LONGEST + 1)]
    return max(found, key=lambda pair: pair[0] * (pair[1] - 1))


def _times(numbers: Sequence[int], length: int) -> int:
    last, times = numbers[-length:], 1
    while numbers and numbers[-(times + 1) * length : -times * length] == last:
        times += 1
    return times
