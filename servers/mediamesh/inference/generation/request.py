"""A request of a generative model: its inputs, its sampling parameters wherever they stand, and its answers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from mediamesh.inference.datatypes import TensorSpec
from mediamesh.inference.generation.prompt import ROLES
from mediamesh.inference.generation.sampling import Sampling
from mediamesh.wire.errors import InvalidRequest

if TYPE_CHECKING:
    import numpy as np

    from mediamesh.inference.generation.options import Options
    from mediamesh.inference.generation.prompt import Prompter
    from mediamesh.inference.scheduling import Call

    Array = np.ndarray[Any, Any]

__all__ = ["INPUTS", "OUTPUTS", "Reader", "Request"]

_PROMPTS = ("text_input", "input_ids", "messages")
_JSON = "sampling_parameters"
_MOST_STOPS, _LONGEST_STOP = 16, 256
_MOST_MESSAGES = 4096


@dataclass(frozen=True, slots=True)
class _Number:
    """A number that a request may give: its type on the wire and its range."""

    datatype: str
    low: float
    high: float


_NUMBERS: Mapping[str, _Number] = MappingProxyType({
    "max_tokens": _Number("INT32", 1, 1 << 30),
    "temperature": _Number("FP32", 0, 100),
    "top_k": _Number("INT32", 0, 1 << 30),
    "top_p": _Number("FP32", 1e-6, 1),
    "min_p": _Number("FP32", 0, 1),
    "repetition_penalty": _Number("FP32", 0.01, 100),
    "seed": _Number("INT64", 0, (1 << 63) - 1),
})  # fmt: skip
_SWITCHES = ("stream", "ignore_eos")

INPUTS = (
    TensorSpec("text_input", "BYTES", (1,)),
    TensorSpec("input_ids", "INT64", (-1,)),
    TensorSpec("messages", "BYTES", (-1,)),
    TensorSpec("roles", "BYTES", (-1,)),
    *(TensorSpec(name, "BOOL", (1,)) for name in _SWITCHES),
    *(TensorSpec(name, number.datatype, (1,)) for name, number in _NUMBERS.items()),
    TensorSpec("stop", "BYTES", (-1,)),
    TensorSpec(_JSON, "BYTES", (1,)),
)
OUTPUTS = (
    TensorSpec("text_output", "BYTES", (1,)),
    TensorSpec("token_ids", "INT64", (-1,)),
    TensorSpec("finish_reason", "BYTES", (1,)),
    TensorSpec("num_input_tokens", "UINT32", (1,)),
    TensorSpec("num_output_tokens", "UINT32", (1,)),
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants.

    Attributes:
        prompt: The prompt's tokens.
        max_tokens: Most tokens of the answer.
        sampling: How tokens are chosen.
        stops: Texts that end the answer.
        ignore_end: The model's own end of an answer does not count.
        stream: Answers are wanted as tokens come, and not one at the end.
    """

    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    stops: tuple[str, ...]
    ignore_end: bool
    stream: bool


