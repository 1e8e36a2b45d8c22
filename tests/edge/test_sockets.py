"""Reading and publishing over WebSocket, with the websockets library against real servers."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from mediamesh.api.stream.v1 import stream_pb2
from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.edge import publishing
from mediamesh.edge.metrics import COUNTS
from mediamesh.wire.binary_frames import pack
from mediamesh.wire.stream_json import event_from_object
from tests.edge.conftest import next_of, objects
from tests.wire.stream_samples import CHUNKS, PIXEL


def text(number):
    return Chunk(content=TextContent(text=f"text {number}"))


def limits(**fields):
    interval = fields.pop("heartbeat", None)
    made = stream_pb2.StreamLimits(**fields)
    if interval:
        made.heartbeat_interval.FromMilliseconds(round(interval * 1000))
    return made


async def published(streams, *chunks, ended=True, **fields):
    """Return a stream with a start, the chunks, and an end."""
    opened = await streams.open(limits=limits(**fields))
    async with streams.publish(opened.stream_id, opened.publish_token) as publisher:
        await publisher.start()
        for chunk in chunks:
            await publisher.send(chunk)
        if ended:
            await publisher.end()
    return opened


def sent(sequence, event_type="stream_data", **payload):
    if event_type == "stream_data" and not payload:
        payload = {"data": {"kind": "content", "content": {"text": f"text {sequence}"}}}
    return json.dumps({"event_type": event_type, "sequence": sequence, "payload": payload})


async def all_of(socket):
    return [frame async for frame in objects(socket)]


async def test_a_reader_gets_every_event_and_a_normal_end(edge, streams) -> None:
    opened = await published(streams, text(2), text(3))
    async with edge.open(opened.stream_id) as socket:
        frames = await all_of(socket)
    assert [(frame["event_type"], frame["sequence"]) for frame in frames] == [
        ("stream_start", 1),
        ("stream_data", 2),
        ("stream_data", 3),
        ("stream_end", 4),
    ]
    assert event_from_object(frames[1]).payload.data.content.text == "text 2"
    assert socket.close_code == 1000


async def test_a_reader_goes_on_where_it_was(edge, streams) -> None:
    opened = await published(streams, *map(text, range(2, 6)))
    async with edge.open(opened.stream_id, after=3) as socket:
        assert [frame["sequence"] async for frame in objects(socket)] == [4, 5, 6]
    async with edge.open(opened.stream_id, after=6) as socket:
        assert await all_of(socket) == []
    assert socket.close_code == 1000


async def test_media_come_as_bytes_beside_the_json_or_as_base64(edge, streams) -> None:
    opened = await published(streams, CHUNKS["media"])
    async with edge.open(opened.stream_id) as socket:
        _, (event, data), _ = await all_of(socket)
    assert data == PIXEL
    assert event["payload"]["data"]["media"]["data"] is None
    assert event_from_object(event, data=data).payload.data == CHUNKS["media"]
    async with edge.open(opened.stream_id, media="base64") as socket:
        _, event, _ = await all_of(socket)
    assert event_from_object(event).payload.data == CHUNKS["media"]


async def test_what_a_producer_sends_comes_out_and_is_acknowledged(edge, streams) -> None:
    opened = await streams.open()
    async with edge.open(opened.stream_id) as reader, edge.publish(opened, producer_id="p") as socket:
        hello = await next_of(socket)
        assert (hello["event_type"], hello["producer_id"], hello["last_sequence"]) == ("opened", "p", 0)
        assert hello["window"]["items"] > 0
        media = {
            "kind": "media",
            "media": {
                "media_type": "image",
                "encoding": "binary",
                "data": None,
                "metadata": {"mime_type": "image/png"},
            },
        }
        await socket.send(sent(1, "stream_start"))
        await socket.send(sent(2).encode().join([len(sent(2)).to_bytes(4, "big"), b""]))
        await socket.send(pack(json.loads(sent(3, data=media)), PIXEL))
        await socket.send(sent(4, "stream_end", metadata={"reason": "stop"}))
        while (frame := await next_of(socket))["sequence"] < 4:
            assert frame["event_type"] == "ack"
        frames = await all_of(reader)
    assert [frame[0]["sequence"] if isinstance(frame, tuple) else frame["sequence"] for frame in frames] == [1, 2, 3, 4]
    assert frames[2][1] == PIXEL
    assert frames[3]["payload"]["metadata"]["reason"] == "stop"


async def test_what_was_sent_before_a_producer_left_is_kept(edge, streams) -> None:
    opened = await streams.open()
    async with edge.publish(opened) as socket:
        for sequence in range(1, 101):
            await socket.send(sent(sequence))
    async with asyncio.timeout(20), edge.open(opened.stream_id) as reader:
        got = 0
        while got < 100:
            got += 1
            assert (await next_of(reader))["sequence"] == got


async def test_events_that_are_sent_again_are_acknowledged_and_dropped(edge, streams) -> None:
    opened = await streams.open()
    for _ in range(2):
        async with edge.publish(opened, producer_id="p") as socket:
            await next_of(socket)
            for sequence in (1, 2, 3):
                await socket.send(sent(sequence))
            while (await next_of(socket))["sequence"] < 3:
                pass
    assert (await streams.get(opened.stream_id)).last_sequence == 3


async def test_silence_is_a_heartbeat(edge, streams) -> None:
    opened = await published(streams, text(2), ended=False, heartbeat=0.1)
    async with asyncio.timeout(20), edge.open(opened.stream_id, after=2) as socket:
        assert await next_of(socket) == {
            "event_type": "heartbeat",
            "stream_id": opened.stream_id,
            "last_sequence": 2,
        }


async def test_lost_events_are_told(edge, streams) -> None:
    opened = await published(
        streams,
        *map(text, range(2, 100)),
        overflow=stream_pb2.OVERFLOW_POLICY_DROP_OLDEST,
        max_items=16,
    )
    async with edge.open(opened.stream_id) as socket:
        gap, *rest = await all_of(socket)
    assert (gap["event_type"], gap["first_sequence"]) == ("gap", 1)
    assert [frame["sequence"] for frame in rest] == list(range(gap["last_sequence"] + 1, 101))
    async with edge.open(opened.stream_id, after=3) as socket:
        (error,) = await all_of(socket)
    assert int(error["error"]["metadata"]["first_sequence"]) == gap["last_sequence"] + 1
    async with edge.open(opened.stream_id, after=3, allow_gap=1) as socket:
        assert (await next_of(socket))["event_type"] == "gap"


@pytest.mark.parametrize(
    ("query", "reason", "complaint"),
    [
        ({"after": "9"}, "OUT_OF_RANGE", "newest is 2"),
        ({"after": "-1"}, "INVALID_REQUEST", "after: must be a whole number"),
        ({"media": "hex"}, "INVALID_REQUEST", "media: must be binary or base64"),
        ({"publish": "maybe"}, "INVALID_REQUEST", "publish: must be 1 or 0"),
        ({"publish": "1"}, "INVALID_REQUEST", "publish_token"),
        ({"publish": "1", "token": "wrong"}, "PERMISSION_DENIED", "token"),
    ],
    ids=["future", "negative", "media", "flag", "no token", "wrong token"],
)
async def test_what_the_address_gets_wrong_is_an_error_that_names_the_stream(
    edge, streams, query, reason, complaint
) -> None:
    opened = await published(streams)
    async with edge.open(opened.stream_id, **query) as socket:
        (frame,) = await all_of(socket)
    assert frame["event_type"] == "error"
    assert frame["error"]["reason"] == reason
    assert complaint in frame["error"]["message"]
    assert frame["error"]["metadata"]["stream_id"] == opened.stream_id
    assert socket.close_code == 1008


async def test_an_unknown_stream_is_named(edge) -> None:
    async with edge.open("nowhere") as socket:
        (frame,) = await all_of(socket)
    assert (frame["stream_id"], frame["error"]["reason"]) == ("nowhere", "NOT_FOUND")


@pytest.mark.parametrize(
    ("frame", "code", "complaint"),
    [
        ("{", 1007, "must be JSON"),
        ("[1]", 1008, "must be an object"),
        (b"\x00\x00", 1007, "the length of its JSON"),
        (b"\x00\x00\x00\xff{}", 1007, "the length of its JSON"),
        (b"\x00\x00\x00\x02\xff\xff", 1007, "must be UTF-8"),
        (sent(3, data={"kind": "content", "content": {"text": 3}}), 1008, "payload.data.content.text: must be text"),
        (sent(3, data={"kind": "kind"}), 1008, "payload.data.kind"),
        ('{"\\ud800":1}', 1008, "\\ud800: is unknown here"),
        (sent(3, data={"kind": "content", "content": {"\ud800": 3}}), 1008, "payload.data.content.\\ud800: is unknown"),
        (sent(9), 1008, ""),
        (sent(0), 1008, "sequence"),
    ],
    ids=[
        "no JSON",
        "no object",
        "short",
        "too short",
        "no UTF-8",
        "wrong type",
        "no kind",
        "half a character",
        "half a character within",
        "ahead",
        "zero",
    ],
)
async def test_a_wrong_frame_is_an_error_that_names_stream_and_position(edge, streams, frame, code, complaint) -> None:
    opened = await streams.open()
    async with edge.publish(opened) as socket:
        assert (await next_of(socket))["event_type"] == "opened"
        await socket.send(sent(1, "stream_start"))
        await socket.send(sent(2))
        await socket.send(frame)
        async with asyncio.timeout(20):
            *acks, last = await all_of(socket)
    # What came before it is kept.
    assert acks[-1]["sequence"] == 2
    assert last["event_type"] == "error"
    assert complaint in last["error"]["message"]
    assert last["error"]["metadata"]["stream_id"] == opened.stream_id
    assert int(last["error"]["metadata"]["sequence"]) in {2, 3, 9}
    assert socket.close_code == code
    assert (await streams.get(opened.stream_id)).last_sequence == 2


async def test_a_socket_whose_reading_fails_is_closed(edge, streams, monkeypatch) -> None:
    def fail(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(publishing, "publish_event_from_object", fail)
    opened = await streams.open()
    async with asyncio.timeout(20), edge.publish(opened) as socket:
        assert (await next_of(socket))["event_type"] == "opened"
        await socket.send(sent(1))
        (last,) = await all_of(socket)
    assert last["error"]["reason"] == "INTERNAL"
    assert socket.close_code == 1011


async def test_an_event_after_the_end_is_refused_and_names_the_last_one(edge, streams) -> None:
    opened = await streams.open()
    async with edge.publish(opened) as socket:
        await next_of(socket)
        await socket.send(sent(1, "stream_end"))
        await socket.send(sent(2))
        last = (await all_of(socket))[-1]
    assert last["error"]["reason"] == "FAILED_PRECONDITION"
    assert socket.close_code == 1008


async def test_a_later_producer_shuts_out_the_one_before(edge, streams) -> None:
    opened = await streams.open()
    async with edge.publish(opened, producer_id="one") as one:
        await next_of(one)
        async with edge.publish(opened, producer_id="two") as two:
            assert (await next_of(two))["epoch"] == 2
            await one.send(sent(1))
            last = (await all_of(one))[-1]
    assert last["error"]["reason"] == "FAILED_PRECONDITION"
    assert last["error"]["metadata"]["epoch"] == "2"


async def test_a_frame_larger_than_allowed_closes_the_socket(edge, streams) -> None:
    opened = await streams.open()
    async with edge.publish(opened) as socket:
        await next_of(socket)
        with suppress(ConnectionClosedError):  # it may come before all is sent
            await socket.send("x" * (4 * 1024 * 1024 + 1))
        await all_of(socket)
    assert socket.close_code == 1009


async def test_a_reader_that_speaks_is_told_how_to(edge, streams) -> None:
    opened = await published(streams, ended=False)
    async with edge.open(opened.stream_id) as socket:
        await next_of(socket)
        await socket.send(sent(2))
        (last,) = await all_of(socket)
    assert "publish=1" in last["error"]["message"]
    assert socket.close_code == 1008


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://localhost:5173", True),
        ("https://127.0.0.1", True),
        ("https://example.org", False),
        ("http://localhost.example.org", False),
        ("null", False),
    ],
    ids=["none", "local", "address", "elsewhere", "looks local", "null"],
)
async def test_pages_from_elsewhere_open_no_socket(edge, streams, origin, allowed) -> None:
    opened = await published(streams)
    refused = COUNTS.refused
    if allowed:
        async with edge.open(opened.stream_id, origin=origin) as socket:
            assert len(await all_of(socket)) == 2
    else:
        with pytest.raises(InvalidStatus) as caught:
            async with edge.open(opened.stream_id, origin=origin):
                pass
        assert caught.value.response.status_code == 403
    assert COUNTS.refused == refused + (not allowed)


async def test_the_server_says_that_it_is_well(edge) -> None:
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"http://127.0.0.1:{edge.port}/healthz")).status_code == 200
