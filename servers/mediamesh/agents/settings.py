"""Settings of the agents server: ``MEDIAMESH_AGENTS_*``, or the table ``[agents]``."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import Field

from mediamesh.agent import AgentSettings

__all__ = ["Settings"]


class Settings(AgentSettings):
    """Where the agents that ship find their models, and how much they decode at once."""

    section: ClassVar[str] = "agents"

    media_address: str = Field(default="127.0.0.1:50051", description="host:port of the media service.")
    inference_address: str = Field(default="127.0.0.1:50052", description="host:port of the inference server.")
    classifier_model: str = Field(
        default="efficientnet_lite0_int8", description="Model of the image classifier on the inference server."
    )
    max_images: int = Field(
        default_factory=lambda: 4 * (os.cpu_count() or 1),
        ge=1,
        le=1024,
        description="Images held in memory at once; the next run waits.",
    )
    max_image_pixels: int = Field(
        default=64_000_000, ge=1, description="Width times height of an image that is decoded, at most."
    )
    detector_model: str = Field(
        default="nanodet_int8", description="Model of the video analyzer that finds objects, on the inference server."
    )
    max_videos: int = Field(
        default_factory=lambda: 4 * (os.cpu_count() or 1),
        ge=1,
        le=1024,
        description="Videos open at once; the next run waits.",
    )
    frames_in_flight: int = Field(
        default_factory=lambda: 1 + min(31, os.cpu_count() or 1),
        ge=1,
        le=256,
        description="Frames of one video held at once, from decoding to result: one more than the model runs at once.",
    )
    max_frame_pixels: int = Field(
        default=36_000_000, ge=1, description="Width times height of a video's frame, at most (8K UHD has 33 million)."
    )
    max_sounds: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Sounds that are converted at once; the next run waits.",
    )
    max_sound_bytes: int = Field(
        default=100_000_000, ge=1, description="Most bytes that the conversion of a sound may give."
    )
    text_detector_model: str = Field(
        default="ppocr_detector", description="Model of the document reader that finds text, on the inference server."
    )
    text_recogniser_model: str = Field(
        default="ppocr_recogniser", description="Model of the document reader that reads a line of text."
    )
    text_orientation_model: str = Field(
        default="ppocr_orientation", description="Model of the document reader that tells which lines are upside down."
    )
    max_reading: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=1024,
        description="Pages of documents held in memory at once; the next page waits.",
    )
    max_pages: int = Field(default=200, ge=1, le=10_000, description="Most pages of a document that one run reads.")
    recogniser_model: str = Field(
        default="whisper_tiny_en", description="Model of the transcriber that knows words, on the inference server."
    )
    activity_model: str = Field(
        default="silero_vad", description="Model of the transcriber that knows speech from silence, there."
    )
    pause_seconds: float = Field(
        default=0.6, ge=0.1, le=5, description="Silence that ends a segment of a transcript, in seconds."
    )