class Reader:
    """Reads the requests of one model.

    Args:
        label: What errors call the model.
        prompter: Makes prompts.
        options: What requests leave open.
        context: Most tokens of prompt and answer.
        vocabulary: Tokens there are.
    """

    def __init__(self, label: str, prompter: Prompter, options: Options, *, context: int, vocabulary: int) -> None:
        self._label = label
        self._prompter = prompter
        self._options = options
        self._context = context
        self._vocabulary = vocabulary

    def read(self, call: Call) -> Request:
        """Return what a request wants.

        Raises:
            InvalidRequest: it contradicts itself, is out of range, or does not fit into the context.
        """
        if call.sequence is not None:
            raise self._invalid("parameters[sequence_id]", "a generative model has no sequences; send all messages")
        given = self._given(call)
        prompt = self._prompt(call.inputs)
        options = self._options
        sampling = Sampling(
            repetition_penalty=given.get("repetition_penalty", options.repetition_penalty),
            temperature=given.get("temperature", options.temperature),
            top_k=given.get("top_k", options.top_k),
            top_p=given.get("top_p", options.top_p),
            min_p=given.get("min_p", options.min_p),
            seed=given.get("seed"),
        )
        return Request(
            prompt=prompt,
            max_tokens=self._max_tokens(len(prompt), given.get("max_tokens")),
            sampling=sampling,
            stops=given.get("stop", ()),
            ignore_end=given.get("ignore_eos", False),
            stream=given.get("stream", False),
        )

    def _prompt(self, inputs: Mapping[str, Array]) -> list[int]:
        present = [name for name in _PROMPTS if name in inputs]
        if len(present) != 1:
            raise self._invalid("inputs", f"holds {present or 'no prompt'}, expected one of {', '.join(_PROMPTS)}")
        if "roles" in inputs and present != ["messages"]:
            raise self._invalid("roles", "says whose the messages are, and there are none")
        if present == ["input_ids"]:
            ids = inputs["input_ids"]
            self._fits("input_ids", len(ids))
            if not ids.size or ids.min() < 0 or ids.max() >= self._vocabulary:
                raise self._invalid("input_ids", f"expected one or more ids from 0 to {self._vocabulary - 1}")
            return [int(token) for token in ids]
        if present == ["text_input"]:
            text = str(inputs["text_input"][0])
            self._may_fit("text_input", len(text))
            prompt = self._prompter.of_text(text)
            if not prompt:
                raise self._invalid("text_input", "is empty; the model needs a token to begin with")
        else:
            prompt = self._prompter.of_messages(self._messages(inputs))
        self._fits(present[0], len(prompt))
        return prompt

    def _messages(self, inputs: Mapping[str, Array]) -> list[tuple[str, str]]:
        texts = [str(text) for text in inputs["messages"]]
        if not 1 <= len(texts) <= _MOST_MESSAGES:
            raise self._invalid("messages", f"holds {len(texts)}, expected 1 to {_MOST_MESSAGES}")
        self._may_fit("messages", sum(map(len, texts)))
        if "roles" not in inputs:
            return [(("user", "assistant")[index % 2], text) for index, text in enumerate(texts)]
        roles = [str(role) for role in inputs["roles"]]
        if len(roles) != len(texts):
            raise self._invalid("roles", f"holds {len(roles)} for {len(texts)} messages, expected one for each")
        if unknown := [role for role in roles if role not in ROLES]:
            raise self._invalid("roles", f"holds {unknown[0]!r}, expected {', '.join(ROLES)}")
        return list(zip(roles, texts, strict=True))

    def _may_fit(self, field: str, characters: int) -> None:
        # Before it is taken apart: a text of many megabytes would keep the server busy only to be refused.
        if characters > self._context * self._prompter.longest_token:
            raise self._invalid(
                field, f"{characters} characters are more than {self._context} tokens, which is the model's context"
            )

    def _fits(self, field: str, tokens: int) -> None:
        if tokens >= self._context:
            raise self._invalid(
                field, f"{tokens} prompt tokens leave no room for an answer in the model's context of {self._context}"
            )

    def _max_tokens(self, prompt: int, wanted: int | None) -> int:
        room = self._context - prompt
        if wanted is None:
            return min(self._options.max_tokens, room)
        if wanted > room:
            raise self._invalid(
                "max_tokens",
                f"{wanted} and {prompt} prompt tokens are more than the model's context of {self._context}; "
                f"{room} are left",
            )
        return wanted

    def _given(self, call: Call) -> dict[str, Any]:
        """Return the values a request gives, as inputs, as request parameters or as JSON, each in one place only."""
        places: list[tuple[str, dict[str, Any]]] = [("", _of_inputs(call.inputs)), ("parameters", _of_parameters(call))]
        if _JSON in call.inputs:
            places.append((_JSON, self._of_json(str(call.inputs[_JSON][0]))))
        values: dict[str, Any] = {}
        for place, own in places:
            for name, value in own.items():
                field = f"{place}[{name}]" if place else name
                if name in values:
                    raise self._invalid(field, f"{name} is given in another place too")
                values[name] = self._checked(field, name, value)
        return values

    def _of_json(self, text: str) -> dict[str, Any]:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._invalid(_JSON, f"is no JSON: {error}") from error
        if not isinstance(content, dict):
            raise self._invalid(_JSON, "is no JSON object")
        known = {*_NUMBERS, "ignore_eos", "stop"}
        if unknown := sorted(set(content) - known):
            raise self._invalid(_JSON, f"holds {', '.join(unknown)[:200]}; known are {', '.join(sorted(known))}")
        return content

    def _checked(self, field: str, name: str, value: Any) -> Any:
        if name in _SWITCHES:
            if not isinstance(value, bool):
                raise self._invalid(field, f"{value!r}, expected true or false")
            return value
        if name == "stop":
            return self._stops(field, value)
        number = _NUMBERS[name]
        whole = number.datatype.startswith("INT")
        fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        # The float next to 0.1 in FP32 is a little more; a range's ends are meant in FP32.
        if not fits or not number.low <= value <= number.high or math.isnan(value):
            kind = "a whole number" if whole else "a number"
            raise self._invalid(field, f"{str(value)[:100]}, expected {kind} from {number.low:g} to {number.high:g}")
        return value

    def _stops(self, field: str, value: Any) -> tuple[str, ...]:
        texts = [value] if isinstance(value, str) else value
        if (
            not isinstance(texts, list)
            or len(texts) > _MOST_STOPS
            or not all(isinstance(text, str) and 1 <= len(text) <= _LONGEST_STOP for text in texts)
        ):
            raise self._invalid(
                field, f"expected up to {_MOST_STOPS} texts of 1 to {_LONGEST_STOP} characters"
            )  # fmt: skip
        return tuple(texts)

    def _invalid(self, field: str, text: str) -> InvalidRequest:
        return InvalidRequest.of_field(field, f"model {self._label}: {text}", model=self._label)


def _of_inputs(inputs: Mapping[str, Array]) -> dict[str, Any]:
    values: dict[str, Any] = {name: inputs[name][0].item() for name in (*_NUMBERS, *_SWITCHES) if name in inputs}
    if "stop" in inputs:
        values["stop"] = [str(text) for text in inputs["stop"]]
    return values


def _of_parameters(call: Call) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in (*_NUMBERS, *_SWITCHES, "stop"):
        if name in call.parameters:
            parameter = call.parameters[name]
            kind = parameter.WhichOneof("parameter_choice")
            values[name] = getattr(parameter, kind) if kind else None
    return values
