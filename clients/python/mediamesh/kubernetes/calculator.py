"""How much of a machine a run needs, by what is known about its media."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mediamesh.api.agent.v1.manifest_pb2 import ResourceProfile
from mediamesh.kubernetes.quantities import bytes_of, mebibytes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mediamesh.api.media.v1.media_pb2 import MediaFacts

__all__ = ["calculated"]

_BASE_BYTES = 2 << 30
_FULL_HD, _ULTRA_HD = 1920 * 1080, 3840 * 2160
_MOST_FPS = 60
_GPU = "nvidia.com/gpu"


def calculated(profile: ResourceProfile, inputs: Iterable[MediaFacts]) -> ResourceProfile:
    """Return the resources of a run on these inputs, never less than its profile has.

    Memory is 2 GiB * (width * height) / (1920 * 1080) * duration / 60 s, of all inputs together, and storage three
    times that. There is a GPU where a picture has more than 3840 * 2160 pixels, or a video more than 60 frames/s.

    Args:
        profile: What the agent needs at least.
        inputs: What is known about each media value of the run; a fact that is not known adds nothing.

    Raises:
        InvalidRequest: the profile's amounts are no quantities.
    """
    facts = list(inputs)
    needed = sum(map(_memory, facts))
    sized = ResourceProfile()
    sized.CopyFrom(profile)
    if needed > bytes_of(profile.memory, "memory"):
        sized.memory = mebibytes(needed)
        if not profile.ephemeral_storage or 3 * needed > bytes_of(profile.ephemeral_storage, "ephemeralStorage"):
            sized.ephemeral_storage = mebibytes(3 * needed)
    if any(map(_wants_gpu, facts)):
        sized.gpu = True
    if sized.gpu:
        sized.gpu_type = sized.gpu_type or _GPU
        sized.gpu_count = sized.gpu_count or 1
    return sized


def _memory(facts: MediaFacts) -> float:
    return _BASE_BYTES * (facts.width * facts.height / _FULL_HD) * (facts.duration_seconds / 60)


def _wants_gpu(facts: MediaFacts) -> bool:
    return facts.width * facts.height > _ULTRA_HD or facts.fps > _MOST_FPS
