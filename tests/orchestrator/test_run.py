from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from mediamesh.api.agent.v1 import value_pb2
from mediamesh.api.flow.v1 import execution_pb2
from mediamesh.api.flow.v1.execution_pb2 import ExecutionEvent
from mediamesh.api.media.v1 import media_pb2
from mediamesh.wire.errors import (
    DeadlineExceeded,
    InvalidFlow,
    MediaFetchFailed,
    MeshError,
    NotFound,
    Overloaded,
    UnsupportedMediaType,
)
from tests.orchestrator.conftest import orchestrating
from tests.orchestrator.flow_texts import flow
from tests.pace import within

SUCCEEDED, FAILED = execution_pb2.EXECUTION_STATE_SUCCEEDED, execution_pb2.EXECUTION_STATE_FAILED
CANCELLED = execution_pb2.EXECUTION_STATE_CANCELLED
TEXT = "text test.echo, outputs: {text: hello}"


async def events_of(mesh, source, inputs=None, **options):
    return [event async for event in mesh.flows.run(source, inputs, **options)]


def kinds(events, node_id):
    return [event.WhichOneof("event") for event in events if event.node_id == node_id]


def outputs(events, node_id):
    return [event.node_output.value for event in events if event.node_id == node_id and event.HasField("node_output")]


def failure(events, node_id):
    (failed,) = [event.node_failed for event in events if event.node_id == node_id and event.HasField("node_failed")]
    return MeshError.from_status(failed.error)


async def test_a_flow_runs_and_its_events_have_no_gaps(mesh) -> None:
    source = flow(
        TEXT, "again test.echo, params: {suffix: '!'}", "show ui.stream-console",
        edges="text.text>again.text again.text>show.input",
    )  # fmt: skip
    events = await events_of(mesh, source)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[0].HasField("execution_started")
    assert events[-1].execution_finished.state == SUCCEEDED
    assert kinds(events, "again") == ["node_started", "node_progress", "node_output", "node_finished"]
    assert [value.text for value in outputs(events, "show")] == ["hello!"]
    execution = await mesh.flows.get(events[0].execution_id)
    assert execution.state == SUCCEEDED
    assert execution.last_sequence == len(events)
    assert execution.nodes[1].outputs["text"].text == "hello!"


async def test_text_becomes_json_on_a_json_pin(mesh) -> None:
    events = await events_of(mesh, flow(TEXT, "b test.join", edges="text.text>b.a text.text>b.b"))
    assert outputs(events, "b")[0].text == "hello+hello"


async def test_a_failed_node_fails_only_what_depends_on_it(mesh) -> None:
    source = flow(
        "bad test.failing", TEXT, "after test.echo", "later test.echo", "fine test.echo",
        edges="bad.text>after.text after.text>later.text text.text>fine.text",
    )  # fmt: skip
    events = await events_of(mesh, source)
    assert failure(events, "bad").text == "The model said no."
    assert kinds(events, "later") == ["node_skipped"]
    assert [e.node_skipped.cause_node_id for e in events if e.HasField("node_skipped")] == ["bad", "bad"]
    assert kinds(events, "fine")[-1] == "node_finished"
    finished = events[-1].execution_finished
    assert finished.state == FAILED
    assert finished.error.message == "The node `bad` failed: The model said no."


async def test_a_value_that_came_before_the_failure_counts(mesh) -> None:
    source = flow(TEXT, "bad test.failing", "after test.echo", edges="text.text>bad.text bad.text>after.text")
    events = await events_of(mesh, source)
    assert kinds(events, "after")[-1] == "node_finished"
    assert outputs(events, "after")[0].text == "half"


async def test_a_stream_starts_its_consumer_with_the_first_chunk(mesh, release) -> None:
    source = flow("make test.producer", "count test.consumer", edges="make.stream>count.stream")
    seen: list[tuple[str, str | None]] = []
    async for event in mesh.flows.run(source):
        seen.append((event.node_id, event.WhichOneof("event")))
        if seen[-1] == ("count", "node_progress") and not release.is_set():
            # The producer waits for this after its first chunk.
            assert ("make", "node_finished") not in seen
            release.set()
        if event.HasField("node_output") and event.node_id == "count":
            assert event.node_output.value.number == 3
    assert ("make", "node_finished") in seen


async def test_two_streams_into_one_pin_are_one_stream(mesh) -> None:
    source = flow(
        "a test.producer, params: {count: 5}", "b test.producer, params: {count: 7}", "c test.consumer",
        edges="a.stream>c.stream b.stream>c.stream",
    )  # fmt: skip
    assert outputs(await events_of(mesh, source), "c")[0].number == 12


