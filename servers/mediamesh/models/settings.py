"""Settings of the model store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from mediamesh.kit.settings import Settings as _Settings
from mediamesh.wire.shipped import shipped

__all__ = ["Settings"]


def _default_cache() -> Path:
    """Return ``mediamesh/models`` in the user's cache, as the XDG Base Directory Specification places it."""
    own = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(own) if Path(own).is_absolute() else Path("~/.cache").expanduser()) / "mediamesh" / "models"


class Settings(_Settings):
    """Read from ``MEDIAMESH_MODELS_*`` and the table ``[models]``."""

    section: ClassVar[str] = "models"

    cache: Path = Field(default_factory=_default_cache, description="Folder that pulled models are kept in.")
    manifest: Path = Field(
        default_factory=lambda: shipped("deploy/models/models.toml"),
        description="File that lists the models, in the form of deploy/models/models.toml.",
    )
    attempts: int = Field(
        default=6, ge=1, le=100, description="Failures in a row, without a byte more, that end a download."
    )
