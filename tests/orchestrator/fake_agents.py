"""Agents that behave, and agents that do not; each is a coroutine over the frames of its run."""

from __future__ import annotations

import asyncio
from collections import Counter

from google.protobuf import struct_pb2

from mediamesh.api.agent.v1 import agent_service_pb2 as pb
from mediamesh.api.agent.v1 import agent_service_pb2_grpc, manifest_pb2, pin_pb2, value_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.api.stream.v1 import chunk_pb2
from mediamesh.wire.errors import AgentFailed, Overloaded, StreamTimeout, Unavailable

STRING, NUMBER, JSON = pin_pb2.PIN_TYPE_STRING, pin_pb2.PIN_TYPE_NUMBER, pin_pb2.PIN_TYPE_JSON
IMAGE, STREAM, AUDIO = pin_pb2.PIN_TYPE_IMAGE, pin_pb2.PIN_TYPE_STREAM, pin_pb2.PIN_TYPE_AUDIO


def pin(name, kind, *, optional=False, **constraints):
    return pin_pb2.Pin(
        name=name,
        type=kind,
        optional=optional,
        constraints=pin_pb2.PinConstraints(**constraints) if constraints else None,
    )


def manifest(agent_id, inputs=(), outputs=(), params=(), **declared):
    """Return a manifest; its parameters may be left out."""
    for param in params:
        param.optional = True
    return manifest_pb2.Manifest(
        id=agent_id, version="1.0.0", inputs=inputs, outputs=outputs, params=params, **declared
    )


