"""Files that come with the package beside its code: models, Envoy's template, the web page, examples."""

from __future__ import annotations

from pathlib import Path

__all__ = ["shipped"]

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = Path(__file__).resolve().parents[4]


def shipped(path: str) -> Path:
    """Return where a file or folder of the repository is: in an installed wheel under ``mediamesh/share``."""
    share = _PACKAGE / "share"
    return (share if share.is_dir() else _CHECKOUT) / path
