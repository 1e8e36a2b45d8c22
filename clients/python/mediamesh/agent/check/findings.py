"""What a check found out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Advice", "Broken", "Finding", "Unclear", "Verdict"]


class Verdict(Enum):
    """How a check ended."""

    PASSED = "passed"
    WARNED = "warned"
    """The contract is kept, and something that it advises is missing."""
    SKIPPED = "skipped"
    """The check does not apply to this agent, or could not see what it looks for."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check.

    Attributes:
        check: Name of the check, such as ``cancellation``.
        agent: Id of the agent; empty for what concerns the whole server.
        verdict: How it ended.
        promise: What the contract wants, in one sentence.
        text: What was seen.
        seconds: How long the check took.
    """

    check: str
    agent: str
    verdict: Verdict
    promise: str
    text: str
    seconds: float


class Broken(Exception):
    """The agent breaks the contract; the text says what was seen."""


class Advice(Exception):
    """The agent keeps the contract, and should do something more."""


class Unclear(Exception):
    """The check does not apply, or cannot tell."""
