"""``test.image-generator``: a test pattern, the same for the same parameters."""

from __future__ import annotations

from mediamesh.agents.image_generator.agent import ImageGenerator

__all__ = ["ImageGenerator"]
