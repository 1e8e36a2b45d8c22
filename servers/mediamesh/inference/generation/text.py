"""Tokens become text as they come: whole characters only, and nothing that may be the beginning of a stop text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

__all__ = ["TextStream"]

_UNFINISHED = "\ufffd"
# A character takes four bytes at most, each of which may be a token of its own; what is still unfinished after them is
# no character, and stays what it is.
_LONGEST_CHARACTER = 4


class TextStream:
    """The text of one answer.

    Args:
        tokenizer: Turns tokens into text.
        stops: Texts that end the answer; they do not belong to it.

    Attributes:
        stopped: One of them came; no more tokens are wanted.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._tokenizer = tokenizer
        self._stops = stops
        self._tokens: list[int] = []
        self._begin = 0  # of the tokens whose text depends on what came before
        self._read = 0  # tokens whose text was given
        self._held = ""

    def push(self, token: int) -> str:
        """Take a token in; return the text that is sure by now."""
        self._tokens.append(token)
        return self._release(self._decoded())

    def finish(self) -> str:
        """Return what was held back; half a character at the very end is left out."""
        held, self._held = self._held, ""
        return held

    def _decoded(self) -> str:
        # Decoders look at neighbouring tokens (a space in front, characters in several tokens), so a new token is
        # decoded together with the last ones, whose text is then cut off.
        given = self._tokenizer.decode(self._tokens[self._begin : self._read])
        text = self._tokenizer.decode(self._tokens[self._begin :])
        if text.endswith(_UNFINISHED) and len(self._tokens) - self._read < _LONGEST_CHARACTER:
            return ""
        self._begin, self._read = self._read, len(self._tokens)
        return text[len(given) :]

    def _release(self, text: str) -> str:
        text = self._held + text
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of the text that begins a stop text."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if stop.startswith(text[-size:])), 0)
