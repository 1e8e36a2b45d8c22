"""``mediamesh.multimodal-aggregator``: results of several media as one stream, in the order of media time."""

from __future__ import annotations

from mediamesh.agents.multimodal_aggregator.agent import MultimodalAggregator

__all__ = ["MultimodalAggregator"]
