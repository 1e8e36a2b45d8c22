"""The resource profiles that a manifest may name without spelling them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.manifest_pb2 import ResourceProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["built_in_profiles"]


def built_in_profiles() -> Mapping[str, ResourceProfile]:
    """Return the profiles by name; amounts in Kubernetes' notation."""
    profiles = (
        ResourceProfile(name="image_processing", cpu="2", memory="4Gi", ephemeral_storage="10Gi"),
        ResourceProfile(
            name="video_processing",
            cpu="4",
            memory="8Gi",
            gpu=True,
            gpu_type="nvidia.com/gpu",
            gpu_count=1,
            ephemeral_storage="50Gi",
        ),
        ResourceProfile(name="audio_processing", cpu="1", memory="2Gi", ephemeral_storage="5Gi"),
    )
    return {profile.name: profile for profile in profiles}
