"""Figures of the broker as OpenTelemetry metrics.

What happens for every event is counted in plain integers that are read when somebody asks: an instrument that is told
of each costs microseconds, tens of thousands of times a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

__all__ = ["COUNTS", "Counts", "delivered_after"]

_METER = metrics.get_meter("mediamesh.streams")


class Counts:
    """What happened in this process since it began, and what is."""

    def __init__(self) -> None:
        self.events_in = 0
        self.bytes_in = 0
        self.events_out = 0
        self.bytes_out = 0
        self.gaps = 0
        self.fenced = 0
        self.blocked_seconds = 0.0
        self.dropped: Counter[str] = Counter()
        self.subscribers = 0
        self.publishers = 0
        self.live_streams = 0


COUNTS = Counts()
"""Of this process, however many brokers are in it."""


def _one(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    return lambda _options: [Observation(read())]


def _dropped(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(count, {"policy": policy}) for policy, count in COUNTS.dropped.items()]


for _name, _read, _text in (
    ("events_in", lambda: COUNTS.events_in, "Events accepted and stored."),
    ("bytes_in", lambda: COUNTS.bytes_in, "Bytes of these events."),
    ("events_out", lambda: COUNTS.events_out, "Events handed to subscribers."),
    ("bytes_out", lambda: COUNTS.bytes_out, "Bytes of these events."),
    ("gaps", lambda: COUNTS.gaps, "Gaps told to subscribers."),
    ("fenced", lambda: COUNTS.fenced, "Producers shut out by a later one."),
    ("blocked_seconds", lambda: COUNTS.blocked_seconds, "Time that producers waited for subscribers."),
):
    _METER.create_observable_counter(f"mediamesh_streams_{_name}", [_one(_read)], description=_text)
_METER.create_observable_counter(
    "mediamesh_streams_dropped", [_dropped], description="Events that a policy dropped, as this replica saw it."
)
for _name, _read, _text in (
    ("subscribers", lambda: COUNTS.subscribers, "Subscribers on this replica."),
    ("publishers", lambda: COUNTS.publishers, "Producers on this replica."),
    ("live", lambda: COUNTS.live_streams, "Streams that live, on all replicas."),
):
    _METER.create_observable_gauge(f"mediamesh_streams_{_name}", [_one(_read)], description=_text)
_LATENCY = _METER.create_histogram(
    "mediamesh_streaming_latency_milliseconds",
    unit="ms",
    description="From the acceptance of an event to its hand-over to a subscriber on the same replica; sampled.",
    explicit_bucket_boundaries_advisory=[0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000],
)


def delivered_after(seconds: float, node_id: str) -> None:
    """Note how long an event took through the broker."""
    _LATENCY.record(seconds * 1e3, {"node_id": node_id})
