"""``mediamesh.image-converter``: a picture in another size or format."""

from __future__ import annotations

from mediamesh.agents.image_converter.agent import ImageConverter

__all__ = ["ImageConverter"]
