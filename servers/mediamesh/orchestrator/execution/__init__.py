"""Runs the graph of a flow."""

from __future__ import annotations

from mediamesh.orchestrator.execution.broadcast import Broadcast, Streams
from mediamesh.orchestrator.execution.graph import Graph
from mediamesh.orchestrator.execution.inbox import Bounds
from mediamesh.orchestrator.execution.journal import Journal, LogBounds

__all__ = ["Bounds", "Broadcast", "Graph", "Journal", "LogBounds", "Streams"]
