from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest

from mediamesh.agent import parse_manifest
from mediamesh.agent.output import Outputs
from mediamesh.agent.pipe import Pipe
from mediamesh.agent.testing import gather
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, PinChunk, PinEnd, RunRequest, RunResponse
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, Progress, TextContent
from mediamesh.wire.errors import AgentFailed, Cancelled, DeadlineExceeded, Overloaded
from tests.agent.conftest import given_up

WORDS = "[{name: words, type: stream}]"
OPEN = OpenRun(agent_id="test.agent")
OPEN_WORDS = OpenRun(agent_id="test.agent", stream_inputs=["words"])


def chunk(number: int, text: str = "x", pin: str = "words") -> RunRequest:
    return RunRequest(chunk=PinChunk(pin=pin, chunk=Chunk(sequence_number=number, content=TextContent(text=text))))


def end(pin: str = "words") -> RunRequest:
    return RunRequest(end=PinEnd(pin=pin))


def kinds(frames) -> list[str]:
    return [frame.WhichOneof("message") for frame in frames]


async def test_chunks_have_gap_free_sequences_a_source_and_a_time(serve, agent) -> None:
    async def process(run):
        await run.emit("words", "one")
        await run.emit("words", Chunk(source="me", content=TextContent(text="two")))

    async with serve(agent(process, outputs=WORDS)) as client:
        frames = [frame async for frame in client.run(OPEN)]
    assert kinds(frames) == ["chunk", "chunk", "end", "finished"]
    one, two = frames[0].chunk.chunk, frames[1].chunk.chunk
    assert (one.sequence_number, one.source, one.content.text) == (1, "test.agent", "one")
    assert (two.sequence_number, two.source, two.content.text) == (2, "me", "two")
    assert one.timestamp.seconds > 0


async def full_pipe() -> tuple[Pipe[RunResponse], Outputs]:
    """Return outputs and the pipe that they go into; it has no room until it is read."""
    pipe: Pipe[RunResponse] = Pipe(messages=1, size_bytes=1000)
    manifest = parse_manifest(
        "{id: test.agent, version: 1.0.0, outputs: [{name: words, type: stream}, {name: answer, type: string}]}"
    )
    await pipe.put(RunResponse())
    return pipe, Outputs(manifest, pipe)


@asynccontextmanager
async def reading(pipe):
    """Read all that is written in the block; yields the list that has it when the block has ended."""
    frames: list[RunResponse] = []

    async def read() -> None:
        frames.extend([frame async for frame in pipe][1:])

    task = asyncio.ensure_future(read())
    yield frames
    pipe.close()
    await task


async def test_a_chunk_that_is_given_up_or_breaks_a_rule_leaves_no_gap() -> None:
    pipe, outputs = await full_pipe()
    await given_up(outputs.emit("words", "too slow"))
    with pytest.raises(AgentFailed, match="breaks a rule"):
        await outputs.emit("words", Chunk(progress=Progress(percent=120)))
    async with reading(pipe) as frames:
        await asyncio.gather(*(outputs.emit("words", text) for text in "abc"))
    chunks = [frame.chunk.chunk for frame in frames]
    assert [(chunk.sequence_number, chunk.content.text) for chunk in chunks] == [(1, "a"), (2, "b"), (3, "c")]


async def test_an_end_or_a_value_that_is_given_up_comes_later() -> None:
    pipe, outputs = await full_pipe()
    await given_up(outputs.end("words"))
    await given_up(outputs.give("answer", "too slow"))
    with pytest.raises(AgentFailed, match="answer"):
        await outputs.give("answer", 7)
    async with reading(pipe) as frames:
        await outputs.give("answer", "42")
        await outputs.finish({})
    assert kinds(frames) == ["output", "end", "finished"]
    assert frames[0].output.value.text == "42"


async def test_an_async_iterable_is_a_stream_and_several_run_side_by_side(serve, agent) -> None:
    async def process(run):
        first, second = asyncio.Event(), asyncio.Event()

        async def left():
            yield "a"
            first.set()
            await second.wait()
            yield "b"

        async def right():
            await first.wait()
            second.set()
            yield "c"

        return {"left": left(), "right": right()}

    made = agent(process, outputs="[{name: left, type: stream}, {name: right, type: stream}]")
    async with serve(made) as client:
        outputs = await gather(client.run(OPEN, timeout=5))
    texts = {pin: [chunk.content.text for chunk in chunks] for pin, chunks in outputs.items()}
    assert texts == {"left": ["a", "b"], "right": ["c"]}


async def test_chunks_reach_the_agent_while_the_caller_still_sends(serve, agent) -> None:
    async def process(run):
        async for chunk in run.stream("words"):
            await run.emit("words", chunk.content.text.upper())

    answers: list[str] = []
    answered = asyncio.Event()

    async def frames():
        for number in range(1, 4):
            answered.clear()
            yield chunk(number, f"word {number}")
            await answered.wait()
        yield end()

    async with serve(agent(process, inputs=WORDS, outputs=WORDS)) as client:
        async for frame in client.run(OPEN_WORDS, frames(), timeout=5):
            if frame.HasField("chunk"):
                answers.append(frame.chunk.chunk.content.text)
                answered.set()
    assert answers == ["WORD 1", "WORD 2", "WORD 3"]


