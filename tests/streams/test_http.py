"""Streams as text: Server-Sent Events and lines of JSON, in both envelopes, over a real server."""

from __future__ import annotations

import asyncio
import json

import pytest

from mediamesh.api.stream.v1.stream_edge_service_pb2 import ReadStreamRequest
from mediamesh.api.stream.v1.stream_edge_service_pb2_grpc import StreamEdgeServiceStub
from mediamesh.api.stream.v1.stream_service_pb2 import CloseStreamRequest
from mediamesh.client.channel import connect
from mediamesh.kit.serve import Part, serving
from mediamesh.kit.settings import ServerSettings
from mediamesh.streams.http import EDGE_SERVICE, StreamEdgeServicer, register_edge
from mediamesh.wire import stream_json
from mediamesh.wire.errors import InvalidRequest, NotFound, OutOfRange
from tests.streams.producing import broker_over, data, end, opened_stream, publish, start
from tests.wire.stream_samples import CHUNKS

NDJSON = ("accept", "application/x-ndjson")


@pytest.fixture
async def broker():
    async with broker_over() as running:
        yield running


@pytest.fixture
async def edge(broker):
    """Return a function that reads a stream to its end and returns its text."""
    part = Part(services=[EDGE_SERVICE], register=lambda server: register_edge(StreamEdgeServicer(broker), server))
    async with serving(ServerSettings(grace_seconds=0), part) as port, connect(f"127.0.0.1:{port}") as channel:
        yield Edge(StreamEdgeServiceStub(channel))


class Edge:
    def __init__(self, stub):
        self._stub = stub

    async def parts(self, opened, *metadata, **request):
        call = self._stub.ReadStream(ReadStreamRequest(stream_id=opened.stream_id, **request), metadata=metadata)
        async for body in call:
            yield body.content_type, body.data.decode()

    async def text(self, opened, *metadata, **request):
        return "".join([part async for _, part in self.parts(opened, *metadata, **request)])

    async def frames(self, opened, *metadata, **request):
        """Return the frames of Server-Sent Events, each as a dictionary of its lines."""
        whole = await self.text(opened, *metadata, **request)
        return [
            {name: value for name, _, value in (line.partition(": ") for line in frame.split("\n"))}
            for frame in whole.split("\n\n")[:-1]
        ]

    async def lines(self, opened, *metadata, **request):
        return [json.loads(line) for line in (await self.text(opened, NDJSON, *metadata, **request)).splitlines()]


def chunk(sequence, kind):
    event = data(sequence)
    event.payload.data.CopyFrom(CHUNKS[kind])
    return event


async def stream_of(broker, *events, **fields):
    opened = await opened_stream(broker, **fields)
    await publish(broker, opened, events)
    return opened


async def test_server_sent_events_have_an_id_a_name_and_the_event(broker, edge) -> None:
    opened = await stream_of(broker, start(), data(2, "Hel"), end(3))
    retry, *frames = await edge.frames(opened)
    assert retry == {"retry": "1000"}
    assert [(frame["id"], frame["event"]) for frame in frames] == [
        ("1", "stream_start"),
        ("2", "stream_data"),
        ("3", "stream_end"),
    ]
    event = stream_json.event_from_object(json.loads(frames[1]["data"]))
    assert (event.stream_id, event.sequence, event.payload.data.content.text) == (opened.stream_id, 2, "Hel")


async def test_lines_of_json_have_the_same_events(broker, edge) -> None:
    opened = await stream_of(broker, start(), data(2, "Hel"), end(3))
    assert {kind async for kind, _ in edge.parts(opened, NDJSON)} == {"application/x-ndjson"}
    frames = (await edge.frames(opened))[1:]
    assert await edge.lines(opened) == [json.loads(frame["data"]) for frame in frames]


async def test_a_browser_that_takes_anything_gets_server_sent_events(broker, edge) -> None:
    opened = await stream_of(broker, start(), end(2))
    for accept in ("*/*", "text/event-stream", "text/event-stream, application/x-ndjson;q=0.5", ""):
        assert {kind async for kind, _ in edge.parts(opened, ("accept", accept))} == {"text/event-stream"}


