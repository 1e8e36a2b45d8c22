"""Runs the graph of a flow."""

from __future__ import annotations

from mediamesh.orchestrator.execution.agent_node import AgentNodes
from mediamesh.orchestrator.execution.broadcast import Broadcast, Streams
from mediamesh.orchestrator.execution.cache import ResultCache, Results
from mediamesh.orchestrator.execution.graph import Graph
from mediamesh.orchestrator.execution.inbox import Bounds
from mediamesh.orchestrator.execution.journal import Journal, LogBounds
from mediamesh.orchestrator.execution.recall import Recall
from mediamesh.orchestrator.execution.retry import Retries

__all__ = [
    "AgentNodes",
    "Bounds",
    "Broadcast",
    "Graph",
    "Journal",
    "LogBounds",
    "Recall",
    "ResultCache",
    "Results",
    "Retries",
    "Streams",
]
