"""Which pages of a document are wanted: ``1-3,5``."""

from __future__ import annotations

import re

from mediamesh.wire.errors import InvalidRequest

__all__ = ["chosen"]

_PART = re.compile(r"(\d{1,6})(?:-(\d{1,6})?)?")
_FIELD = "params.pages"


def chosen(text: str, count: int) -> list[int]:
    """Return the numbers of the pages, from 1, each once and in order.

    Args:
        text: ``all``, or numbers and ranges with commas; ``3-`` goes on to the last page.
        count: How many pages there are.

    Raises:
        InvalidRequest: it is not of this form, or names a page that the document has not.
    """
    if text.strip() in {"", "all"}:
        return list(range(1, count + 1))
    pages: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        if match is None:
            raise InvalidRequest.of_field(_FIELD, f"must be all, or pages such as 1-3,5; {part.strip()!r} is neither")
        first = int(match[1])
        last = int(match[2]) if match[2] else count if part.strip().endswith("-") else first
        if not 1 <= first <= last <= count:
            raise InvalidRequest.of_field(_FIELD, f"names {part.strip()}, and the document has pages 1 to {count}")
        pages.update(range(first, last + 1))
    return sorted(pages)
