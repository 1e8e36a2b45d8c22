"""An asyncio client for the mesh; the servers call each other through it too."""

from __future__ import annotations

from mediamesh.client.channel import connect

__all__ = ["connect"]
