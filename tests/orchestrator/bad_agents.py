"""Agents that misbehave at the wire; as a process of their own they can be frozen, and can die and come back."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

from mediamesh.api.agent.v1 import agent_service_pb2 as pb
from mediamesh.api.agent.v1 import agent_service_pb2_grpc, value_pb2
from mediamesh.api.media.v1 import media_pb2
from mediamesh.api.stream.v1 import chunk_pb2
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from tests.orchestrator.fake_agents import IMAGE, JSON, NUMBER, STREAM, STRING, chunk, manifest, pin, text

__all__ = ["BadAgents", "agents_process", "serving_bad_agents"]

OUTPUTS = [
    pin("stream", STREAM, optional=True),
    pin("text", STRING, optional=True),
    pin("image", IMAGE, optional=True),
]
MANIFESTS = [
    manifest("bad.maker", [pin("number", NUMBER, optional=True)], OUTPUTS, [pin("how", STRING)]),
    manifest("bad.eater", [pin("stream", STREAM)], [pin("count", NUMBER)], [pin("how", STRING)]),
]
MANIFESTS.append(manifest("bad.lister", [], [pin("list", JSON)]))
DIE_AFTER = 20


class BadAgents(agent_service_pb2_grpc.AgentServiceServicer):
    """One that makes and one that eats, each badly in the way that its parameter says.

    Attributes:
        made: Chunks that a flood has made.
    """

    def __init__(self) -> None:
        self.made = 0

    async def Describe(self, request, context):
        return pb.DescribeResponse(agents=MANIFESTS)

    async def Run(self, request_iterator, context):
        opened = (await anext(aiter(request_iterator))).open
        how = opened.params.fields["how"].string_value
        run = self.maker if opened.agent_id == "bad.maker" else self.eater
        async for answer in run(how, opened, request_iterator):
            yield answer
        if how != "silent":
            yield pb.RunResponse(finished=pb.RunFinished())

    async def maker(self, how, opened, frames):
        match how:
            case "flood" | "flood-large":
                async for answer in self.flood(b"x" * (500_000 if how == "flood-large" else 1000)):
                    yield answer
            case "flood-progress":
                while True:
                    yield pb.RunResponse(progress=chunk_pb2.Progress(percent=1, message="x" * 1000))
            case "drip":
                for number in range(1, 1_000_000):
                    yield chunk(number)
                    await asyncio.sleep(0.02)  # it is slow
            case "dies":
                for number in range(1, DIE_AFTER + 1):
                    yield chunk(number)
                if opened.context.attempt == 1 and "MEDIAMESH_TEST_SECOND_LIFE" not in os.environ:
                    os.kill(os.getpid(), signal.SIGKILL)
            case _:
                for answer in BREACHES.get(how, [text("well")]):
                    yield answer

    async def flood(self, data):
        while True:
            self.made += 1
            yield chunk(self.made, data.decode())

    async def eater(self, how, opened, frames):
        count = 0
        if how == "never":
            await asyncio.Event().wait()
        async for frame in frames:
            if frame.HasField("end"):
                break
            count += 1
            if how == "dies" and count == DIE_AFTER and "MEDIAMESH_TEST_SECOND_LIFE" not in os.environ:
                os.kill(os.getpid(), signal.SIGKILL)
        yield pb.RunResponse(output=pb.PinValue(pin="count", value=value_pb2.Value(number=count)))


def media(data, *, last, offset=0):
    return pb.RunResponse(
        media=pb.PinMedia(pin="image", type=media_pb2.MEDIA_TYPE_IMAGE, offset=offset, data=data, last=last)
    )


# What is not of the contract, by what is wrong with it.
BREACHES = {
    "gap": [chunk(1), chunk(3)],
    "after-end": [chunk(1), pb.RunResponse(end=pb.PinEnd(pin="stream")), chunk(2)],
    "type": [pb.RunResponse(output=pb.PinValue(pin="text", value=value_pb2.Value(number=3)))],
    "nothing": [pb.RunResponse(output=pb.PinValue(pin="text"))],
    "half-media": [media(b"png", last=False)],
    "moved-media": [media(b"png", last=False), media(b"png", offset=1, last=True)],
    "frame": [pb.RunResponse()],
}


@asynccontextmanager
async def serving_bad_agents(agents, port=0):
    """Serve them in this process, and yield the port."""
    part = Part(
        services=["mediamesh.api.agent.v1.AgentService"],
        register=lambda server: agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server),
    )
    async with serving(ServerSettings(grace_seconds=0, port=port, read_ahead_bytes=262_144), part) as taken:
        yield taken


@asynccontextmanager
async def agents_process(port, *, second_life=False):
    """Run them as a process on a port; yield the process."""
    life = {"MEDIAMESH_TEST_SECOND_LIFE": "1"} if second_life else {}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.orchestrator.bad_agents", str(port),
        cwd=Path(__file__).parents[2], env={**os.environ, **life}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def _main() -> None:
    async with serving_bad_agents(BadAgents(), int(sys.argv[1])):
        print("ready", flush=True)  # noqa: T201 - what the test waits for
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
