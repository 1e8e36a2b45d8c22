"""What an agent is written with: derive from :class:`Agent`, describe it in a manifest, and ``main`` serves it."""

from __future__ import annotations

from mediamesh.agent.agent import Agent
from mediamesh.agent.answer import Answer
from mediamesh.agent.app import agents_part, main, serving_agents
from mediamesh.agent.manifest import InvalidManifest, load_manifest, parse_manifest
from mediamesh.agent.output import Output
from mediamesh.agent.run import Run
from mediamesh.agent.settings import AgentSettings

__all__ = [
    "Agent",
    "AgentSettings",
    "Answer",
    "InvalidManifest",
    "Output",
    "Run",
    "agents_part",
    "load_manifest",
    "main",
    "parse_manifest",
    "serving_agents",
]