@pytest.mark.stack
async def test_an_agent_that_does_not_read_stops_its_caller(serve, agent) -> None:
    """Memory stays bounded: 100 MB are offered, a few are taken."""
    go = asyncio.Event()
    sent = 0

    async def process(run):
        await go.wait()
        total = 0
        async for chunk in run.stream("words"):
            total += len(chunk.content.text)
        return {"total": total}

    async def frames():
        nonlocal sent
        for number in range(1, 1601):
            yield chunk(number, "x" * 65536)
            sent = number
        yield end()

    made = agent(process, inputs=WORDS, outputs="[{name: total, type: number}]")
    async with serve(made) as client:
        run = asyncio.ensure_future(gather(client.run(OPEN_WORDS, frames(), timeout=60)))
        previous = -1
        while not sent or sent != previous:  # until nothing moves any more
            previous = sent
            await asyncio.sleep(0.2)
        assert 0 < sent < 160
        go.set()
        assert await run == {"total": 1600 * 65536}


@pytest.mark.stack
async def test_a_caller_that_does_not_read_stops_an_agent_that_floods(serve, agent) -> None:
    emitted = 0

    async def process(run):
        nonlocal emitted
        for _ in range(1600):
            await run.emit("words", "x" * 65536)
            emitted += 1

    async with serve(agent(process, outputs=WORDS)) as client, aclosing(client.run(OPEN, timeout=60)) as frames:
        await anext(frames)
        previous = -1
        while emitted != previous:
            previous = emitted
            await asyncio.sleep(0.2)
        assert 0 < emitted < 160
        received = [frame.chunk.chunk.sequence_number async for frame in frames if frame.HasField("chunk")]
    assert received == list(range(2, 1601))


async def test_media_go_out_in_frames_of_a_megabyte(serve, agent) -> None:
    data = bytes(range(256)) * 10_000

    async def process(run):
        async def pieces():
            for begin in range(0, len(data), 1000):
                yield data[begin : begin + 1000]

        return {"whole": data, "pieces": pieces()}

    made = agent(process, outputs="[{name: whole, type: image}, {name: pieces, type: video}]")
    async with serve(made) as client:
        frames = [frame.media async for frame in client.run(OPEN) if frame.HasField("media")]
    for pin in ("whole", "pieces"):
        own = [frame for frame in frames if frame.pin == pin]
        assert [frame.offset for frame in own] == [0, 1 << 20, 2 << 20]
        assert [frame.last for frame in own] == [False, False, True]
        assert b"".join(frame.data for frame in own) == data


async def test_progress_cost_and_early_outputs_come_in_order(serve, agent) -> None:
    async def process(run):
        await run.progress(50, "half")
        await run.give("answer", "42")
        await run.cost("llm.input_tokens", 12, usd=0.5)

    async with serve(agent(process, outputs="[{name: answer, type: string}]")) as client:
        frames = [frame async for frame in client.run(OPEN)]
    assert kinds(frames) == ["progress", "output", "cost", "finished"]
    assert (frames[0].progress.percent, frames[0].progress.message) == (50, "half")
    assert (frames[2].cost.item, frames[2].cost.quantity, frames[2].cost.usd) == ("llm.input_tokens", 12, 0.5)


async def test_a_frame_that_breaks_a_rule_fails_the_run(serve, agent) -> None:
    async def process(run):
        await run.progress(120)

    async with serve(agent(process)) as client:
        with pytest.raises(AgentFailed, match=r"progress\.percent"):
            await gather(client.run(OPEN))


async def test_a_chunk_after_the_end_fails_the_run(serve, agent) -> None:
    async def process(run):
        async def words():
            yield "a"

        await run.give("words", words())
        await run.emit("words", "b")

    async with serve(agent(process, outputs=WORDS)) as client:
        with pytest.raises(AgentFailed, match="output 'words' has ended"):
            await gather(client.run(OPEN))


class Watched:
    """An agent's process that never answers, and tells when it begins and when it is cancelled."""

    def __init__(self) -> None:
        self.begun, self.cancelled = asyncio.Event(), asyncio.Event()

    async def __call__(self, run):
        self.begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_leaving_the_iteration_cancels_the_agent(serve, agent) -> None:
    watched = Watched()

    async def process(run):
        await run.progress(1)
        await watched(run)

    async with serve(agent(process)) as client:
        async with aclosing(client.run(OPEN)) as frames:
            await anext(frames)
        async with asyncio.timeout(10):
            await watched.cancelled.wait()


async def test_cancelling_the_caller_cancels_the_agent(serve, agent) -> None:
    watched = Watched()
    async with serve(agent(watched)) as client:
        run = asyncio.ensure_future(gather(client.run(OPEN)))
        await watched.begun.wait()
        run.cancel()
        async with asyncio.timeout(10):
            await watched.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await run