async def test_a_slow_reader_stops_a_fast_producer(mesh, agents, release) -> None:
    source = flow("make test.flood", "count test.lazy", edges="make.stream>count.stream")
    async with aclosing(mesh.flows.run(source)) as events:
        run = (await anext(events)).execution_id
        quiet = 0
        # Nothing else can tell that a producer has stopped than that it says nothing for a while.
        while quiet < 5:
            before = agents.sent[run]
            try:
                async with asyncio.timeout(0.1):
                    await anext(events)
                    continue
            except TimeoutError:
                quiet = quiet + 1 if agents.sent[run] == before else 0
            except StopAsyncIteration:
                break
    assert agents.sent[run] < 4000
    await agents.until(lambda: agents.running[run] == 0)


async def test_chunks_that_wait_for_a_value_behind_them_fail_their_reader_and_not_the_run(mesh) -> None:
    source = flow(
        "make test.producer, params: {count: 500}", "both test.consumer", "fine test.echo",
        edges="make.stream>both.stream make.text>both.text make.text>fine.text",
    )  # fmt: skip
    events = await events_of(mesh, source)
    error = failure(events, "both")
    assert isinstance(error, Overloaded)
    assert "`stream` got more chunks than may wait for `text`" in error.text
    assert kinds(events, "fine")[-1] == "node_finished"


async def test_a_broken_stream_fails_who_reads_it(mesh) -> None:
    source = flow("make test.failing", "count test.consumer", edges="make.stream>count.stream")
    events = await events_of(mesh, source)
    # Whether the consumer had begun when the producer failed is a race; that it ends with a reason is not.
    assert kinds(events, "count")[-1] in {"node_failed", "node_skipped"}


async def test_a_node_that_never_answers_fails_at_its_timeout(mesh, release) -> None:
    events = await events_of(mesh, flow("wait test.slow, timeout: 0.05", TEXT, "b test.echo", edges="text.text>b.text"))
    error = failure(events, "wait")
    assert isinstance(error, DeadlineExceeded)
    assert error.text == "The node took longer than its 0.05 s."
    assert kinds(events, "b")[-1] == "node_finished"


async def test_an_agent_that_is_just_not_there_is_tried_again_once(mesh, agents) -> None:
    events = await events_of(mesh, flow("a test.flaky"))
    assert events[-1].execution_finished.state == SUCCEEDED
    assert agents.attempts[events[0].execution_id] == [1, 2]
    assert [e.node_started.attempt for e in events if e.HasField("node_started")] == [1, 2]
    lost = failure(await events_of(mesh, flow("a test.lost")), "a")
    assert lost.text == "The agent `test.lost` could not run: Gone for good."


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("type", "The agent gave a value that does not fit: `text` takes string, got number."),
        ("pin", "The agent gave something on `nothing`, which is not one of its output pins."),
        ("twice", "The agent gave a second value on `text`."),
        ("chunk", "The agent streamed on `text`, which is string."),
        ("none", "The agent finished without a value on `text`."),
    ],
)
async def test_an_agent_that_breaks_the_contract_fails_its_node(mesh, how, sentence) -> None:
    source = flow(f"bad test.wrong, params: {{how: {how}}}", "show ui.stream-console", edges="bad.text>show.input")
    assert failure(await events_of(mesh, source), "bad").text == sentence


async def test_a_crash_of_an_agent_fails_its_node(mesh) -> None:
    assert (
        "log has the cause" in failure(await events_of(mesh, flow("bad test.wrong, params: {how: crash}")), "bad").text
    )


async def test_an_output_that_is_too_large_fails_its_node(settings) -> None:
    async with orchestrating(settings(max_event_bytes=100_000)) as mesh:
        error = failure(await events_of(mesh, flow("bad test.wrong, params: {how: large}")), "bad")
    assert error.metadata["limit"] == "100000"


async def test_media_of_an_agent_goes_to_the_store_and_a_reference_goes_on(mesh) -> None:
    events = await events_of(mesh, flow("paint test.painter", "see test.viewer", edges="paint.image>see.image"))
    run = events[0].execution_id
    (image,) = outputs(events, "paint")
    assert image.media.ref.url == f"s3://media/default/test/{run}/paint/image_1.bin"
    assert image.media.ref.size_bytes == 6
    assert outputs(events, "see")[0].text == image.media.ref.url


UPLOAD = flow("upload ui.file-upload", "see test.viewer", edges="upload.file>see.image")


def image(**source):
    return value_pb2.Value(media=media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_IMAGE, **source))


async def test_an_inline_image_is_stored_and_passed_on_as_a_reference(mesh) -> None:
    events = await events_of(mesh, UPLOAD, {"upload.file": image(inline=b"png")}, workspace_id="w1")
    run = events[0].execution_id
    assert outputs(events, "see")[0].text == f"s3://media/w1/test/{run}/upload/file_1.bin"
    (known,) = outputs(events, "upload")
    again = await events_of(mesh, UPLOAD, {"upload.file": known})
    assert outputs(again, "upload")[0].media.ref.url == known.media.ref.url


