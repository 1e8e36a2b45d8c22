"""Names of the keys in Valkey, and of scripts there."""

from __future__ import annotations

from hashlib import sha1

__all__ = ["LIVE", "NEWS", "about", "buffer_of", "call_of", "index_of", "meta_of", "stream_in", "wake_of"]

LIVE = b"streams:live"
NEWS = b"streams:news"
_BUFFER = b"stream:buf:{"


def meta_of(stream_id: str) -> bytes:
    """Return the key of the hash in which a stream stands."""
    return f"stream:meta:{{{stream_id}}}".encode()


def buffer_of(stream_id: str) -> bytes:
    """Return the key of a stream's events."""
    return f"stream:buf:{{{stream_id}}}".encode()


def stream_in(buffer: bytes) -> str:
    """Return the id of the stream whose events a key holds."""
    return buffer[len(_BUFFER) : -1].decode()


def index_of(workspace_id: str) -> str:
    """Return the key of the ids of a workspace."""
    return f"streams:of:{workspace_id}"


def wake_of(replica: str) -> str:
    """Return the key that ends a replica's poll."""
    return f"streams:wake:{replica}"


def call_of(script: str, *, keys: int) -> tuple[str, str, int]:
    """Return the words that call a script; its keys and arguments follow."""
    return "EVALSHA", sha1(script.encode(), usedforsecurity=False).hexdigest(), keys


def about(stream_id: str) -> tuple[str, str, str]:
    """Return the keys of a stream, as its scripts take them."""
    slot = f"{{{stream_id}}}"
    return f"stream:meta:{slot}", f"stream:buf:{slot}", f"stream:readers:{slot}"
