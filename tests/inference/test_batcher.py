"""What runs where, with whom and in which order; the model is a stand-in that runs when the test lets it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from functools import partial

import numpy as np
import pytest

from mediamesh.inference.batching.batcher import batching
from mediamesh.inference.batching.pace import Here, Pace
from mediamesh.inference.batching.policies import BatchPolicy, LevelPolicy
from mediamesh.inference.batching.queue import Queue
from mediamesh.inference.scheduling import Call
from mediamesh.inference.statistics import Statistics
from mediamesh.wire.errors import DeadlineExceeded, MeshError, Overloaded, Unavailable
from tests.conformance.making import until


class StandIn:
    """A session whose runs wait for a permit each, and that doubles what it is given; 13 makes it fail."""

    def __init__(self, *, permits: int = 1000) -> None:
        self.batches: list[list[float]] = []
        self.threads: list[threading.Thread] = []
        self.entered = threading.Semaphore(0)
        self.permits = threading.Semaphore(permits)

    def run(self, inputs, outputs):
        self.batches.append(inputs["x"][:, 0].tolist())
        self.threads.append(threading.current_thread())
        self.entered.release()
        assert self.permits.acquire(timeout=20)
        if 13 in inputs["x"]:
            raise MeshError("Thirteen.")
        return [inputs["x"] * 2]

    async def runs(self) -> None:
        """Wait until one more run has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=20)


def call(value: float, **given) -> Call:
    return Call(inputs={"x": np.full((1, 1), value, np.float32)}, outputs=("y",), **given)


@asynccontextmanager
async def batcher(*sessions: StandIn, policy: BatchPolicy | None = None, pace: Pace | None = None, room: int = 100):
    policy = policy or BatchPolicy(most_items=8, aim=8)
    queue = Queue("m/1", policy, max_requests=room, max_bytes=1 << 20)
    async with batching("m/1", sessions, queue, Statistics("m", "1"), pace) as own:
        try:
            yield own
        finally:
            own.close()  # before anything goes on: a worker that is let go takes whatever waits
            for session in sessions:
                session.permits.release(100)


def counts(own) -> dict[str, int]:
    stats = own.statistics.snapshot().inference_stats
    return {"success": stats.success.count, "fail": stats.fail.count, "queue": stats.queue.count}


async def test_a_small_model_runs_in_the_event_loop() -> None:
    session = StandIn()
    async with batcher(session, pace=Pace(seconds=20e-6, size=4)) as own:
        assert (await own.run(call(3)))[0][0, 0] == 6
        with pytest.raises(MeshError, match="Thirteen"):
            await own.run(call(13))
        large = Call(inputs={"x": np.ones((6, 1), np.float32)}, outputs=("y",), items=6)
        await own.run(large)
        assert [thread is threading.current_thread() for thread in session.threads] == [True, True, False]
        assert counts(own) == {"success": 2, "fail": 1, "queue": 2}
        with pytest.raises(DeadlineExceeded):
            await own.run(call(1, deadline=0.0))
    with pytest.raises(Unavailable):
        await own.run(call(1))


@pytest.mark.parametrize(("microseconds", "leaves"), [(20, False), (1400, True)])
def test_a_model_that_became_slow_leaves_the_event_loop_for_a_while(microseconds, leaves) -> None:
    here = Here(StandIn(), seconds=20e-6, size=4)
    here.note(50_000_000, 1)  # a single run that the kernel interrupted is no reason
    assert here.takes(call(1))
    taken = []
    for _ in range(3000):
        taken.append(here.takes(call(1)))
        if taken[-1]:
            here.note(microseconds * 1000, 1)
    assert all(taken) != leaves
    if leaves:
        assert 1000 <= taken.count(False) < 3000


async def test_a_large_model_has_no_place_in_the_event_loop() -> None:
    assert Pace(seconds=1e-3, size=4).here(StandIn()) is None
    assert Pace().here(StandIn()) is None


async def test_a_request_that_is_alone_gets_all_cores_and_company_ends_that() -> None:
    narrow, wide = StandIn(permits=0), StandIn(permits=0)
    async with batcher(narrow, narrow, pace=Pace(seconds=1, wide=wide)) as own, asyncio.TaskGroup() as tasks:
        await until(lambda: own._queue.is_quiet(3))  # both workers are there and idle
        tasks.create_task(own.run(call(1)))
        await wide.runs()
        tasks.create_task(own.run(call(2)))
        await narrow.runs()
        wide.permits.release(10)
        narrow.permits.release(10)
    assert (wide.batches, narrow.batches) == ([[1]], [[2]])


