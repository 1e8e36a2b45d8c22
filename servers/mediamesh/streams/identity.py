"""Ids of streams: 26 characters of Crockford's base 32, 48 bits of milliseconds and 80 of chance, as in a ULID.

They sort by time, which is what pages of them need, and cannot be guessed.
"""

from __future__ import annotations

import secrets
import time

__all__ = ["new_id"]

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]


def new_id() -> str:
    """Return an id that no other stream, producer or subscriber has."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
