"""Settings of the streams server."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from mediamesh.kit.settings import FeatureSettings

__all__ = ["Settings"]


class Settings(FeatureSettings):
    """Where streams are kept, and how they are bounded."""

    section: ClassVar[str] = "streams"

    max_concurrent_calls: int = Field(
        default=20_000, ge=1, le=1_000_000, description="Producers, subscribers and watchers at once, all together."
    )
    event_loop: Literal["asyncio", "uvloop"] = Field(
        default="uvloop",
        description="Loop of the process; uvloop, which costs a third less an event, where it is there.",
    )
    valkey_url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="Where streams are kept; `memory` keeps them here, for one replica and until it stops.",
    )
    public_url: str = Field(
        default="ws://127.0.0.1:8080", description="Where clients find the door, for the ws_url of a stream."
    )

    max_concurrent_streams: int = Field(
        default=1000, ge=1, le=1_000_000, description="Streams that live at once on all replicas; the next is refused."
    )
    max_subscribers: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Subscribers at once on this replica; the next is refused."
    )
    max_event_bytes: int = Field(
        default=2 * 1024 * 1024, ge=1024, le=16 * 1024 * 1024, description="Largest event accepted."
    )
    max_media_size_mb: float = Field(
        default=100, gt=0, description="Largest media in megabytes, as the capabilities of the mesh tell it."
    )
    max_buffer_items: int = Field(default=100_000, ge=16, le=1_000_000, description="Most a stream may ask to keep.")
    max_buffer_bytes: int = Field(
        default=256 * 1024 * 1024, ge=65_536, le=1 << 30, description="Most bytes a stream may ask to keep."
    )
    buffer_items: int = Field(default=10_000, ge=16, le=1_000_000, description="Events kept of a stream that asks not.")
    buffer_bytes: int = Field(
        default=8 * 1024 * 1024, ge=65_536, le=1 << 30, description="Bytes kept of a stream, likewise."
    )
    max_events_per_second: float = Field(
        default=10_000, gt=0, le=1e9, description="Events a second taken of one producer; more make it wait."
    )
    max_duration_seconds: float = Field(
        default=300, gt=0, le=86_400, description="Longest life of a stream that asks for none (max_duration_ms)."
    )
    heartbeat_seconds: float = Field(
        default=15,
        gt=0,
        le=600,
        description="Silence after which a subscriber gets a heartbeat.",
    )
    resume_seconds: float = Field(
        default=10, gt=0, le=600, description="How long the place of a subscriber that left, or never came, is kept."
    )
    ack_seconds: float = Field(
        default=0.25,
        ge=0,
        le=10,
        description="Longest wait for further events before some are acknowledged; up to a second with many producers.",
    )
    buffer_ttl_seconds: float = Field(
        default=300, gt=0, description="How long the events of a stream outlive its end (key stream:buf)."
    )
    meta_ttl_seconds: float = Field(
        default=3600, gt=0, description="How long what is known about a stream outlives its end (key stream:meta)."
    )
