"""``mediamesh.image-classifier``: what is in a picture, in the classes of ImageNet."""

from __future__ import annotations

from mediamesh.agents.image_classifier.agent import ImageClassifier

__all__ = ["ImageClassifier"]
