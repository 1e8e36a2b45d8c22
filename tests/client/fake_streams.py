"""A broker of one stream that breaks off where a test says so."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.rpc import status_pb2

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1 import stream_service_pb2 as pb
from mediamesh.api.stream.v1.stream_service_pb2_grpc import (
    StreamServiceServicer,
    add_StreamServiceServicer_to_server,
)
from mediamesh.client.channel import connect
from mediamesh.client.streams import StreamClient
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.wire.errors import FailedPrecondition

END = stream_pb2.STREAM_EVENT_TYPE_STREAM_END
DATA = stream_pb2.STREAM_EVENT_TYPE_STREAM_DATA


def event(sequence: int, event_type=DATA) -> stream_pb2.StreamEvent:
    return stream_pb2.StreamEvent(event_type=event_type, stream_id="s", sequence=sequence)


def events(*sequences: int) -> pb.SubscribeResponse:
    return pb.SubscribeResponse(events=pb.StreamEvents(events=[event(sequence) for sequence in sequences]))


def last(sequence: int) -> pb.SubscribeResponse:
    return pb.SubscribeResponse(events=pb.StreamEvents(events=[event(sequence, END)]))


def gap(first: int, end: int) -> pb.SubscribeResponse:
    return pb.SubscribeResponse(gap=stream_pb2.StreamGap(first_sequence=first, last_sequence=end))


GO_AWAY = stream_pb2.StreamGoAway(reason="restart")
HEARTBEAT = pb.SubscribeResponse(heartbeat=stream_pb2.StreamHeartbeat())
SILENCE = "silence"


class FakeStreams(StreamServiceServicer):
    """Each call does the next thing of a plan.

    Attributes:
        reads: For each call of Subscribe its frames; a status or an error in their place ends the call.
        read: What the calls asked for.
        writes: For each call of Publish how many events it takes, and what it does then: acknowledge each, or not. An
            event of asyncio among what it does is waited for.
        opened: What the calls opened with.
        stored: Sequences in the order in which they were stored.
        arrived: Sequences in the order in which they came, by call.
        failure: With what error the stream ended.
    """

    def __init__(self) -> None:
        self.reads: deque[list[Any]] = deque()
        self.read: list[pb.SubscribeRequest] = []
        self.left = asyncio.Event()
        self.writes: deque[dict[str, Any]] = deque()
        self.opened: list[pb.PublishOpen] = []
        self.stored: list[pb.PublishEvent] = []
        self.arrived: list[list[int]] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.epoch = 0
        self.failure: status_pb2.Status | None = None

    async def Subscribe(self, request, context) -> AsyncGenerator[Any]:
        self.read.append(pb.SubscribeRequest.FromString(request.SerializeToString()))
        try:
            for frame in self.reads.popleft():
                if frame is SILENCE:
                    await asyncio.Event().wait()
                yield await told(frame, context)
        finally:
            self.left.set()

    async def Publish(self, request_iterator, context) -> AsyncGenerator[Any]:
        requests = aiter(request_iterator)
        opening = (await anext(requests)).open
        self.opened.append(opening)
        self.arrived.append(arrived := [])
        plan = self.writes.popleft() if self.writes else {}
        if refusal := plan.get("refuse"):
            raise refusal
        if self.stored and self.stored[-1].event_type == END:
            raise FailedPrecondition("The stream has ended.")
        self.epoch = opening.epoch or self.epoch + 1
        newest = len(self.stored)
        yield pb.PublishResponse(
            opened=pb.PublishOpened(producer_id=opening.producer_id, epoch=self.epoch, last_sequence=newest)
        )
        async for request in requests:
            arrived.append(request.event.sequence)
            if request.event.sequence == len(self.stored) + 1:
                self.stored.append(request.event)
            await self.hold.wait()
            if plan.get("acks", True):
                yield pb.PublishResponse(ack=pb.PublishAck(sequence=request.event.sequence))
            if len(arrived) == plan.get("take"):
                for frame in plan["then"]:
                    if frame is SILENCE:
                        await asyncio.Event().wait()
                    elif isinstance(frame, asyncio.Event):
                        await frame.wait()
                    else:
                        yield await told(frame, context)
                return

    async def GetStream(self, request, context):
        return pb.GetStreamResponse(
            stream=stream_pb2.Stream(
                stream_id="s",
                epoch=self.epoch,
                last_sequence=len(self.stored),
                state=stream_pb2.STREAM_STATE_FAILED if self.failure else stream_pb2.STREAM_STATE_ENDED,
                end=stream_pb2.StreamEnd(error=self.failure),
            )
        )


async def told(frame, context):
    """Return the frame; a status aborts the call, and an error is raised."""
    if isinstance(frame, grpc.StatusCode):
        await context.abort(frame, "broken")
    if isinstance(frame, Exception):
        raise frame
    return frame


@asynccontextmanager
async def serving_streams(fake: FakeStreams) -> AsyncGenerator[StreamClient]:
    part = Part(
        services=["mediamesh.api.stream.v1.StreamService"],
        register=lambda server: add_StreamServiceServicer_to_server(fake, server),
    )
    async with (
        serving(ServerSettings(grace_seconds=0), part) as port,
        connect(f"127.0.0.1:{port}") as channel,
    ):
        yield StreamClient(channel)
