"""Whether a batch pays: measured when a model is loaded, as it depends on the net and the processor.

A net that keeps a core busy with one item gains nothing from two; one whose run is overhead gains several times.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from mediamesh.inference.onnx.warmup import zeros
from mediamesh.wire.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mediamesh.inference.datatypes import TensorSpec
    from mediamesh.inference.onnx.session import Session

__all__ = ["largest_worthwhile", "time_batches"]

_LOG = logging.getLogger(__name__)
# An item must cost this much less in the larger batch: below it, waiting for the others of a batch costs more.
_LEAST_GAIN = 0.9
# The quickest of so many runs counts: whatever disturbs a run makes it slower.
_RUNS = 5


def time_batches(
    label: str,
    session: Session,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[str],
    *,
    most: int,
    seconds: float,
) -> Mapping[int, float]:
    """Return the seconds of one run by items in it: 1, 2, 4 and so on to the most, as far as the time allows.

    Args:
        label: What the log calls the model.
        session: Runs the model.
        inputs: Its inputs, in the shapes that callers see.
        outputs: Names of its outputs.
        most: The largest batch.
        seconds: Time to spend; a run that has begun is finished.

    Returns:
        Nothing where the shapes are open, so that there is nothing to run.
    """
    taken: dict[int, float] = {}
    deadline = time.perf_counter() + seconds
    for items in _sizes(most):
        feeds = zeros(inputs, items)
        # Twice the items may take twice the time: what does not fit any more is not begun.
        if feeds is None or (taken and time.perf_counter() + 2 * min(2, _RUNS) * max(taken.values()) > deadline):
            break
        try:
            session.run(feeds, outputs)
            taken[items] = min(_timed(session, feeds, outputs, deadline))
        except MeshError as error:
            _LOG.info("model %s: batches were not measured, as it does not run on zeros: %s", label, error)
            return {}
    return taken


def largest_worthwhile(taken: Mapping[int, float]) -> int:
    """Return the largest batch whose items cost clearly less than in any smaller one; 1 when there is none."""
    best = 1
    for items in sorted(taken):
        if taken[items] / items < _LEAST_GAIN * taken[best] / best:
            best = items
    return best


def _timed(session: Session, feeds: Mapping[str, object], outputs: Sequence[str], deadline: float) -> list[float]:
    taken: list[float] = []
    while len(taken) < _RUNS and (not taken or time.perf_counter() < deadline):
        begin = time.perf_counter()
        session.run(feeds, outputs)  # type: ignore[arg-type]
        taken.append(time.perf_counter() - begin)
    return taken


def _sizes(most: int) -> list[int]:
    sizes = [1]
    while sizes[-1] * 2 < most:
        sizes.append(sizes[-1] * 2)
    return [*sizes, most] if most > 1 else sizes