def _note(done: list[int], number: int, _task: object) -> None:
    done.append(number)


async def test_answers_keep_the_order_of_their_requests_where_that_is_asked() -> None:
    slow, done = StandIn(permits=0), list[int]()
    policy = BatchPolicy(in_order=True)
    async with batcher(slow, slow, policy=policy) as own, asyncio.TaskGroup() as tasks:
        for number in range(4):
            task = tasks.create_task(own.run(call(number)))
            task.add_done_callback(partial(_note, done, number))
        await slow.runs()
        await slow.runs()
        slow.permits.release(10)
    assert done == [0, 1, 2, 3]


async def test_who_leaves_holds_no_answer_back_that_comes_after_it() -> None:
    session = StandIn(permits=0)
    async with batcher(session, policy=BatchPolicy(in_order=True)) as own:
        tasks = [asyncio.create_task(own.run(call(number))) for number in range(3)]
        await session.runs()
        tasks[0].cancel()  # it runs
        tasks[1].cancel()  # it waits
        await asyncio.wait(tasks[:2])
        session.permits.release(10)
        assert (await tasks[2])[0][0, 0] == 4
        assert session.batches == [[0], [2]]


async def test_urgent_requests_run_first_and_late_ones_as_their_policy_says() -> None:
    session = StandIn(permits=0)
    levels = (LevelPolicy(), LevelPolicy(timeout=1, delays=True), LevelPolicy(timeout=1))
    async with batcher(session, policy=BatchPolicy(levels=levels, default_level=2)) as own:
        tasks = [asyncio.create_task(own.run(call(0)))]
        await session.runs()
        tasks += [asyncio.create_task(own.run(call(n, priority=n))) for n in (3, 2, 1)]
        with pytest.raises(DeadlineExceeded, match="in the queue of model m/1"):
            await tasks[1]
        session.permits.release(10)
        await asyncio.wait(tasks)
        assert session.batches == [[0], [1], [2]]
        assert own.statistics.drops() == {"cancelled": 0, "expired": 1, "refused": 0}


async def test_a_request_waits_for_company_where_the_model_is_configured_so() -> None:
    session = StandIn()
    policy = BatchPolicy(most_items=4, aim=2, preferred=frozenset({2}), delay=3_600_000_000_000)
    async with batcher(session, policy=policy) as own:
        await asyncio.gather(own.run(call(1)), own.run(call(2)))
        assert session.batches == [[1, 2]]
        assert own.statistics.snapshot().execution_count == 1


async def test_one_bad_request_fails_alone_and_all_are_counted() -> None:
    session = StandIn(permits=0)
    async with batcher(session, room=3) as own:
        first = asyncio.create_task(own.run(call(0)))
        await session.runs()
        rest = [asyncio.create_task(own.run(call(n))) for n in (1, 13, 2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as raised:
            await own.run(call(4))
        assert raised.value.retry_after
        session.permits.release(100)
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        assert [isinstance(outcome, MeshError) for outcome in outcomes] == [False, False, True, False]
        assert counts(own) == {"success": 3, "fail": 2, "queue": 3}
        assert session.batches == [[0], [1, 13, 2], [1], [13], [2]]
        assert own.statistics.waiting() == 0


async def test_unloading_refuses_what_waits_and_finishes_what_runs() -> None:
    session = StandIn(permits=0)
    async with batcher(session) as own:
        runs = asyncio.create_task(own.run(call(1)))
        await session.runs()
        waits = asyncio.create_task(own.run(call(2, deadline=60.0)))
        await asyncio.sleep(0)
    assert (await runs)[0][0, 0] == 2
    with pytest.raises(Unavailable, match="is being unloaded"):
        await waits


async def test_counters_are_metrics_when_somebody_asks() -> None:
    session = StandIn()
    async with batcher(session) as own:
        await asyncio.gather(own.run(call(1)), own.run(call(2)))
        totals = own.statistics.totals()
        assert (totals["requests"], totals["items"], totals["executions"]) == (2, 2, len(session.batches))
        assert totals["compute_infer_seconds"] > 0
        assert own.statistics.labels == {"model": "m", "version": "1"}
