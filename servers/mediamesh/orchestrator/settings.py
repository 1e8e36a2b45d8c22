"""Settings of the orchestrator."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from mediamesh.client.channel import MAX_MESSAGE_BYTES
from mediamesh.kit.settings import FeatureSettings

__all__ = ["Settings"]


class Settings(FeatureSettings):
    """Where the orchestrator finds its neighbours, and what a run may use."""

    section: ClassVar[str] = "orchestrator"

    max_message_bytes: int = Field(
        default=MAX_MESSAGE_BYTES, ge=1024, le=1 << 30, description="Largest message accepted: media may come inline."
    )

    valkey_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Where logs of runs are kept; `memory` keeps them here, for one replica and until it stops.",
    )
    media_address: str = Field(default="127.0.0.1:50051", description="The media server, host:port.")
    agent_addresses: list[str] = Field(
        default_factory=list, max_length=256, description="The agent servers, host:port each, as a JSON list."
    )
    streams_address: str = Field(
        default="",
        description="The streams server, host:port, where stream pins are published; empty publishes none.",
    )
    streams_patience_seconds: float = Field(
        default=5,
        gt=0,
        le=60,
        description="How long a run waits for the streams server before it goes on without publishing a pin.",
    )

    max_nodes: int = Field(default=256, ge=1, le=1024, description="Most nodes in a flow.")
    max_executions: int = Field(default=256, ge=1, le=100_000, description="Runs at once; the next is refused.")
    node_timeout_seconds: float = Field(
        default=300, gt=0, le=86_400, description="How long a node may run that does not say it itself."
    )
    retry_attempts: int = Field(
        default=3,
        ge=1,
        le=21,
        description="Tries of a node that fails for a passing reason, where the flow says nothing.",
    )
    retry_pause_seconds: float = Field(
        default=1.2,
        ge=0,
        le=60,
        description="Pause before the second try, doubled before each further one; channels reconnect within 1.2 s.",
    )
    retry_longest_pause_seconds: float = Field(
        default=30, ge=0, le=3600, description="Longest pause between two tries, where the flow says nothing."
    )
    execution_timeout_seconds: float = Field(
        default=3600, gt=0, le=86_400, description="How long a run may take whose caller set no limit."
    )
    stream_buffer_chunks: int = Field(
        default=64, ge=1, le=65_536, description="Chunks that wait on a stream pin before its producer has to."
    )
    stream_buffer_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, le=1 << 30, description="Bytes that wait on a stream pin, likewise."
    )
    max_event_bytes: int = Field(
        default=2 * 1024 * 1024,
        ge=4096,
        le=16 * 1024 * 1024,
        description="Largest event; larger outputs fail a node, and larger inputs are refused.",
    )

    cache_max_bytes: int = Field(
        default=1024 * 1024,
        ge=0,
        le=16 * 1024 * 1024,
        description="Largest result of an agent that is kept for the same inputs, where that is allowed; 0 for none.",
    )

    log_ttl_seconds: float = Field(
        default=86_400, gt=0, description="How long the log of a run outlives its last event."
    )
    log_max_events: int = Field(default=100_000, ge=16, description="Most events in a log; the oldest go first.")
    log_max_bytes: int = Field(
        default=256 * 1024 * 1024, ge=65_536, description="Most bytes in a log; the oldest events go first."
    )
    lease_seconds: float = Field(
        default=10,
        gt=0,
        le=600,
        description="After how long without a sign of life a run's orchestrator is dead, and another takes over.",
    )
    max_takeovers: int = Field(
        default=8, ge=0, le=1000, description="How often a run is taken over before it fails; 0 for never."
    )
    heartbeat_seconds: float = Field(default=15, gt=0, le=600, description="Silence after which a watcher is told so.")

    agents_refresh_seconds: float = Field(
        default=5, gt=0, le=3600, description="How often agent servers are asked what they run."
    )
    agents_timeout_seconds: float = Field(default=2, gt=0, le=60, description="How long such a question may take.")
