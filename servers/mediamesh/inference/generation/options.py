"""What a generative model's files and its config.pbtxt say about how it generates."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mediamesh.inference.configuration.config import CONFIG_FILE, LoadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mediamesh.api.inference.v2 import model_config_pb2 as config_pb

__all__ = ["GENERATION_FILE", "Facts", "Options", "read_facts", "read_options"]

GENERATION_FILE = "generation.json"
_TEMPLATES = ("chatml",)
_MOST_CONTEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """What generation.json says of a model.

    Attributes:
        context_tokens: Most tokens of a sequence, prompt and answer together.
        end_token_ids: Tokens that end an answer.
        template: How a conversation becomes a prompt: ``chatml``, or empty for a model that holds none.
        system: What the system says where a conversation does not.
    """

    context_tokens: int
    end_token_ids: frozenset[int]
    template: str = ""
    system: str = ""


@dataclass(frozen=True, slots=True)
class Options:
    """The ``parameters`` of config.pbtxt.

    Attributes:
        max_running: Requests that generate at a time; the rows of the cache.
        context_tokens: Most tokens of a sequence; 0 takes what the model can.
        cache_tokens: Most tokens of all sequences that run; a request waits until its own fit.
        prefill_tokens: Prompt tokens between two steps of those that run.
        max_tokens: Length of an answer whose request does not say.
        queue_requests: Requests that wait; 0 takes the server's limit.
        queue_tokens: Prompt tokens that wait.
        intra_op_thread_count: Threads; 0 takes all cores.
        temperature: Default of the request's.
        top_k: Default of the request's.
        top_p: Default of the request's.
        min_p: Default of the request's.
        repetition_penalty: Default of the request's.
    """

    max_running: int = field(default=8, metadata={"range": (1, 256)})
    context_tokens: int = field(default=0, metadata={"range": (0, _MOST_CONTEXT)})
    cache_tokens: int = field(default=65536, metadata={"range": (1, 1 << 30)})
    prefill_tokens: int = field(default=64, metadata={"range": (1, 8192)})
    max_tokens: int = field(default=256, metadata={"range": (1, _MOST_CONTEXT)})
    queue_requests: int = field(default=0, metadata={"range": (0, 1_000_000)})
    queue_tokens: int = field(default=262_144, metadata={"range": (1, 1 << 30)})
    intra_op_thread_count: int = field(default=0, metadata={"range": (0, 1024)})
    temperature: float = field(default=0.0, metadata={"range": (0, 100)})
    top_k: int = field(default=0, metadata={"range": (0, 1 << 31)})
    top_p: float = field(default=1.0, metadata={"range": (1e-6, 1)})
    min_p: float = field(default=0.0, metadata={"range": (0, 1)})
    repetition_penalty: float = field(default=1.0, metadata={"range": (0.01, 100)})


def read_options(directory: Path, config: config_pb.ModelConfig) -> Options:
    """Return what the parameters of a configuration say.

    Raises:
        LoadError: one is not known, is no number, or is out of its range.
    """
    given: dict[str, Any] = {}
    for name, parameter in config.parameters.items():
        where = f"{directory / CONFIG_FILE}: parameters[{name}]"
        known = Options.__dataclass_fields__.get(name)
        if known is None:
            raise LoadError(f"{where}: not known; there are {', '.join(Options.__dataclass_fields__)}.")
        kind: Callable[[str], float] = int if known.type == "int" else float
        low, high = known.metadata["range"]
        try:
            value = kind(parameter.string_value)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise LoadError(f"{where}: {parameter.string_value!r}, expected {known.type} from {low} to {high}.")
        given[name] = value
    return Options(**given)


def read_facts(file: Path) -> Facts:
    """Return what a generation.json says.

    Raises:
        LoadError: there is none, or it is wrong.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{file}: {error}") from error
    if not isinstance(content, dict) or set(content) - {"context_tokens", "end_token_ids", "chat"}:
        raise LoadError(f"{file}: expected an object of context_tokens, end_token_ids and chat, and nothing else.")
    context, ends, chat = (content.get(name) for name in ("context_tokens", "end_token_ids", "chat"))
    if not isinstance(context, int) or isinstance(context, bool) or not 2 <= context <= _MOST_CONTEXT:
        raise LoadError(f"{file}: context_tokens: {context!r}, expected 2 to {_MOST_CONTEXT}.")
    if not isinstance(ends, list) or not all(isinstance(token, int) and token >= 0 for token in ends):
        raise LoadError(f"{file}: end_token_ids: {ends!r}, expected a list of token ids.")
    if chat is None:
        return Facts(context, frozenset(ends))
    if (
        not isinstance(chat, dict)
        or chat.get("template") not in _TEMPLATES
        or not isinstance(chat.get("system", ""), str)
        or set(chat) - {"template", "system"}
    ):
        raise LoadError(f"{file}: chat: expected a template, one of {', '.join(_TEMPLATES)}, and a system text.")
    return Facts(context, frozenset(ends), chat["template"], chat.get("system", ""))
