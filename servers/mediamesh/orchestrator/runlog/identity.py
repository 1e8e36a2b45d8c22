"""Ids of executions: 26 characters of Crockford's base 32, 48 bits of milliseconds and 80 of chance, as in a ULID.

They sort by time, which is what pages of them need.
"""

from __future__ import annotations

import secrets
import time

__all__ = ["new_id", "oldest_id"]

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """Return an id that no other execution has."""
    return _spelled((time.time_ns() // 1_000_000) << 80 | secrets.randbits(80))


def oldest_id(age_seconds: float) -> str:
    """Return an id below those of all executions that began since."""
    return _spelled(max(0, int((time.time() - age_seconds) * 1000)) << 80)


def _spelled(number: int) -> str:
    return "".join(_DIGITS[number >> shift & 31] for shift in range(125, -1, -5))
