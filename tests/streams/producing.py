"""What tests of the broker say to it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.stream_pb2 import OverflowPolicy
from mediamesh.api.stream.v1.stream_service_pb2 import (
    OpenStreamRequest,
    PublishEvent,
    PublishOpen,
    SubscribeRequest,
)
from mediamesh.streams.broker import Broker
from mediamesh.streams.events import Batch
from mediamesh.streams.log.memory import MemoryStore
from mediamesh.streams.log.valkey import ValkeyStore
from mediamesh.streams.settings import Settings

START, DATA, END, ERROR = (
    stream_pb2.STREAM_EVENT_TYPE_STREAM_START,
    stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA,
    stream_pb2.STREAM_EVENT_TYPE_STREAM_END,
    stream_pb2.STREAM_EVENT_TYPE_STREAM_ERROR,
)


@asynccontextmanager
async def broker_over(memory=None, *, valkey_url="", replica="one", **changes):
    """Run a broker over Valkey, or over a memory that others may share.

    Places are kept for longer than any test takes: where a machine stalls, nobody is forgotten who is there.
    """
    settings = Settings(valkey_url=valkey_url, **{"ack_seconds": 0.01, "resume_seconds": 60, **changes})
    rules = {
        "replica": replica,
        "max_concurrent_streams": settings.max_concurrent_streams,
        "resume_seconds": settings.resume_seconds,
        "buffer_ttl_seconds": settings.buffer_ttl_seconds,
        "meta_ttl_seconds": settings.meta_ttl_seconds,
    }
    kept = ValkeyStore.open(valkey_url, **rules) if valkey_url else MemoryStore.open(memory, **rules)
    async with kept as store, Broker.running(store, settings, replica=replica) as broker:
        yield broker


def start(sequence=1):
    return PublishEvent(sequence=sequence, event_type=START)


def data(sequence, text=""):
    event = PublishEvent(sequence=sequence, event_type=DATA)
    event.payload.data.content.text = text or f"text {sequence}"
    return event


def end(sequence, reason="stop"):
    event = PublishEvent(sequence=sequence, event_type=END)
    event.payload.metadata.reason = reason
    return event


def limits(**fields):
    overflow = OverflowPolicy.Value(f"OVERFLOW_POLICY_{fields.pop('overflow', 'block').upper()}")
    heartbeat = fields.pop("heartbeat", None)
    duration = fields.pop("duration", None)
    made = stream_pb2.StreamLimits(overflow=overflow, **fields)
    if heartbeat is not None:
        made.heartbeat_interval.FromMilliseconds(round(heartbeat * 1000))
    if duration is not None:
        made.max_duration.FromMilliseconds(round(duration * 1000))
    return made


def opening_of(opened, producer_id="producer", epoch=0):
    return PublishOpen(
        stream_id=opened.stream_id, publish_token=opened.publish_token, producer_id=producer_id, epoch=epoch
    )


async def opened_stream(broker, **fields):
    workspace = {name: fields.pop(name) for name in ("workspace_id", "execution_id", "node_id") if name in fields}
    return await broker.open(OpenStreamRequest(limits=limits(**fields), **workspace))


async def publish(broker, opened, events, **producer):
    """Publish events, and return everything that the producer heard."""
    async with broker.publish(opening_of(opened, **producer)) as publication:
        await publication.put(events)
        publication.finish()
        return [response async for response in publication]


async def collect(deliveries, until=None):
    """Return what a subscriber gets, events as their sequences and gaps as pairs, up to its end or a last sequence."""
    got: list[Any] = []
    async for delivery in deliveries:
        if isinstance(delivery, Batch):
            got.extend(event.sequence for event in delivery.events)
        elif isinstance(delivery, stream_pb2.StreamGap):
            got.append((delivery.first_sequence, delivery.last_sequence))
        else:
            got.append(type(delivery).__name__)
        if until is not None and got[-1] == until:
            break
    return got


async def read(broker, opened, *, after=0, until=None, **fields):
    async with broker.subscribe(
        SubscribeRequest(stream_id=opened.stream_id, after_sequence=after, **fields)
    ) as subscription:
        return await collect(subscription, until)
