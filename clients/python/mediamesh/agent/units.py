"""Amounts as people write them in manifests."""

from __future__ import annotations

import math
import re

__all__ = ["parse_seconds", "parse_size"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|[KMGT]I?B)?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Return the bytes that ``10MB`` (a power of 1000) or ``10MiB`` (of 1024) means; a bare number counts bytes.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size such as 10MB or 512KiB")
    unit = (match[2] or "B").upper()
    scale = 1024.0 if "I" in unit else 1000.0
    return round(float(match[1]) * math.pow(scale, "BKMGT".index(unit[0])))


def parse_seconds(text: str) -> float:
    """Return the seconds that ``1h``, ``15m``, ``30s`` or ``500ms`` means; a bare number counts seconds.

    Raises:
        ValueError: it is no duration.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration such as 30s, 15m or 1h")
    return float(match[1]) * _SECONDS[match[2] or "s"]
