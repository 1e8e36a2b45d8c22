"""Publish tokens: told once, kept as a digest."""

from __future__ import annotations

import hashlib
import hmac
import secrets

__all__ = ["digest_of", "is_token", "new_token"]


def new_token() -> str:
    """Return a token with 192 bits of chance."""
    return secrets.token_urlsafe(24)


def digest_of(token: str) -> str:
    """Return what is kept of a token: its SHA-256, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_token(token: str, digest: str) -> bool:
    """Return whether a token is the one that was told, in the same time whatever is wrong with it."""
    return hmac.compare_digest(digest_of(token), digest)