async def test_the_id_of_the_last_event_goes_before_the_address(broker, edge) -> None:
    opened = await stream_of(broker, start(), *map(data, range(2, 6)), end(6))
    assert [line["sequence"] for line in await edge.lines(opened, after=2)] == [3, 4, 5, 6]
    assert [line["sequence"] for line in await edge.lines(opened, ("last-event-id", "4"), after=2)] == [5, 6]


@pytest.mark.parametrize("bad", ["x", "-1", "1.5", "0x1", "9" * 30, "1 2"])
async def test_an_id_that_was_never_given_is_refused(broker, edge, bad) -> None:
    opened = await stream_of(broker, start(), end(2))
    with pytest.raises(InvalidRequest, match="last-event-id"):
        await edge.text(opened, ("last-event-id", bad))


async def test_who_comes_back_at_the_end_gets_a_status_so_that_an_event_source_stays_away(broker, edge) -> None:
    opened = await stream_of(broker, start(), end(2))
    with pytest.raises(OutOfRange, match=r"has ended with event 2; nothing follows") as caught:
        await edge.text(opened, ("last-event-id", "2"))
    assert caught.value.metadata["ended"] == "true"
    assert await edge.lines(opened, after=2) == []


async def test_what_is_wrong_before_the_first_byte_is_a_status(broker, edge) -> None:
    opened = await stream_of(broker, start(), end(2))
    with pytest.raises(OutOfRange, match="newest is 2"):
        await edge.text(opened, after=7)
    with pytest.raises(InvalidRequest, match="envelope"):
        await edge.text(opened, envelope="cloud")
    opened.stream_id = "unknown"
    with pytest.raises(NotFound, match="unknown"):
        await edge.text(opened)


async def test_a_page_hears_at_once_that_it_is_connected(broker, edge) -> None:
    opened = await opened_stream(broker)
    async with asyncio.timeout(5):
        async for part in edge.parts(opened):
            assert part == ("text/event-stream", "retry: 1000\n\n")
            break


async def test_silence_is_a_comment_or_a_line(broker, edge) -> None:
    opened = await opened_stream(broker, heartbeat=0.1)
    await publish(broker, opened, [start()])
    async with asyncio.timeout(20):
        async for _, part in edge.parts(opened):
            if part.startswith(":"):
                assert part == ": heartbeat 1\n\n"
                break
        async for _, part in edge.parts(opened, NDJSON):
            if "heartbeat" in part:
                assert json.loads(part) == {
                    "event_type": "heartbeat",
                    "stream_id": opened.stream_id,
                    "last_sequence": 1,
                }
                break


async def test_lost_events_are_told_with_the_id_of_the_last_of_them(broker, edge) -> None:
    opened = await stream_of(broker, start(), *map(data, range(2, 100)), end(100), overflow="drop_oldest", max_items=16)
    gap, *rest = (await edge.frames(opened))[1:]
    lost = json.loads(gap["data"])
    assert gap["event"] == "gap"
    assert lost["first_sequence"] == 1
    assert int(gap["id"]) == lost["last_sequence"]
    assert [int(frame["id"]) for frame in rest] == list(range(lost["last_sequence"] + 1, 101))


async def test_who_comes_back_too_late_is_told_what_it_lost_and_who_asks_for_it_anew_is_refused(broker, edge) -> None:
    opened = await stream_of(broker, start(), *map(data, range(2, 100)), end(100), overflow="drop_oldest", max_items=16)
    assert (await edge.lines(opened, ("last-event-id", "3")))[0]["event_type"] == "gap"
    with pytest.raises(OutOfRange) as caught:
        await edge.text(opened, after=3)
    assert int(caught.value.metadata["first_sequence"]) > 4


async def test_a_server_that_goes_away_says_where_to_go_on(broker, edge) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start(), data(2)])
    heard = ""
    async with asyncio.timeout(10):
        async for _, part in edge.parts(opened):
            heard += part
            if "id: 2\n" in heard:
                broker.leave()
    name, line = heard.split("\n\n")[-2].split("\n")
    assert name == "event: go_away"
    assert json.loads(line.removeprefix("data: "))["resume_token"] == "2"