async def test_what_the_store_knows_of_a_reference_counts_and_not_what_its_giver_says(mesh) -> None:
    (known,) = outputs(await events_of(mesh, UPLOAD, {"upload.file": image(inline=b"png")}), "upload")
    url = known.media.ref.url
    lie = media_pb2.MediaReference(url=url, metadata=media_pb2.MediaFacts(mime_type="text/plain"))
    for reference in (media_pb2.MediaReference(url=url), lie):
        again = await events_of(mesh, UPLOAD, {"upload.file": image(ref=reference)})
        assert outputs(again, "upload") == [known]


@pytest.mark.parametrize(
    ("inputs", "kind", "field", "text"),
    [
        ({}, InvalidFlow, "inputs['upload.file']", "MISSING_INPUT: the flow needs a value for `upload.file`."),
        (
            {"upload.file": image(inline=b"x"), "uplod.file": image(inline=b"x")},
            InvalidFlow,
            "inputs['uplod.file']",
            "INVALID_INPUT: the flow takes no input `uplod.file`. Did you mean `upload.file`?",
        ),
        (
            {"upload.file": value_pb2.Value(text="x")},
            UnsupportedMediaType,
            "inputs['upload.file']",
            "takes image, got string",
        ),
        (
            {"upload.file": value_pb2.Value(media=media_pb2.MediaValue(type=media_pb2.MEDIA_TYPE_AUDIO, inline=b"x"))},
            UnsupportedMediaType,
            "inputs['upload.file']",
            "takes image, got audio",
        ),
        (
            {"upload.file": image(inline=b"not an image")},
            UnsupportedMediaType,
            "inputs['upload.file']",
            "The bytes are text/plain, and not an image.",
        ),
    ],
)
async def test_a_wrong_input_is_named(mesh, inputs, kind, field, text) -> None:
    with pytest.raises(kind) as raised:
        await mesh.flows.start(UPLOAD, inputs)
    assert raised.value.violations == [(field, text)]


async def test_media_elsewhere_is_not_fetched_and_media_nowhere_is_not_found(mesh) -> None:
    with pytest.raises(MediaFetchFailed, match="lies outside of the media store"):
        await mesh.flows.start(UPLOAD, {"upload.file": image(url="https://example.org/cat.png")})
    with pytest.raises(NotFound, match="There is nothing at s3://media/no"):
        await mesh.flows.start(UPLOAD, {"upload.file": image(ref=media_pb2.MediaReference(url="s3://media/no"))})


async def test_leaving_a_run_cancels_its_agents_within_a_second(mesh, agents, release) -> None:
    event = ExecutionEvent()
    async with aclosing(mesh.flows.run(flow("wait test.slow"))) as events:
        async for event in events:
            if event.HasField("node_progress"):
                break
    async with within(1):
        await agents.until(lambda: agents.cancelled[event.execution_id] == 1)
    last = [found async for found in mesh.flows.watch(event.execution_id)][-1]
    assert last.execution_finished.state == CANCELLED


async def test_the_deadline_of_the_caller_ends_the_run(mesh, agents, release) -> None:
    event, run, seconds = ExecutionEvent(), "", 0.3
    while not run:  # the time may be over before the run has begun
        with pytest.raises(DeadlineExceeded):
            async for event in mesh.flows.run(flow("wait test.slow"), timeout=seconds):
                run = event.execution_id
            assert event.execution_finished.state == FAILED
            raise MeshError.from_status(event.execution_finished.error)
        seconds *= 2
    execution = await mesh.flows.cancel(run)
    assert execution.state == FAILED
    assert execution.error.code == DeadlineExceeded.code.value[0]


async def test_a_cancelled_run_says_so_once(mesh, agents, release) -> None:
    execution = await mesh.flows.start(flow("wait test.slow", "after test.echo", edges="wait.text>after.text"))
    await agents.until(lambda: agents.running[execution.execution_id] == 1)
    cancelled = await mesh.flows.cancel(execution.execution_id)
    assert cancelled.state == CANCELLED
    assert cancelled == await mesh.flows.cancel(execution.execution_id)
    events = [event async for event in mesh.flows.watch(execution.execution_id)]
    assert kinds(events, "wait")[-1] == "node_cancelled"
    assert kinds(events, "after") == ["node_cancelled"]


async def test_a_run_has_a_longest_time(mesh, release) -> None:
    execution = await mesh.flows.start(flow("wait test.slow"), timeout=0.05)
    last = [event async for event in mesh.flows.watch(execution.execution_id)][-1]
    assert last.execution_finished.error.message == "The run took longer than its 0.05 s."


async def test_one_run_too_many_is_told_when_to_come_again(settings, release) -> None:
    async with orchestrating(settings(max_executions=1)) as mesh:
        execution = await mesh.flows.start(flow("wait test.slow"))
        with pytest.raises(Overloaded) as raised:
            await mesh.flows.start(flow("wait test.slow"))
        assert raised.value.retry_after == 1
        await mesh.flows.cancel(execution.execution_id)
        assert (await events_of(mesh, flow(TEXT)))[-1].execution_finished.state == SUCCEEDED
