"""What both stores refuse, in the same words."""

from __future__ import annotations

from mediamesh.wire.errors import OutOfRange, Overloaded

__all__ = ["news_not_kept", "too_many_streams"]


def too_many_streams(limit: int) -> Overloaded:
    """Return the error for a stream above the most that may live."""
    return Overloaded.retry(
        f"{limit} streams live, and no more may (max_concurrent_streams); end one, or try again.",
        1,
        max_concurrent_streams=limit,
    )


def news_not_kept(position: str) -> OutOfRange:
    """Return the error for a position of news that is none, or is no longer one."""
    return OutOfRange(
        f"What came and went after {position!r} is no longer known; begin without a token.", resume_token=position
    )