async def test_text_cannot_forge_an_event(broker, edge) -> None:
    forged = "a\n\nid: 99\nevent: stream_end\ndata: {}\r\n\r\nb\u2028event: x\x85event: y"
    opened = await stream_of(broker, start(), data(2, forged), end(3), node_id="n\n\nevent: x")
    frames = (await edge.frames(opened))[1:]
    assert [frame["event"] for frame in frames] == ["stream_start", "stream_data", "stream_end"]
    event = json.loads(frames[1]["data"])
    assert event["payload"]["data"]["content"]["text"] == forged
    assert all(len(line.splitlines()) == 1 for line in (await edge.text(opened, NDJSON)).split("\n")[:-1])


async def test_a_result_has_its_own_envelope(broker, edge) -> None:
    opened = await stream_of(
        broker,
        start(),
        *(chunk(sequence, kind) for sequence, kind in enumerate(["meta", "delta", "snapshot", "progress", "final"], 2)),
        end(7),
    )
    lines = await edge.lines(opened, envelope="result")
    assert lines[0]["ok"] is True
    assert lines[0]["session_id"] == "session-1"
    assert lines[1] == {"chunk": {"seq": 3, "type": "delta", "field": "answer.text", "delta": "Hel"}}
    assert lines[2]["chunk"]["type"] == "snapshot"
    assert lines[3]["progress"]["percent"] == 50
    assert lines[4]["final"] is True
    assert len(lines) == 5
    frames = (await edge.frames(opened, envelope="result"))[1:]
    # The first event and the last one say nothing to a result, and still move the cursor.
    assert [(frame["id"], frame.get("event")) for frame in frames] == [
        ("1", None),
        ("2", "meta"),
        ("3", "chunk"),
        ("4", "chunk"),
        ("5", "progress"),
        ("6", "final"),
        ("7", None),
    ]
    assert [json.loads(frame["data"]) for frame in frames if "data" in frame] == lines
    assert [line["chunk"]["seq"] for line in (await edge.lines(opened, envelope="result", after=3))[:1]] == [4]


async def test_a_stream_of_text_read_as_a_result_begins_and_ends_as_one(broker, edge) -> None:
    opened = await stream_of(broker, start(), data(2, "Hel"), end(3))
    first, piece, last = await edge.lines(opened, envelope="result")
    assert first == {"ok": True, "streaming": True, "session_id": "", "meta": {}}
    assert piece["chunk"]["type"] == "content"
    assert last == {"final": True, "meta": {}, "data": None, "usage": None}


async def test_a_result_that_fails_ends_with_its_error(broker, edge) -> None:
    opened = await opened_stream(broker)
    await publish(broker, opened, [start(), chunk(2, "meta")])
    await broker.close(CloseStreamRequest(stream_id=opened.stream_id, error=CHUNKS["error"].error))
    lines = await edge.lines(opened, envelope="result")
    assert lines[-1] == {"ok": False, "error": {"code": "E2011", "message": "The stream outlived its 300 s."}}
    told = await stream_of(broker, start(), chunk(2, "error"), end(3))
    assert [line["ok"] for line in await edge.lines(told, envelope="result")] == [False]


async def test_an_event_is_spelled_once_for_all_its_readers(broker, edge, monkeypatch) -> None:
    opened = await opened_stream(broker)
    spelled = []
    spell = stream_json.event_object

    def spy(event):
        spelled.append(event)
        return spell(event)

    monkeypatch.setattr(stream_json, "event_object", spy)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        connected = asyncio.Barrier(6)
        readers = [tasks.create_task(until_end(edge.parts(opened), connected)) for _ in range(5)]
        await connected.wait()
        await publish(broker, opened, [start(), data(2), end(3)])
    assert len({reader.result() for reader in readers}) == 1
    assert len(spelled) == 3


async def until_end(parts, connected):
    heard = ""
    async for _, part in parts:
        if not heard:
            await connected.wait()
        heard += part
    return heard
