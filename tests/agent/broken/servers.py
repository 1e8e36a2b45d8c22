"""A well-behaved agent server whose parts can be broken one at a time: each class below breaks one promise.

The agent itself is served by the SDK; what is broken is put in between, frame by frame, as it would be on the wire.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

from mediamesh.agent import Agent, AgentSettings, parse_manifest
from mediamesh.agent.host import hosting
from mediamesh.agent.service import AgentServicer
from mediamesh.api.agent.v1.agent_service_pb2 import PinChunk, PinValue, RunFinished, RunResponse
from mediamesh.api.agent.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from mediamesh.api.agent.v1.value_pb2 import Value
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.kit.boundary import Boundary, time_left

SERVICE = "mediamesh.api.agent.v1.AgentService"
MANIFEST = """
id: test.echo
version: 1.0.0
inputs:
  - {name: words, type: stream}
  - {name: name, type: string, constraints: {enum: [a, b]}}
  - {name: picture, type: image, optional: true}
outputs:
  - {name: words, type: stream}
  - {name: count, type: number}
params:
  - {name: top, type: number, default: 3, constraints: {minimum: 1, maximum: 5}}
cache: {enabled: true}
"""


class Echo(Agent):
    """Gives every chunk back, and at last how many there were."""

    text = MANIFEST

    def describe(self):
        return parse_manifest(self.text)

    async def process(self, run):
        count = 0
        async for chunk in run.stream("words"):
            count += 1
            await run.emit("words", chunk.content.text)
        return {"count": count}


class Right(AgentServicer):
    """Breaks nothing."""

    agent: type[Agent] = Echo
    health = True
    reflection = True


class NoHealth(Right):
    health = False


class NoReflection(Right):
    reflection = False


class InvalidManifest(Right):
    async def Describe(self, request, context):
        answer = await super().Describe(request, context)
        answer.agents[0].version = "one"
        return answer


class DescribesAnything(Right):
    async def Describe(self, request, context):
        request.agent_id = ""
        return await super().Describe(request, context)


class AnotherManifestAlone(Right):
    async def Describe(self, request, context):
        answer = await super().Describe(request, context)
        if request.agent_id:
            answer.agents[0].description = "changed"
        return answer


class TellsNoActiveRuns(Right):
    async def Describe(self, request, context):
        answer = await super().Describe(request, context)
        answer.capabilities.ClearField("active_runs")
        return answer


class Altered(Right):
    """Lets a subclass see every frame on its way out."""

    async def Run(self, request_iterator, context):
        async for response in super().Run(request_iterator, context):
            for frame in self.alter(response):
                yield frame

    def alter(self, response):
        return [response]


class WrongType(Altered):
    def alter(self, response):
        if response.HasField("output"):
            response.output.value.text = "two"
        return [response]


class ValueOnStream(Altered):
    def alter(self, response):
        if response.HasField("end"):
            return [RunResponse(output=PinValue(pin="words", value=Value(text="words"))), response]
        return [response]


class UndeclaredOutput(Altered):
    def alter(self, response):
        if response.HasField("output"):
            return [response, RunResponse(output=PinValue(pin="extra", value=Value(text="x")))]
        return [response]


class OutputTwice(Altered):
    def alter(self, response):
        return [response, response] if response.HasField("output") else [response]


class MissingOutput(Altered):
    def alter(self, response):
        return [] if response.HasField("output") else [response]


class NoEnd(Altered):
    def alter(self, response):
        return [] if response.HasField("end") else [response]


class NoFinish(Altered):
    def alter(self, response):
        return [] if response.HasField("finished") else [response]


class OutputAfterFinish(Altered):
    def alter(self, response):
        late = RunResponse(chunk=PinChunk(pin="words", chunk=Chunk(sequence_number=3, content=TextContent(text="x"))))
        return [response, late] if response.HasField("finished") else [response]


class Gaps(Altered):
    def alter(self, response):
        if response.HasField("chunk"):
            response.chunk.chunk.sequence_number *= 2
        return [response]


class LongSource(Altered):
    def alter(self, response):
        if response.HasField("chunk"):
            response.chunk.chunk.source = "x" * 300
        return [response]


class NeverTheSame(Altered):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.runs = 0

    def alter(self, response):
        if response.HasField("output"):
            self.runs += 1
            response.output.value.number = self.runs
        return [response]


class Taking(Right):
    """Lets a subclass change the frames on their way in."""

    async def Run(self, request_iterator, context):
        async for response in super().Run(self.taken(request_iterator), context):
            yield response

    async def taken(self, requests):
        async for request in requests:
            yield request


class AnyAgentId(Taking):
    async def taken(self, requests):
        async for request in requests:
            if request.HasField("open"):
                request.open.agent_id = "test.echo"
            yield request


class AnyInput(Taking):
    async def taken(self, requests):
        async for request in requests:
            if request.HasField("open"):
                for name in request.open.inputs.keys() - {"name"}:
                    del request.open.inputs[name]
                request.open.inputs["name"].text = "a"
                request.open.params.Clear()
            yield request


class AnySequence(Taking):
    async def taken(self, requests):
        number = 0
        async for request in requests:
            if request.HasField("chunk"):
                number += 1
                request.chunk.chunk.sequence_number = number
            yield request


class WaitsAfterHalfClose(Taking):
    async def taken(self, requests):
        async for request in requests:
            yield request
        await asyncio.Event().wait()


class EndsWhatBrokeOff(Taking):
    async def taken(self, requests):
        last = None
        async for request in requests:
            last = request
            yield request
        if last is not None and last.HasField("chunk"):
            end = type(last)()
            end.end.pin = "words"
            yield end


class Stubborn(Echo):
    """Goes on when it is cancelled, until its server has ended."""

    def __init__(self) -> None:
        self.server_ended = asyncio.Event()

    async def process(self, run):
        try:
            return await super().process(run)
        except asyncio.CancelledError:
            while not self.server_ended.is_set():
                with suppress(asyncio.CancelledError):
                    await self.server_ended.wait()
            raise


class IgnoresCancellation(Right):
    agent = Stubborn


class IgnoresDeadline(Right):
    """Takes the caller's time for no limit; gRPC ends the call, and the agent works on."""

    async def Run(self, request_iterator, context):
        run = self._host.start(_for_ever(request_iterator), None)
        if time_left(context) is None:  # one without a deadline is cancelled as it should be
            context.add_done_callback(lambda _: run.cancel())  # type: ignore[arg-type,unused-ignore] # a protocol
        async for response in run:
            yield response


