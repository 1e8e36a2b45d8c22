"""``mediamesh.audio-converter``: a sound at another rate, in other channels, in another format."""

from __future__ import annotations

from mediamesh.agents.audio_converter.agent import AudioConverter

__all__ = ["AudioConverter"]
