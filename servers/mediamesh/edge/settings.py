"""Settings of the server for WebSockets."""

from __future__ import annotations

import re
from typing import ClassVar

from pydantic import Field, field_validator

from mediamesh.kit.settings import Settings as BaseSettings

__all__ = ["Settings"]

_LOCAL_ORIGINS = r"https?://(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?"


class Settings(BaseSettings):
    """Where it listens, where streams are, and how sockets are bounded."""

    section: ClassVar[str] = "edge"

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Port of the Prometheus page; unset offers none."
    )
    grace_seconds: float = Field(default=5.0, ge=0, le=600, description="How long sockets have to close after SIGTERM.")
    streams_address: str = Field(default="127.0.0.1:8080", description="Where the streams servers are, host:port.")
    flows_address: str = Field(default="127.0.0.1:8080", description="Where the orchestrators are, host:port.")
    cors_origins: str = Field(
        default=_LOCAL_ORIGINS,
        description="Regular expression of the origins whose pages may open sockets, beside those of the door itself.",
    )
    max_sockets: int = Field(default=2500, ge=1, le=100_000, description="Sockets at once; the next is refused.")
    max_frame_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, le=32 * 1024 * 1024, description="Largest frame accepted."
    )
    ping_seconds: float = Field(default=20, gt=0, le=600, description="How often a socket is pinged.")
    pong_seconds: float = Field(
        default=60,
        gt=0,
        le=600,
        description="How long the answer to a ping may take. A reader that stops, or a producer that is held by the"
        " policy of its stream, answers no sooner than it goes on.",
    )
    patience_seconds: float = Field(
        default=30, ge=0, le=600, description="How long streams servers may be away before their readers hear of it."
    )

    @field_validator("cors_origins")
    @classmethod
    def _is_regular_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"must be a regular expression: {error}") from None
        return value
