"""How much of a machine a run needs."""

from __future__ import annotations

import pytest

from mediamesh.agent.profiles import built_in_profiles
from mediamesh.api.agent.v1.manifest_pb2 import ResourceProfile
from mediamesh.api.media.v1.media_pb2 import MediaFacts
from mediamesh.kubernetes import calculated
from mediamesh.wire.errors import InvalidRequest

SMALL = ResourceProfile(name="small", cpu="500m", memory="1Gi")
VIDEO = built_in_profiles()["video_processing"]


def full_hd(seconds, **facts):
    return MediaFacts(width=1920, height=1080, duration_seconds=seconds, **facts)


def test_a_minute_of_full_hd_takes_two_gibibytes_and_three_times_that_on_disk() -> None:
    sized = calculated(SMALL, [full_hd(60)])
    assert (sized.memory, sized.ephemeral_storage, sized.cpu, sized.gpu) == ("2048Mi", "6144Mi", "500m", False)


def test_memory_grows_with_pixels_and_seconds_of_all_inputs() -> None:
    ultra = MediaFacts(width=3840, height=2160, duration_seconds=90)
    assert calculated(SMALL, [ultra, full_hd(60)]).memory == f"{2048 * 4 * 3 // 2 + 2048}Mi"


@pytest.mark.parametrize(
    "facts", [MediaFacts(), MediaFacts(width=64, height=64), full_hd(1), full_hd(239)], ids=range(4)
)
def test_a_run_gets_no_less_than_its_profile(facts) -> None:
    assert calculated(VIDEO, [facts]) == VIDEO


def test_beyond_the_profile_disk_stays_as_large_as_the_profile_has_it() -> None:
    sized = calculated(VIDEO, [full_hd(300)])
    assert (sized.memory, sized.ephemeral_storage) == ("10240Mi", "50Gi")


@pytest.mark.parametrize(
    ("facts", "gpu"),
    [
        (MediaFacts(width=3840, height=2160), False),
        (MediaFacts(width=3841, height=2160), True),
        (MediaFacts(width=640, height=480, fps=60), False),
        (MediaFacts(width=640, height=480, fps=60.1), True),
    ],
    ids=range(4),
)
def test_many_pixels_or_frames_need_a_gpu(facts, gpu) -> None:
    sized = calculated(SMALL, [facts])
    assert (sized.gpu, sized.gpu_type, sized.gpu_count) == ((True, "nvidia.com/gpu", 1) if gpu else (False, "", 0))


def test_a_profile_whose_memory_is_no_quantity_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="4 GB"):
        calculated(ResourceProfile(cpu="1", memory="4 GB"), [])
