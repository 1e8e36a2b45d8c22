"""Texts and conversations become tokens."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from mediamesh.inference.configuration.config import LoadError
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mediamesh.inference.generation.options import Facts

__all__ = ["ROLES", "Prompter"]

ROLES = ("system", "user", "assistant")
_BEGIN, _END = "<|im_start|>", "<|im_end|>"


class Prompter:
    """Makes prompts for one model.

    Args:
        file: Its tokenizer.json.
        facts: What is known of the model.

    Attributes:
        tokenizer: The tokenizer.
        longest_token: Characters of the longest token: no text has fewer tokens than its length divided by this.

    Raises:
        LoadError: the file is no tokenizer, or lacks the tokens of the model's chat template.
    """

    def __init__(self, file: Path, facts: Facts) -> None:
        try:
            self._source = file.read_text(encoding="utf-8")
            self.tokenizer = Tokenizer.from_str(self._source)
        except Exception as error:  # tokenizers raises bare exceptions
            raise LoadError(f"{file}: is no tokenizer: {error}") from error
        self.longest_token = max(map(len, self.tokenizer.get_vocab()), default=1)
        self._facts = facts
        self._special = [token.content for token in self.tokenizer.get_added_tokens_decoder().values() if token.special]
        if facts.template and not {_BEGIN, _END} <= set(self._special):
            raise LoadError(f"{file}: lacks {_BEGIN} or {_END}, which the chat template needs.")

    def of_text(self, text: str) -> list[int]:
        """Return the tokens of a text, in which the names of special tokens stand for these."""
        tokens: list[int] = self.tokenizer.encode(text).ids
        return tokens

    def of_messages(self, messages: Sequence[tuple[str, str]]) -> list[int]:
        """Return the tokens of a conversation, ready for the assistant's answer.

        What people say cannot end their turn: names of special tokens are plain text in it.

        Args:
            messages: Role and text of each; the model's own system text comes first unless one is given.

        Raises:
            InvalidRequest: the model has no chat template.
        """
        if not self._facts.template:
            raise InvalidRequest.of_field("messages", "the model has no chat template; send text_input")
        if messages[0][0] != "system" and self._facts.system:
            messages = [("system", self._facts.system), *messages]
        tokens: list[int] = []
        for role, text in messages:
            tokens += [self._id(_BEGIN), *self._plainly(f"{role}\n{text}"), self._id(_END), *self._plainly("\n")]
        return [*tokens, self._id(_BEGIN), *self._plainly("assistant\n")]

    def _id(self, token: str) -> int:
        number = self.tokenizer.token_to_id(token)
        if number is None:
            raise LookupError(token)  # the constructor has seen it
        return number

    def _plainly(self, text: str) -> list[int]:
        blind = any(token in text for token in self._special)
        tokenizer = self._blind if blind else self.tokenizer
        tokens: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return tokens

    @cached_property
    def _blind(self) -> Tokenizer:
        """A tokenizer that does not see special tokens; most servers never need it."""
        tokenizer = Tokenizer.from_str(self._source)
        tokenizer.encode_special_tokens = True
        return tokenizer
