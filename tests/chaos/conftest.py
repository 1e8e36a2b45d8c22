"""What every scenario begins with: a history, and processes to break."""

from __future__ import annotations

import pytest

from tests.chaos.checker import faults
from tests.chaos.cluster import cluster_up
from tests.chaos.history import History

_SHOWN = 20


@pytest.fixture
def history() -> History:
    """Return an empty history."""
    return History()


@pytest.fixture
def verify(history, tmp_path):
    """Return a function that fails with the faults of the history, and leaves it in a file."""

    def verify(*, gaps: bool = False) -> None:
        found = faults(history, gaps=gaps)
        if found:
            history.dump(tmp_path / "history.jsonl")
            pytest.fail(
                f"{len(found)} faults, see {tmp_path / 'history.jsonl'}:\n" + "\n".join(found[:_SHOWN]), pytrace=False
            )

    return verify


@pytest.fixture
async def cluster(tmp_path):
    """Return Valkey, two replicas and a door, which this test may break."""
    async with cluster_up(tmp_path) as running_cluster:
        yield running_cluster
