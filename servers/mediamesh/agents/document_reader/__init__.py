"""``mediamesh.document-reader``: what is written in a picture, or on the pages of a document."""

from __future__ import annotations

from mediamesh.agents.document_reader.agent import DocumentReader
from mediamesh.agents.document_reader.reading import TextModels

__all__ = ["DocumentReader", "TextModels"]
