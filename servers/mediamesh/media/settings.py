"""Settings of the media server: ``MEDIAMESH_MEDIA_*``, or the table ``[media]``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from mediamesh.kit.settings import FeatureSettings

__all__ = ["Settings"]


class Settings(FeatureSettings):
    """Where the store is, and what it takes."""

    section: ClassVar[str] = "media"

    read_ahead_bytes: int | None = Field(
        default=262_144,
        ge=65_536,
        le=1 << 24,
        description="Bytes taken from each upload before they are read; unset lets gRPC choose, up to megabytes.",
    )

    endpoint_url: str = Field(default="http://127.0.0.1:8333", description="Address of the S3 store.")
    public_endpoint_url: str = Field(
        default="", description="Address of the S3 store as clients reach it, for signed addresses; empty for the same."
    )
    access_key: str = Field(
        default="", repr=False, description="S3 access key; empty leaves credentials to the machine's own."
    )
    secret_key: str = Field(default="", repr=False, description="S3 secret key.")
    region: str = Field(default="us-east-1", description="S3 region.")
    bucket: str = Field(default="media", pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", description="S3 bucket.")
    create_bucket: bool = Field(default=True, description="Create the bucket when it is missing.")
    store_connections: int = Field(default=256, ge=8, le=10_000, description="Connections to the store at most.")
    max_downloads: int = Field(
        default=192, ge=1, le=10_000, description="Downloads served at once; the next one waits. Below the connections."
    )
    workspaces: tuple[str, ...] = Field(default=(), description="Workspaces that are served; empty for all.")

    allowed_types: tuple[Literal["image", "audio", "video", "document"], ...] = Field(
        default=("image", "audio", "video", "document"), description="Kinds of media that are taken in."
    )
    max_file_bytes: int = Field(
        default=100 * 1024 * 1024, ge=1, le=5 << 30, description="Largest object of any kind in bytes."
    )

    image_types: tuple[str, ...] = Field(
        default=("image/jpeg", "image/png", "image/webp", "image/gif"), description="Accepted media types of images."
    )
    max_image_bytes: int = Field(default=20 * 1024 * 1024, ge=1, le=5 << 30, description="Largest image in bytes.")
    max_image_pixels: int = Field(default=64_000_000, ge=1, description="Width times height of an image at most.")
    max_image_frames: int = Field(default=2_000, ge=1, description="Frames of an animated image at most.")
    max_animation_pixels: int = Field(
        default=500_000_000, ge=1, description="Width times height times frames of an animated image at most."
    )

    audio_types: tuple[str, ...] = Field(
        default=("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac", "audio/webm"),
        description="Accepted media types of sound; audio/mp4 may be added.",
    )
    max_audio_bytes: int = Field(default=25 * 1024 * 1024, ge=1, le=5 << 30, description="Largest sound in bytes.")
    max_audio_seconds: float = Field(default=14_400.0, gt=0, description="Longest sound in seconds.")

    video_types: tuple[str, ...] = Field(
        default=("video/mp4", "video/webm"), description="Accepted media types of films."
    )
    max_video_bytes: int = Field(default=100 * 1024 * 1024, ge=1, le=5 << 30, description="Largest film in bytes.")
    max_video_seconds: float = Field(default=14_400.0, gt=0, description="Longest film in seconds.")
    max_video_pixels: int = Field(default=8_912_896, ge=1, description="Width times height of a film at most; 4K fits.")

    document_types: tuple[str, ...] = Field(
        default=("application/pdf",), description="Accepted media types of documents."
    )
    max_document_bytes: int = Field(
        default=50 * 1024 * 1024, ge=1, le=5 << 30, description="Largest document in bytes."
    )
    max_document_pages: int = Field(default=2_000, ge=1, description="Pages of a document at most.")

    memory_budget_bytes: int = Field(
        default=500_000_000,
        ge=16 * 1024 * 1024,
        description="Memory for uploads and decoding in the whole process; what exceeds it waits.",
    )
    decoders: int = Field(
        default_factory=lambda: os.cpu_count() or 1, ge=1, le=256, description="Media decoded at once."
    )
    decode_seconds: float = Field(
        default=120.0, gt=0, le=3600, description="Longest time that reading a sound or a film may take."
    )
    spool_directory: Path | None = Field(
        default=None, description="Folder for the nameless files that uploads arrive in; unset for the system's."
    )
    idle_seconds: float = Field(default=30.0, gt=0, le=3600, description="Longest pause between frames of an upload.")
    upload_seconds: float = Field(default=900.0, gt=0, le=86_400, description="Longest time an upload may take.")
