"""Puts the media server together."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from mediamesh.api.media.v1 import media_service_pb2
from mediamesh.api.media.v1.media_pb2 import MediaType
from mediamesh.api.media.v1.media_service_pb2_grpc import add_MediaServiceServicer_to_server
from mediamesh.kit.serve import Part
from mediamesh.media.budget import Budget
from mediamesh.media.catalogue import Catalogue
from mediamesh.media.documents import DocumentLimits, DocumentReader
from mediamesh.media.download import Downloads, Links
from mediamesh.media.films import read_film
from mediamesh.media.limits import Kind, Kinds, kind_name
from mediamesh.media.pictures import PictureLimits, PictureReader
from mediamesh.media.place import Addresses
from mediamesh.media.recordings import RecordingReader
from mediamesh.media.s3 import s3_store
from mediamesh.media.service import MediaService
from mediamesh.media.sounds import read_sound
from mediamesh.media.tracks import RecordingLimits
from mediamesh.media.upload import Uploads
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from concurrent.futures import Executor

    from mediamesh.media.s3 import S3Store
    from mediamesh.media.settings import Settings

__all__ = ["app"]

_LOG = logging.getLogger(__name__)
_SERVICE = media_service_pb2.DESCRIPTOR.services_by_name["MediaService"].full_name


@asynccontextmanager
async def app(settings: Settings) -> AsyncGenerator[Part]:
    """Yield the media server; it starts without its store and is not healthy before that is there."""
    with ThreadPoolExecutor(settings.decoders, thread_name_prefix="decode") as threads:
        async with s3_store(settings) as store:
            try:
                await store.check()
            except MeshError as error:
                _LOG.warning("the store at %s is not ready: %s", settings.endpoint_url, error)
            service = _service(settings, store, threads)
            yield Part(
                services=[_SERVICE],
                register=lambda server: add_MediaServiceServicer_to_server(service, server),
                check=store.check,
            )


def _service(settings: Settings, store: S3Store, threads: Executor) -> MediaService:
    addresses = Addresses(settings.bucket, settings.workspaces)
    catalogue = Catalogue(store, addresses)
    # Two budgets, as an upload that has arrived must find room to be decoded while others go on arriving.
    arriving = settings.memory_budget_bytes // 5
    decoding = Budget(settings.memory_budget_bytes - arriving)
    kinds = (
        _images(settings, threads, decoding),
        _sound(settings, threads, decoding),
        _films(settings, threads, decoding),
        _documents(settings, decoding),
    )
    allowed = Kinds(
        *(kind for kind in kinds if kind_name(kind.type) in settings.allowed_types), enabled=settings.enable_multimodal
    )
    uploads = Uploads(
        allowed,
        catalogue,
        addresses,
        Budget(arriving),
        spool_directory=settings.spool_directory,
        idle_seconds=settings.idle_seconds,
        upload_seconds=settings.upload_seconds,
    )
    downloads = Downloads(store, catalogue, addresses, at_once=settings.max_downloads)
    return MediaService(uploads, downloads, Links(store, catalogue, addresses, allowed))


def _images(settings: Settings, threads: Executor, decoding: Budget) -> Kind:
    limits = PictureLimits(
        pixels=settings.max_image_pixels,
        frames=settings.max_image_frames,
        animation_pixels=settings.max_animation_pixels,
    )
    return Kind(
        type=MediaType.MEDIA_TYPE_IMAGE,
        accepted=settings.image_types,
        max_bytes=min(settings.max_image_bytes, settings.max_file_bytes),
        reader=PictureReader(limits, threads, decoding),
    )


def _sound(settings: Settings, threads: Executor, decoding: Budget) -> Kind:
    limits = RecordingLimits(seconds=settings.max_audio_seconds, work_seconds=settings.decode_seconds)
    return Kind(
        type=MediaType.MEDIA_TYPE_AUDIO,
        accepted=settings.audio_types,
        max_bytes=min(settings.max_audio_bytes, settings.max_file_bytes),
        reader=RecordingReader(read_sound, limits, threads, decoding),
        # The same containers hold films. That there is no picture in it shows when it is read.
        names={"video/webm": "audio/webm", "video/mp4": "audio/mp4"},
    )


def _films(settings: Settings, threads: Executor, decoding: Budget) -> Kind:
    limits = RecordingLimits(
        seconds=settings.max_video_seconds, pixels=settings.max_video_pixels, work_seconds=settings.decode_seconds
    )
    return Kind(
        type=MediaType.MEDIA_TYPE_VIDEO,
        accepted=settings.video_types,
        max_bytes=min(settings.max_video_bytes, settings.max_file_bytes),
        reader=RecordingReader(read_film, limits, threads, decoding),
    )


def _documents(settings: Settings, decoding: Budget) -> Kind:
    limits = DocumentLimits(pages=settings.max_document_pages)
    return Kind(
        type=MediaType.MEDIA_TYPE_DOCUMENT,
        accepted=settings.document_types,
        max_bytes=min(settings.max_document_bytes, settings.max_file_bytes),
        reader=DocumentReader(limits, decoding),
    )
