"""``mediamesh.video-analyzer``: what is seen in each frame of a video, streamed with its time."""

from __future__ import annotations

from mediamesh.agents.video_analyzer.agent import VideoAnalyzer

__all__ = ["VideoAnalyzer"]
