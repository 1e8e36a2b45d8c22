"""Composition root of the agents server."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.agent import agents_part
from mediamesh.agents.audio_converter import AudioConverter
from mediamesh.agents.audio_transcriber import AudioTranscriber
from mediamesh.agents.document_reader import DocumentReader, TextModels
from mediamesh.agents.image_classifier import ImageClassifier
from mediamesh.agents.image_converter import ImageConverter
from mediamesh.agents.image_generator import ImageGenerator
from mediamesh.agents.multimodal_aggregator import MultimodalAggregator
from mediamesh.agents.video_analyzer import VideoAnalyzer
from mediamesh.client.inference import InferenceClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from mediamesh.agents.settings import Settings
    from mediamesh.kit.serve import Part

__all__ = ["app"]


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Open the agents that ship, and what they need."""
    async with InferenceClient(settings.inference_address) as inference:
        classifier = ImageClassifier(
            inference,
            model=settings.classifier_model,
            max_images=settings.max_images,
            max_pixels=settings.max_image_pixels,
        )
        video_analyzer = VideoAnalyzer(
            inference,
            detector=settings.detector_model,
            classifier=settings.classifier_model,
            max_videos=settings.max_videos,
            in_flight=settings.frames_in_flight,
            max_pixels=settings.max_frame_pixels,
        )
        document_reader = DocumentReader(
            inference,
            models=TextModels(
                detector=settings.text_detector_model,
                recogniser=settings.text_recogniser_model,
                orientation=settings.text_orientation_model,
            ),
            max_reading=settings.max_reading,
            max_pages=settings.max_pages,
            max_pixels=settings.max_image_pixels,
        )
        agents = [
            classifier,
            ImageGenerator(),
            AudioTranscriber(
                inference,
                recogniser=settings.recogniser_model,
                activity=settings.activity_model,
                pause_seconds=settings.pause_seconds,
            ),
            MultimodalAggregator(),
            document_reader,
            video_analyzer,
            AudioConverter(max_sounds=settings.max_sounds, max_bytes=settings.max_sound_bytes),
            ImageConverter(max_images=settings.max_images, max_pixels=settings.max_image_pixels),
        ]
        async with agents_part(settings, *agents) as part:
            yield part
