"""Figures of sockets as OpenTelemetry metrics; what happens for every frame is counted in plain integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

__all__ = ["COUNTS", "Counts"]

_METER = metrics.get_meter("mediamesh.edge")


class Counts:
    """What happened in this process since it began, and what is."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.closed: Counter[int] = Counter()
        self.refused = 0
        self.frames_in = 0
        self.bytes_in = 0
        self.frames_out = 0
        self.bytes_out = 0


COUNTS = Counts()
"""Of this process."""


def _one(read: Callable[[], int]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(read())]


def _open(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(count, {"kind": kind}) for kind, count in COUNTS.open.items()]


def _closed(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(count, {"code": code}) for code, count in COUNTS.closed.items()]


for _name, _read, _text in (
    ("refused", lambda: COUNTS.refused, "Sockets refused: too many, or from a page that may not."),
    ("frames_in", lambda: COUNTS.frames_in, "Frames received."),
    ("bytes_in", lambda: COUNTS.bytes_in, "Bytes of these frames."),
    ("frames_out", lambda: COUNTS.frames_out, "Frames sent."),
    ("bytes_out", lambda: COUNTS.bytes_out, "Bytes of these frames."),
):
    _METER.create_observable_counter(f"mediamesh_edge_{_name}", [_one(_read)], description=_text)
_METER.create_observable_counter("mediamesh_edge_closed", [_closed], description="Sockets closed, by code.")
_METER.create_observable_gauge("mediamesh_edge_sockets", [_open], description="Sockets open, by what they do.")