MANIFESTS = [
    manifest("test.echo", [pin("text", STRING)], [pin("text", STRING)], [pin("suffix", STRING), pin("times", NUMBER)]),
    manifest("test.slow", [pin("text", STRING, optional=True)], [pin("text", STRING)]),
    manifest("test.failing", [pin("text", STRING, optional=True)], [pin("text", STRING), pin("stream", STREAM)]),
    manifest("test.flaky", [], [pin("text", STRING)]),
    manifest("test.lost", [], [pin("text", STRING)]),
    manifest("test.wrong", [], [pin("text", STRING)], [pin("how", STRING)]),
    manifest("test.producer", [], [pin("stream", STREAM), pin("text", STRING, optional=True)], [pin("count", NUMBER)]),
    manifest("test.flood", [], [pin("stream", STREAM)]),
    manifest("test.consumer", [pin("stream", STREAM), pin("text", STRING, optional=True)], [pin("count", NUMBER)]),
    manifest("test.lazy", [pin("stream", STREAM)], [pin("count", NUMBER)]),
    manifest("test.painter", [], [pin("image", IMAGE)]),
    manifest("test.viewer", [pin("image", IMAGE, mime_types=["image/*"])], [pin("url", STRING)]),
    manifest("test.recorder", [], [pin("audio", AUDIO, sample_rate_hz=44100)]),
    manifest("test.hearer", [pin("audio", AUDIO, sample_rate_hz=16000)], [pin("text", STRING)]),
    manifest(
        "test.answerer",
        [],
        [pin("stream", STREAM)],
        response=manifest_pb2.ResponseDeclaration(mode=manifest_pb2.RESPONSE_MODE_BOTH, heartbeat_interval_ms=200),
    ),
    manifest("test.outliving", [], [pin("stream", STREAM)]),
    manifest(
        "test.thumbnail",
        [pin("image", IMAGE)],
        [pin("url", STRING)],
        modalities=manifest_pb2.Modalities(constraints=manifest_pb2.ModalityConstraints(max_image_size_mb=0.000_01)),
    ),
    manifest(
        "test.refusing", [pin("stream", STREAM)], [pin("count", NUMBER)], [pin("times", NUMBER), pin("how", STRING)]
    ),
    manifest(
        "test.cached",
        [pin("text", STRING, optional=True), pin("image", IMAGE, optional=True)],
        [pin("text", STRING), pin("image", IMAGE, optional=True), pin("stream", STREAM)],
        [pin("large", NUMBER)],
        cache=manifest_pb2.CachePolicy(enabled=True),
    ),
    manifest("test.moody", [], [pin("text", STRING)]),
    manifest("test.join", [pin("a", JSON), pin("b", JSON)], [pin("text", STRING)]),
    manifest("test.list", [], [pin("list", JSON)]),
    manifest_pb2.Manifest(id="test.needy", version="1.0.0", params=[pin("name", STRING)]),
    manifest("test.copier", [pin("number", NUMBER)], [pin("image", IMAGE)]),
    manifest(
        "test.picky",
        [pin("text", STRING), pin("greeting", STRING, optional=True)],
        [pin("text", STRING), pin("length", NUMBER, optional=True), pin("stream", STREAM)],
    ),
]


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    """All of them; `running` and `cancelled` count by execution, and `release` lets slow ones go."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.tries: dict[tuple[str, str], list[int]] = {}
        self.attempts: dict[str, list[int]] = {}
        self.release = asyncio.Event()
        self.changed = asyncio.Condition()

    async def Describe(self, request, context):
        return pb.DescribeResponse(agents=MANIFESTS)

    async def Run(self, request_iterator, context):
        opened = (await anext(aiter(request_iterator))).open
        run = opened.context.execution_id
        self.running[run] += 1
        self.tries.setdefault((run, opened.context.node_id), []).append(opened.context.attempt)
        await self._notify()
        try:
            async for answer in getattr(self, opened.agent_id.removeprefix("test."))(opened, request_iterator):
                self.sent[run] += 1
                yield answer
        except asyncio.CancelledError:
            self.cancelled[run] += 1
            raise
        finally:
            self.running[run] -= 1
            await self._notify()
        # Who hears this may begin another run at once: this one counts no more then.
        yield pb.RunResponse(finished=pb.RunFinished())

    async def _notify(self):
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition):
        """Wait until a condition over these counters holds."""
        async with asyncio.timeout(10), self.changed:
            await self.changed.wait_for(condition)

    async def echo(self, opened, frames):
        yield pb.RunResponse(progress=chunk_pb2.Progress(percent=50, message="half"))
        suffix = opened.params.fields["suffix"].string_value if "suffix" in opened.params.fields else ""
        yield text(opened.inputs["text"].text + suffix)

    async def slow(self, opened, frames):
        yield pb.RunResponse(progress=chunk_pb2.Progress(percent=1))
        await self.release.wait()
        yield text("slow")

    async def failing(self, opened, frames):
        if "text" in opened.inputs:
            yield text("half")
        yield chunk(1)
        raise AgentFailed("The model said no.")

    async def flaky(self, opened, frames):
        tries = self.attempts.setdefault(opened.context.execution_id, [])
        tries.append(opened.context.attempt)
        if len(tries) == 1:
            raise Unavailable("Just restarting.")
        yield text("at last")

    async def refusing(self, opened, frames):
        params = opened.params.fields
        if params["how"].string_value == "late":
            yield pb.RunResponse(progress=chunk_pb2.Progress(percent=1))
            await anext(aiter(frames))
        if opened.context.attempt <= params["times"].number_value:
            raise Overloaded.retry("Too much to do.", 0.01)
        async for answer in self.consumer(opened, frames):
            yield answer

    async def cached(self, opened, frames):
        yield chunk(1, "one")
        yield chunk(2, "two")
        yield text("x" * int(opened.params.fields["large"].number_value) if opened.params.fields else "made")
        yield pb.RunResponse(
            media=pb.PinMedia(pin="image", type=media_pb2.MEDIA_TYPE_IMAGE, data=b"png", offset=0, last=True)
        )

    async def lost(self, opened, frames):
        raise Unavailable("Gone for good.")
        yield

    async def wrong(self, opened, frames):
        how = opened.params.fields["how"].string_value
        if how == "type":
            yield pb.RunResponse(output=pb.PinValue(pin="text", value=value_pb2.Value(number=3)))
        if how == "pin":
            yield pb.RunResponse(output=pb.PinValue(pin="nothing", value=value_pb2.Value(text="x")))
        if how == "twice":
            yield text("a")
            yield text("b")
        if how == "chunk":
            yield pb.RunResponse(chunk=pb.PinChunk(pin="text", chunk=chunk_pb2.Chunk(sequence_number=1)))
        if how == "large":
            yield text("x" * 1_000_000)
        if how == "crash":
            raise ZeroDivisionError

    async def producer(self, opened, frames):
        count = int(opened.params.fields["count"].number_value) if "count" in opened.params.fields else 3
        for number in range(1, count + 1):
            yield chunk(number)
            if number == 1 and "count" not in opened.params.fields:
                await self.release.wait()
        yield text("done")

    async def flood(self, opened, frames):
        number = 0
        while True:
            number += 1
            yield chunk(number, "x" * 10_000)

    async def consumer(self, opened, frames):
        count = 0
        async for frame in frames:
            if frame.HasField("chunk"):
                count += 1
                yield pb.RunResponse(progress=chunk_pb2.Progress(percent=min(count, 100)))
            else:
                break
        yield pb.RunResponse(output=pb.PinValue(pin="count", value=value_pb2.Value(number=count)))

    async def lazy(self, opened, frames):
        await self.release.wait()
        yield pb.RunResponse(output=pb.PinValue(pin="count", value=value_pb2.Value(number=0)))

    async def painter(self, opened, frames):
        for offset, last in ((0, False), (3, True)):
            yield pb.RunResponse(
                media=pb.PinMedia(pin="image", type=media_pb2.MEDIA_TYPE_IMAGE, offset=offset, data=b"png", last=last)
            )

    copier = painter

    async def viewer(self, opened, frames):
        yield pb.RunResponse(
            output=pb.PinValue(pin="url", value=value_pb2.Value(text=opened.inputs["image"].media.ref.url))
        )

    async def answerer(self, opened, frames):
        yield chunk(1, manifest_pb2.ResponseMode.Name(opened.response_mode))

    async def outliving(self, opened, frames):
        yield chunk(1)
        raise StreamTimeout("The answer took too long.")

    async def moody(self, opened, frames):
        """Say something else at each try; at the first, go on until `end` has begun with what was said."""
        run, attempt = opened.context.execution_id, opened.context.attempt
        yield text("hello" if attempt == 1 else "hi")
        if attempt == 1:
            await self.until(lambda: (run, "end") in self.tries)

    thumbnail = viewer

    async def list(self, opened, frames):
        yield pb.RunResponse()

    async def picky(self, opened, frames):
        """Fail with what is bad, wait with what is slow, and tell the length of what is long."""
        said = opened.inputs["text"].text
        yield chunk(1, said)
        if said.startswith("bad"):
            raise AgentFailed(f"I do not like {said}.")
        if said.startswith("slow"):
            await self.release.wait()
        if len(said) > 3:
            yield pb.RunResponse(output=pb.PinValue(pin="length", value=value_pb2.Value(number=len(said))))
        yield text(opened.inputs["greeting"].text + said if "greeting" in opened.inputs else said)

    async def join(self, opened, frames):
        yield text("+".join(opened.inputs[name].json.string_value for name in ("a", "b")))


def text(said):
    return pb.RunResponse(output=pb.PinValue(pin="text", value=value_pb2.Value(text=said)))


def chunk(number, said="x"):
    return pb.RunResponse(
        chunk=pb.PinChunk(
            pin="stream",
            chunk=chunk_pb2.Chunk(sequence_number=number, content=chunk_pb2.TextContent(text=said)),
        )
    )


def json_value(plain):
    return value_pb2.Value(json=struct_pb2.Value(string_value=plain))
