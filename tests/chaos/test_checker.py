"""The checker finds each fault; a checker that finds nothing proves nothing."""

from __future__ import annotations

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from mediamesh.api.stream.v1.chunk_pb2 import Chunk, TextContent
from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamPayload
from tests.chaos.checker import faults
from tests.chaos.history import History, Record, digest

LAST = 6


def record(kind: str, client: str, **fields) -> Record:
    return Record(0.0, kind, "s", client, **fields)


def event(kind: str, client: str, sequence: int) -> Record:
    name = "stream_end" if sequence == LAST else "stream_data"
    return record(kind, client, sequence=sequence, event=name, digest=f"content of {sequence}")


def producing(client: str = "p") -> list[Record]:
    return [event("published", client, sequence) for sequence in range(1, LAST + 1)]


def reading(client: str = "r") -> list[Record]:
    return [
        record("subscribed", client),
        *(event("delivered", client, sequence) for sequence in range(1, LAST + 1)),
        record("completed", client),
    ]


def good() -> list[Record]:
    return [*producing(), record("acknowledged", "p", sequence=LAST), *reading("r"), *reading("q")]


def without(records: list[Record], client: str, kind: str, *sequences: int) -> list[Record]:
    return [one for one in records if not (one.client == client and one.kind == kind and one.sequence in sequences)]


def found(records: list[Record], *, gaps: bool = False) -> str:
    return "\n".join(faults(records, gaps=gaps))


def test_a_history_without_a_fault_has_none() -> None:
    assert found(good()) == ""


def test_an_announced_gap_is_none_where_gaps_may_be() -> None:
    records = without(good(), "r", "delivered", 3, 4)
    place = records.index(event("delivered", "r", 5))
    records.insert(place, record("gap", "r", sequence=3, last=4))
    assert found(records, gaps=True) == ""
    assert "a gap from 3 to 4 where nothing may be lost" in found(records)


def test_a_silent_gap_is_found() -> None:
    assert "r: 3 to 4 are missing in silence" in found(without(good(), "r", "delivered", 3, 4), gaps=True)


def test_a_gap_that_does_not_fit_is_found() -> None:
    records = good()
    records.insert(records.index(event("delivered", "r", 5)), record("gap", "r", sequence=3, last=4))
    assert "r: a gap from 3 to 4 came after 4" in found(records, gaps=True)


def test_a_duplicate_is_found() -> None:
    records = good()
    records.insert(records.index(event("delivered", "r", 5)), event("delivered", "r", 2))
    assert "r: 2 came twice" in found(records)


def test_a_wrong_order_is_found() -> None:
    records = good()
    first, second = (records.index(event("delivered", "r", sequence)) for sequence in (2, 3))
    records[first], records[second] = records[second], records[first]
    assert "r: 2 came after 3" in found(records)


def test_the_loss_of_the_tail_is_found() -> None:
    records = without(good(), "r", "delivered", 5, LAST)
    assert "r: completed at 4; 5 to 6 were acknowledged and lost" in found(records)
    assert "r: was told the end after 4, which ends nothing" in found(records)
    assert "readers saw different ends: [4, 6]" in found(records)


def test_an_acknowledged_event_that_is_replaced_is_found() -> None:
    records = [one._replace(digest="other") if one == event("delivered", "r", 3) else one for one in good()]
    assert "r: 3 is not what was published" in found(records)
    assert "3 differs between readers" in found(records)


def test_an_event_that_nobody_published_is_found() -> None:
    assert "r: 3 is not what was published" in found(without(good(), "p", "published", 3))


def test_the_content_is_that_of_the_producer_that_was_acknowledged() -> None:
    """A zombie and its successor sent the same position; what was stored is the successor's."""
    zombie = event("published", "zombie", 3)._replace(digest="the zombie's")
    assert found([zombie, *good()]) == ""
    wrong = [
        one._replace(digest="the zombie's") if one == event("delivered", "r", 3) else one for one in [zombie, *good()]
    ]
    assert "r: 3 is not what was published" in found(wrong)


