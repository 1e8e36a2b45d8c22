"""``mediamesh.audio-transcriber``: what is said in a recording, or in a stream of sound while it comes."""

from __future__ import annotations

from mediamesh.agents.audio_transcriber.agent import AudioTranscriber

__all__ = ["AudioTranscriber"]