async def test_cancelling_reaches_an_agent_whose_frames_nobody_reads(serve, agent) -> None:
    """The call hangs in sending then, not in the agent."""
    cancelled = asyncio.Event()

    async def process(run):
        try:
            while True:
                await run.emit("words", "x" * 65536)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with serve(agent(process, outputs=WORDS)) as client:
        async with aclosing(client.run(OPEN)) as frames:
            await anext(frames)
            await asyncio.sleep(0.3)  # let every buffer fill
        async with asyncio.timeout(10):
            await cancelled.wait()


async def test_an_agent_that_never_answers_ends_at_the_deadline(serve, agent) -> None:
    watched = Watched()
    async with serve(agent(watched)) as client:
        seconds = 0.3
        while not watched.begun.is_set():  # the time may be over before the agent has begun
            with pytest.raises(DeadlineExceeded):
                await gather(client.run(OPEN, timeout=seconds))
            seconds *= 2
        async with asyncio.timeout(10):
            await watched.cancelled.wait()


async def test_an_agent_knows_how_long_it_has(serve, agent) -> None:
    async def process(run):
        return {"left": run.time_left() or -1}

    async with serve(agent(process, outputs="[{name: left, type: number}]")) as client:
        assert 0 < (await gather(client.run(OPEN, timeout=5)))["left"] < 5.5  # grpc rounds up
        assert (await gather(client.run(OPEN)))["left"] == -1


async def test_a_cancellation_that_nobody_asked_for_is_a_failure_of_the_agent(serve, agent) -> None:
    async def process(run):
        raise asyncio.CancelledError

    async with serve(agent(process)) as client:
        with pytest.raises(AgentFailed, match="CancelledError"):
            await gather(client.run(OPEN))


async def test_of_a_group_of_errors_the_first_is_told(serve, agent) -> None:
    async def process(run):
        async def fail():
            raise ValueError("inner")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    async with serve(agent(process)) as client:
        with pytest.raises(AgentFailed, match="ValueError: inner"):
            await gather(client.run(OPEN))


async def test_what_the_frames_raise_is_raised_to_who_runs(serve, agent) -> None:
    async def frames():
        yield chunk(1)
        raise ZeroDivisionError("source broke")

    watched = Watched()
    async with serve(agent(watched, inputs=WORDS)) as client:
        with pytest.raises(ZeroDivisionError, match="source broke"):
            await gather(client.run(OPEN_WORDS, frames()))


async def test_the_run_beyond_the_limit_is_told_to_come_back(serve, agent) -> None:
    watched = Watched()
    async with serve(agent(watched), max_concurrent_runs=1) as client:
        first = asyncio.ensure_future(gather(client.run(OPEN)))
        await watched.begun.wait()
        with pytest.raises(Overloaded, match="max_concurrent_runs") as raised:
            await gather(client.run(OPEN))
        assert raised.value.retry_after == 0.5
        first.cancel()
        await watched.cancelled.wait()


@pytest.mark.stack
async def test_two_hundred_runs_at_once_all_finish(serve, agent) -> None:
    async def process(run):
        total = 0
        async for chunk in run.stream("words"):
            total += int(chunk.content.text)
        return {"total": total + run.inputs["begin"]}

    made = agent(
        process, inputs="[{name: begin, type: number}, {name: words, type: stream}]",
        outputs="[{name: total, type: number}]",
    )  # fmt: skip

    async def one(client, begin):
        opening = OpenRun(agent_id="test.agent", stream_inputs=["words"])
        opening.inputs["begin"].number = begin
        return await gather(client.run(opening, [*(chunk(n, str(n)) for n in range(1, 11)), end()], timeout=30))

    async with serve(made) as client:
        results = await asyncio.gather(*(one(client, begin) for begin in range(200)))
    assert [result["total"] for result in results] == [begin + 55 for begin in range(200)]


async def test_runs_that_go_on_when_the_server_stops_are_cancelled(serve, agent) -> None:
    watched = Watched()
    async with serve(agent(watched), grace_seconds=0) as client:
        run = asyncio.ensure_future(gather(client.run(OPEN)))
        await watched.begun.wait()
    assert watched.cancelled.is_set()
    with pytest.raises((Cancelled, asyncio.CancelledError)):
        await run


async def test_who_waits_for_room_is_not_overtaken() -> None:
    pipe: Pipe[TextContent] = Pipe(messages=1, size_bytes=1000)
    await pipe.put(TextContent(text="0"))
    writers = [asyncio.ensure_future(pipe.put(TextContent(text=str(number)))) for number in range(1, 6)]
    received = []
    for number in range(6):
        received.append((await anext(pipe)).text)
        if number == 2:
            writers.append(asyncio.ensure_future(pipe.put(TextContent(text="6"))))
    received.append((await anext(pipe)).text)
    assert received == list("0123456")
    await asyncio.gather(*writers)
