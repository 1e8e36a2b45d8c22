"""Settings of a server that runs agents."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mediamesh.kit.settings import ServerSettings

__all__ = ["AgentSettings"]


class AgentSettings(ServerSettings):
    """Where an agent server finds the media service, and how much it takes on at once."""

    section: ClassVar[str] = "agent"

    read_ahead_bytes: int | None = Field(
        default=262_144,
        ge=65_536,
        le=1 << 24,
        description="Bytes taken from a run's streams before they are read; unset lets gRPC choose, up to megabytes.",
    )
    media_address: str = Field(
        default="", description="host:port of the media service; empty for agents that take no media."
    )
    max_concurrent_runs: int = Field(
        default=1000, ge=1, le=100_000, description="Runs in progress at once; the next is refused."
    )
    max_runs: int = Field(
        default=0, ge=0, description="Runs after which the server ends by itself, as a Job does; 0 for no end."
    )
    max_media_bytes: int = Field(
        default=100 * 1024 * 1024, ge=1, description="Most bytes of one media value that a run may download."
    )
