"""What an agent is written with.

Derive from :class:`Agent` and describe it in a manifest, or put :func:`agent` before a function; ``main`` serves both.
"""

from __future__ import annotations

from mediamesh.agent.agent import Agent
from mediamesh.agent.answer import Answer
from mediamesh.agent.app import agents_part, main, serving_agents
from mediamesh.agent.functions import FunctionAgent, agent
from mediamesh.agent.manifest import InvalidManifest, load_manifest, parse_manifest
from mediamesh.agent.media_input import Audio, Document, Image, Video
from mediamesh.agent.output import Output
from mediamesh.agent.run import Run
from mediamesh.agent.settings import AgentSettings

__all__ = [
    "Agent",
    "AgentSettings",
    "Answer",
    "Audio",
    "Document",
    "FunctionAgent",
    "Image",
    "InvalidManifest",
    "Output",
    "Run",
    "Video",
    "agent",
    "agents_part",
    "load_manifest",
    "main",
    "parse_manifest",
    "serving_agents",
]