async def _for_ever(requests):
    with suppress(Exception):
        async for request in requests:
            yield request
    await asyncio.Event().wait()


class Deaf(Right):
    """Reads everything that comes and keeps it."""

    async def Run(self, request_iterator, context):
        kept: asyncio.Queue[Any] = asyncio.Queue()

        async def hoard():
            with suppress(Exception):
                async for request in request_iterator:
                    kept.put_nowait(request)
            kept.put_nowait(None)

        async def requests():
            while (request := await kept.get()) is not None:
                yield request

        hoarding = asyncio.create_task(hoard())
        try:
            async for response in super().Run(requests(), context):
                yield response
        finally:
            hoarding.cancel()


class Talker(Agent):
    """Gives 48 MiB, as fast as it is read."""

    def describe(self):
        return parse_manifest("{id: test.talker, version: 1.0.0, outputs: [{name: words, type: stream}]}")

    async def process(self, run):
        for _ in range(1536):
            await run.emit("words", "x" * 32_768)


class Talks(Right):
    agent = Talker


class Floods(Talks):
    """Makes all it has at once, whether it is read or not."""

    async def Run(self, request_iterator, context):
        made: asyncio.Queue[Any] = asyncio.Queue()

        async def make():
            try:
                async for response in Talks.Run(self, request_iterator, context):
                    made.put_nowait(response)
                made.put_nowait(None)
            except Exception as error:  # noqa: BLE001 - the call ends with it
                made.put_nowait(error)

        making = asyncio.create_task(make())
        try:
            while isinstance(response := await made.get(), RunResponse):
                yield response
            if response is not None:
                raise response
        finally:
            making.cancel()


class NeverEnds(Talks):
    """Never stops making."""

    async def Run(self, request_iterator, context):
        number = 0
        while True:
            number += 1
            content = TextContent(text="x" * 65_536)
            yield RunResponse(chunk=PinChunk(pin="words", chunk=Chunk(sequence_number=number, content=content)))


class OneAtATime(Right):
    """Refuses a second run while the first goes on, as UNAVAILABLE."""

    async def Run(self, request_iterator, context):
        if self._host.active:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        async for response in super().Run(request_iterator, context):
            yield response


class Failing(Right):
    """Lets a subclass say how its errors look."""

    async def Run(self, request_iterator, context):
        try:
            async for response in super().Run(request_iterator, context):
                yield response
        except Exception as error:  # noqa: BLE001 - whatever it is
            await context.abort_with_status(rpc_status.to_status(self.spelt(error)))

    def spelt(self, error):
        return error.to_status()


class StackTraces(Failing):
    def spelt(self, error):
        status = error.to_status()
        status.message += '\n  File "/srv/agent.py", line 12, in process'
        return status


class DebugInfos(Failing):
    def spelt(self, error):
        status = error.to_status()
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.DebugInfo(stack_entries=["process"]))
        status.details.append(packed)
        return status


class BareErrors(Failing):
    def spelt(self, error):
        return status_pb2.Status(code=error.to_status().code, message=error.to_status().message)


class AllInternal(Failing):
    def spelt(self, error):
        status = error.to_status()
        status.code = grpc.StatusCode.INTERNAL.value[0]
        return status


class SaysFinishedAndFails(Right):
    """Says that it finished before it looks at anything."""

    async def Run(self, request_iterator, context):
        first = True
        try:
            async for response in super().Run(request_iterator, context):
                first = False
                yield response
        except Exception:
            if first:
                yield RunResponse(finished=RunFinished())
            raise


@asynccontextmanager
async def serving(kind: type[Right]):
    """Serve one of the above; yields its address."""
    settings = AgentSettings()
    agent = kind.agent()
    async with hosting(settings, {agent.describe().id: (agent, agent.describe())}, None) as host:
        server = grpc.aio.server(interceptors=[Boundary()])
        add_AgentServiceServicer_to_server(kind(host, settings), server)
        names = [SERVICE]
        if kind.health:
            status = health.aio.HealthServicer()
            health_pb2_grpc.add_HealthServicer_to_server(status, server)
            await status.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        if kind.reflection:
            reflection.enable_server_reflection([*names, "grpc.reflection.v1alpha.ServerReflection"], server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)
            if isinstance(agent, Stubborn):
                agent.server_ended.set()
