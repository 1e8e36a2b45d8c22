"""One cursor: a reader may change the transport at any event."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

import pytest

from mediamesh.wire.stream_json import event_object
from tests.conformance.making import make, read
from tests.conformance.transports import TRANSPORTS, Addresses

pytestmark = pytest.mark.stack


async def test_a_reader_goes_from_each_transport_to_each_other_without_a_seam(streams, server, door) -> None:
    made = await make(streams, 60)
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(transport(Addresses(server, door))) for transport in TRANSPORTS.values()
        ]
        ways = [two for pair in itertools.permutations(opened, 2) for two in pair]
        position, seen = 0, []
        for transport in ways:
            got = await read(transport, made.stream_id, after_sequence=position, most=1, subscriber_id="wanderer")
            seen += [item.sequence for item in got]
            position = seen[-1]
        seen += [item.sequence for item in await read(opened[0], made.stream_id, after_sequence=position)]
    assert seen == list(range(1, 63))
    assert position == len(ways) == 40


async def test_every_transport_tells_the_same_events(streams, server, door) -> None:
    made = await make(streams, 5)
    told = []
    for transport in TRANSPORTS.values():
        async with transport(Addresses(server, door)) as opened:
            # As JSON, which does not tell a payload that is empty from one that is not there.
            told.append([event_object(item) for item in await read(opened, made.stream_id)])
    assert told.count(told[0]) == len(told)
