"""How agents answer: at once or in pieces, as their manifests declare."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from google.protobuf import json_format

from mediamesh.agent import InvalidManifest, parse_manifest
from mediamesh.agent.agent import Agent
from mediamesh.agent.answer import Answer
from mediamesh.agent.output import Outputs
from mediamesh.agent.pipe import Pipe
from mediamesh.agent.response import Response
from mediamesh.agent.testing import gather
from mediamesh.api.agent.v1.agent_service_pb2 import OpenRun, RunResponse
from mediamesh.api.agent.v1.manifest_pb2 import ResponseMode
from mediamesh.api.stream.v1.chunk_pb2 import ResultMeta, Usage
from mediamesh.wire.errors import (
    AgentFailed,
    DeadlineExceeded,
    InvalidRequest,
    MeshError,
    StreamingNotSupported,
    StreamTimeout,
)
from tests.agent.conftest import given_up

SYNC, STREAMING = ResponseMode.RESPONSE_MODE_SYNC, ResponseMode.RESPONSE_MODE_STREAMING


def answering(process, response="{mode: both}", pin="stream", **more):
    """Return an agent with one output pin, `answer`."""

    class Made(Agent):
        def describe(self):
            extra = "".join(f", {key}: {value}" for key, value in more.items())
            return parse_manifest(
                f"{{id: test.agent, version: 1.0.0, outputs: [{{name: answer, type: {pin}}}], "
                f"response: {response}{extra}}}"
            )

        async def process(self, run):
            return await process(run)

    return Made()


def opening(mode=ResponseMode.RESPONSE_MODE_UNSPECIFIED) -> OpenRun:
    made = OpenRun(agent_id="test.agent", response_mode=mode)
    made.context.execution_id, made.context.node_id = "run1", "summarise"
    return made


def kinds(chunks) -> list[str]:
    return [chunk.WhichOneof("payload") for chunk in chunks]


async def writes(run):
    async with run.answer("answer") as answer:
        answer.meta.confidence = 0.75
        await answer.progress(10, "reading")
        for word in ("Streams ", "are ", "ordered."):
            await answer.delta("summary.text", word)
        await answer.delta("title", "Streams")
        answer.usage.CopyFrom(Usage(input_tokens=3, output_tokens=4, total_tokens=7))


@pytest.mark.parametrize("snapshots", [False, True])
async def test_what_an_answer_gives_up_to_send_comes_later(snapshots) -> None:
    pipe: Pipe[RunResponse] = Pipe(messages=1, size_bytes=100_000)
    outputs = Outputs(answering(writes).describe(), pipe)
    await pipe.put(RunResponse())
    answer = Answer("answer", Response(streaming=True, snapshots=snapshots, buffer_bytes=4), outputs, ResultMeta())
    await given_up(answer.delta("text", "What "))
    await given_up(answer.delta("text", "is "))
    await given_up(answer.finish())

    async def finished() -> None:
        try:
            await answer.delta("text", "said")
            await answer.finish()
            await outputs.finish({})
        finally:
            pipe.close()

    finishing = asyncio.ensure_future(finished())
    frames = [frame async for frame in pipe][1:]
    await finishing
    chunks = [frame.chunk.chunk for frame in frames if frame.HasField("chunk")]
    assert kinds(chunks) == ["snapshot" if snapshots else "delta", "final"]
    told = chunks[0].snapshot.data.struct_value["text"] if snapshots else chunks[0].delta.text
    assert told == chunks[1].final.data.struct_value["text"] == "What is said"


RESULT = {"summary": {"text": "Streams are ordered."}, "title": "Streams"}


async def chunks_of(serve, made, mode=STREAMING, **options):
    failure, outputs = None, {}
    async with serve(made) as client:
        try:
            outputs = await gather(client.run(opening(mode), **options))
        except MeshError as error:  # raised in here it would leave as a group
            failure = error
    if failure is not None:
        raise failure
    return outputs["answer"]


async def test_a_streamed_answer_is_meta_pieces_and_the_whole(serve) -> None:
    chunks = await chunks_of(serve, answering(writes))
    assert kinds(chunks) == ["meta", "progress", "delta", "delta", "final"]
    assert chunks[0].meta.session_id == "run1:summarise"
    assert [(chunk.delta.field, chunk.delta.text) for chunk in chunks[2:4]] == [
        ("summary.text", "Streams are ordered."),
        ("title", "Streams"),
    ]
    final = chunks[-1].final
    assert json_format.MessageToDict(final.data) == RESULT
    assert (final.meta.confidence, final.usage.total_tokens) == (0.75, 7)


async def test_what_fills_the_buffer_goes_out(serve) -> None:
    chunks = await chunks_of(serve, answering(writes, "{mode: streaming, buffer_size: 1}"))
    texts = [chunk.delta.text for chunk in chunks if chunk.HasField("delta")]
    assert texts == ["Streams ", "are ", "ordered.", "Streams"]


async def test_a_piece_is_never_larger_than_a_chunk_may_be(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.delta("text", "€" * 100_000)

    chunks = await chunks_of(serve, answering(process))
    texts = [chunk.delta.text for chunk in chunks if chunk.HasField("delta")]
    assert "".join(texts) == "€" * 100_000
    assert all(len(text.encode()) <= 65_536 for text in texts)


async def test_a_module_of_snapshots_sends_all_there_is_so_far(serve) -> None:
    made = answering(writes, "{mode: streaming, chunk_type: snapshot, buffer_size: 10}")
    chunks = await chunks_of(serve, made)
    assert kinds(chunks) == ["meta", "progress", "snapshot", "snapshot", "final"]
    snapshots = [json_format.MessageToDict(chunk.snapshot.data) for chunk in chunks if chunk.HasField("snapshot")]
    assert snapshots == [
        {"summary": {"text": "Streams are "}},
        {"summary": {"text": "Streams are ordered."}, "title": "Streams"},
    ]


async def test_a_snapshot_may_be_given_whole(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.snapshot({"items": [1]})
            await answer.snapshot({"items": [1, 2]})

    chunks = await chunks_of(serve, answering(process, "{mode: streaming, chunk_type: snapshot}"))
    assert kinds(chunks) == ["meta", "snapshot", "snapshot", "final"]
    assert json_format.MessageToDict(chunks[-1].final.data) == {"items": [1, 2]}


@pytest.mark.parametrize("mode", [SYNC, ResponseMode.RESPONSE_MODE_UNSPECIFIED])
async def test_a_module_that_does_both_answers_once_unless_a_stream_is_asked_for(serve, mode) -> None:
    chunks = await chunks_of(serve, answering(writes), mode)
    assert kinds(chunks) == ["final"]
    assert json_format.MessageToDict(chunks[0].final.data) == RESULT


async def test_an_answer_at_once_may_be_a_single_value(serve) -> None:
    assert await chunks_of(serve, answering(writes, "{mode: sync}", pin="json"), SYNC) == RESULT


async def test_a_module_that_only_streams_streams_whatever_is_asked(serve) -> None:
    assert len(await chunks_of(serve, answering(writes, "{mode: streaming}"), SYNC)) > 1


@pytest.mark.parametrize("response", ["{mode: sync}", "{}"])
async def test_a_stream_asked_of_a_module_that_answers_at_once_is_refused(serve, response) -> None:
    async def process(run):
        raise AssertionError("ran")

    with pytest.raises(StreamingNotSupported, match=r"test\.agent answers at once") as raised:
        await chunks_of(serve, answering(process, response))
    assert raised.value.number == "E4010"


async def test_both_is_nothing_that_a_caller_can_ask_for(serve) -> None:
    with pytest.raises(InvalidRequest, match="response_mode"):
        await chunks_of(serve, answering(writes), ResponseMode.RESPONSE_MODE_BOTH)


async def test_silence_is_broken_by_what_is_gathered_and_then_by_progress(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.progress(40)
            await answer.delta("text", "a")
            await seen.wait()

    seen = asyncio.Event()
    chunks = []
    async with serve(answering(process, "{mode: streaming, heartbeat_interval_ms: 20}")) as client:
        async for frame in client.run(opening(), timeout=30):
            if frame.HasField("chunk"):
                chunks.append(frame.chunk.chunk)
            if len(chunks) == 5:
                seen.set()
    assert kinds(chunks)[:5] == ["meta", "progress", "delta", "progress", "progress"]
    assert [chunk.progress.percent for chunk in chunks if chunk.HasField("progress")][:3] == [40, 40, 40]
    assert chunks[-1].HasField("final")
    assert [chunk.sequence_number for chunk in chunks] == list(range(1, len(chunks) + 1))


@pytest.mark.parametrize(("mode", "kind"), [(STREAMING, StreamTimeout), (SYNC, DeadlineExceeded)])
async def test_an_answer_that_takes_too_long_is_cancelled(serve, mode, kind) -> None:
    cancelled = asyncio.Event()

    async def process(run):
        try:
            async with run.answer("answer") as answer:
                await answer.delta("text", "never ending")
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(DeadlineExceeded, match="max_duration_ms") as raised:
        await chunks_of(serve, answering(process, "{mode: both, max_duration_ms: 50}"), mode, timeout=30)
    assert type(raised.value) is kind
    assert cancelled.is_set()


async def test_time_runs_out_too_while_the_caller_does_not_read(serve) -> None:
    cancelled = asyncio.Event()

    async def process(run):
        try:
            async with run.answer("answer") as answer:
                while True:
                    await answer.progress(1, "x" * 1000)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    made = answering(process, "{mode: streaming, max_duration_ms: 200}")
    async with serve(made) as client, aclosing(client.run(opening(), timeout=30)) as frames:
        await anext(frames)
        await cancelled.wait()
        with pytest.raises(StreamTimeout):
            async for _ in frames:
                pass


@pytest.mark.parametrize(
    ("act", "text"),
    [
        (lambda answer: answer.snapshot({}), "got a snapshot, and response.chunk_type is delta"),
        (lambda answer: answer.finish({"x": object()}), "takes json"),
        (lambda answer: answer.progress(101), "progress.percent"),
    ],
)
async def test_an_answer_that_breaks_the_manifest_fails_the_run(serve, act, text) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await act(answer)

    with pytest.raises(AgentFailed, match=text):
        await chunks_of(serve, answering(process, "{mode: streaming}"))


async def test_nothing_follows_the_final_value(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.finish("done")
            await answer.delta("text", "more")

    with pytest.raises(AgentFailed, match="has its final value already"):
        await chunks_of(serve, answering(process))


async def test_text_is_appended_to_text(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.delta("a", "text")
            await answer.delta("a.b", "text")

    with pytest.raises(AgentFailed, match=r"has no text at 'a\.b'"):
        await chunks_of(serve, answering(process))


async def test_what_fails_within_an_answer_is_told_and_the_answer_is_not_final(serve) -> None:
    async def process(run):
        async with run.answer("answer") as answer:
            await answer.delta("text", "half")
            raise ZeroDivisionError("by zero")

    frames = []
    async with serve(answering(process)) as client:
        with pytest.raises(AgentFailed, match="ZeroDivisionError"):
            async for frame in client.run(opening(STREAMING)):
                frames.append(frame)
    assert kinds(frame.chunk.chunk for frame in frames) == ["meta"]


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ("outputs: [{name: a, type: json}], response: {mode: streaming}", r"response\.mode: needs an output pin"),
        ("modalities: {input: [text, smell]}", r"modalities\.input\[1\]: must be one of text, image, audio"),
        ("response: {max_duration_ms: 90000000}", r"response\.max_duration_ms"),
    ],
)
def test_a_declaration_that_cannot_be_kept_is_named(more, text) -> None:
    with pytest.raises(InvalidManifest, match=text):
        parse_manifest(f"{{id: test.agent, version: 1.0.0, {more}}}")