def test_two_contents_acknowledged_as_one_position_are_found() -> None:
    other = [event("published", "zombie", 1)._replace(digest="x"), record("acknowledged", "zombie", sequence=1)]
    assert "two contents were acknowledged as 1, to p and zombie" in found([*good(), *other])


def test_an_acknowledgement_of_nothing_is_found() -> None:
    assert "7 was acknowledged to p before" in found([*good(), record("acknowledged", "p", sequence=7)])


def test_a_reader_that_hangs_is_found() -> None:
    assert "r: never saw the end; its last position is 6" in found(without(good(), "r", "completed", 0))


def test_a_reader_that_left_is_not_asked_for_the_end() -> None:
    assert (
        found([*good(), record("subscribed", "early"), event("delivered", "early", 1), record("left", "early")]) == ""
    )


def test_what_comes_after_the_end_is_found() -> None:
    assert "r: delivered 7 came after it had completed" in found([*good(), event("delivered", "r", 7)])


def test_an_error_that_a_client_sees_is_found() -> None:
    assert "x: saw an error over sse: Boom" in found([*good(), record("failed", "x", edge="sse", note="Boom")])


def test_a_reader_that_comes_back_elsewhere_goes_on_where_it_was() -> None:
    records = good()
    place = records.index(event("delivered", "r", 4))
    moved = [*records[:place], record("left", "r"), record("subscribed", "r", edge="sse", sequence=3), *records[place:]]
    assert found(moved) == ""
    wrong = [one._replace(sequence=2) if one.edge == "sse" else one for one in moved]
    assert "r: came back at 2 and had read up to 3" in found(wrong)


def test_an_end_by_the_broker_needs_no_producer() -> None:
    records = without(good(), "p", "published", LAST)
    records = [one._replace(sequence=5) if one.kind == "acknowledged" else one for one in records]
    assert "6 is not what was published" in found(records)
    assert found([record("closed", "admin"), *records]) == ""


@given(st.data())
def test_no_damage_to_a_reader_stays_unseen(data) -> None:
    records = good()
    places = [place for place, one in enumerate(records) if one.client == "r" and one.kind == "delivered"]
    place = data.draw(st.sampled_from(places))
    match data.draw(st.sampled_from(["drop", "repeat", "swap", "change", "shift"])):
        case "drop":
            del records[place]
        case "repeat":
            records.insert(data.draw(st.integers(place + 1, places[-1] + 1)), records[place])
        case "swap":
            other = data.draw(st.sampled_from([one for one in places if one != place]))
            records[place], records[other] = records[other], records[place]
        case "change":
            records[place] = records[place]._replace(digest="something else")
        case _:
            records[place] = records[place]._replace(sequence=records[place].sequence + data.draw(st.integers(1, 3)))
    assert faults(records, gaps=True)


@pytest.mark.parametrize("field", ["text", "kind"])
def test_the_digest_tells_contents_apart(field) -> None:
    def payload(text: str) -> StreamPayload:
        return StreamPayload(data=Chunk(content=TextContent(text=text), source="a", sequence_number=1))

    assert digest("stream_data", payload("x")) == digest("stream_data", payload("x"))
    other = payload("y") if field == "text" else StreamPayload(data=Chunk(error=Status(message="x")))
    assert digest("stream_data", payload("x")) != digest("stream_data", other)


def test_a_history_survives_its_file(tmp_path) -> None:
    history, other = History(), History()
    payload = StreamPayload(data=Chunk(content=TextContent(text="x")))
    history.published("s", "p", 1, "stream_data", payload)
    history.delivered("r", "sse", "s", StreamEvent(stream_id="s", sequence=1, event_type=2, payload=payload))  # type: ignore[arg-type]
    history.delivered("r", "sse", "s", StreamGap(first_sequence=2, last_sequence=4))
    history.dump(tmp_path / "history.jsonl")
    other.load((tmp_path / "history.jsonl").read_text().splitlines())
    assert other.records == history.records
    assert other.records[0].digest == other.records[1].digest
    assert (other.records[2].kind, other.records[2].sequence, other.records[2].last) == ("gap", 2, 4)
