"""Any order of what producers, subscribers and replicas do keeps the promises.

These are: order, no loss of what was acknowledged, no repetition, and gaps only where something was dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from mediamesh.api.stream.v1.stream_pb2 import StreamEvent, StreamGap, StreamGoAway
from mediamesh.api.stream.v1.stream_service_pb2 import CloseStreamRequest, OpenStreamResponse, SubscribeRequest
from mediamesh.streams.broker import Broker
from mediamesh.streams.events import Batch
from mediamesh.streams.log.memory import Memory
from mediamesh.wire.errors import FailedPrecondition, OutOfRange, Overloaded
from tests.streams.producing import DATA, END, broker_over, data, end, opened_stream, opening_of

pytestmark = pytest.mark.stack

_ENOUGH_SECONDS = 20
POLICIES = ("block", "drop_oldest", "drop_newest", "disconnect")


@dataclass
class Producer:
    """A producer as the test knows it."""

    name: str
    epoch: int
    publication: Any
    stack: AsyncExitStack
    replica: int
    blocked: bool = False
    over: bool = False


@dataclass
class Model:
    """A stream as it must be."""

    opened: OpenStreamResponse
    policy: str
    max_items: int
    texts: dict[int, str] = field(default_factory=dict)
    sent: int = 0
    acked: int = 0
    dropped: set[int] = field(default_factory=set)
    unstored: list[str] = field(default_factory=list)
    ended: int = 0
    closed: bool = False
    producer: Producer | None = None
    producers: int = 0
    readers: int = 0

    @property
    def certain(self) -> int:
        """The newest sequence that every reader must get to see."""
        kept = [sequence for sequence in range(1, self.acked + 1) if sequence not in self.dropped]
        return kept[-1] if kept else 0


@dataclass
class Subscriber:
    """A subscriber as the test knows it."""

    name: str
    model: Model
    subscription: Any
    stack: AsyncExitStack
    replica: int
    position: int
    began: int
    over: bool = False


class Brokers(RuleBasedStateMachine):
    """Two replicas over one store, and a model of what they hold."""

    models = Bundle("models")
    subscribers = Bundle("subscribers")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.memory = self.run(self._memory())
        self.hosts: list[tuple[Broker, asyncio.Event, asyncio.Task[None]]] = [self.run(self._host(n)) for n in (0, 1)]
        self.all_models: list[Model] = []
        self.all_subscribers: list[Subscriber] = []

    def run(self, coroutine):
        async def bounded():
            async with asyncio.timeout(_ENOUGH_SECONDS):
                return await coroutine

        return self.runner.run(bounded())

    async def _memory(self):
        return Memory()

    async def _host(self, number):
        running = asyncio.get_running_loop().create_future()
        stop = asyncio.Event()

        async def host():
            # Places are kept for longer than the test takes: no reader of a stream that blocks may lose anything.
            own = broker_over(self.memory, replica=f"replica {number}", ack_seconds=0, resume_seconds=600)
            async with own as broker:
                running.set_result(broker)
                await stop.wait()

        task = asyncio.create_task(host())
        return await running, stop, task

    def broker(self, replica):
        return self.hosts[replica][0]

    # What producers do.

    @rule(target=models, policy=st.sampled_from(POLICIES), max_items=st.integers(16, 24), replica=st.integers(0, 1))
    @precondition(lambda self: len(self.all_models) < 3)
    def open(self, policy, max_items, replica):
        opened = self.run(opened_stream(self.broker(replica), overflow=policy, max_items=max_items))
        self.all_models.append(model := Model(opened, policy, max_items))
        self.take_over(model, replica)
        return model

    @rule(model=models, replica=st.integers(0, 1))
    def another_producer(self, model, replica):
        self.take_over(model, replica)

    def take_over(self, model, replica):
        """Let a new producer go on where the store says that the one before got to."""
        model.producers += 1
        self.run(self._connect(model, f"producer {model.producers}", 0, replica))

    @rule(model=models, replica=st.integers(0, 1))
    @precondition(lambda self: any(model.producer for model in self.all_models))
    def come_back(self, model, replica):
        """Let the producer lose its connection, and send again elsewhere what was not acknowledged."""
        if (producer := model.producer) is None:
            return
        self.run(producer.stack.aclose())
        self.run(self._connect(model, producer.name, producer.epoch, replica, again=True))

    async def _connect(self, model, name, epoch, replica, *, again=False):
        stack = AsyncExitStack()
        opening = opening_of(model.opened, name, epoch)
        try:
            publication = await stack.enter_async_context(self.broker(replica).publish(opening))
        except FailedPrecondition:
            assert model.ended or model.closed
            model.producer = None
            return
        opened = publication.opened
        if model.closed:
            await self._goes_on_in_vain(model, publication)
            await stack.aclose()
            model.producer = None
            return
        assert model.acked <= opened.last_sequence <= model.sent
        if model.producer is not None and not again:
            await self._is_shut_out(model, model.producer)
        model.producer = Producer(name, opened.epoch, publication, stack, replica)
        resend = [model.texts[sequence] for sequence in range(opened.last_sequence + 1, model.sent + 1)]
        if not again:
            # What the one before sent and nobody stored never was.
            model.sent = opened.last_sequence
            model.texts = {sequence: text for sequence, text in model.texts.items() if sequence <= model.sent}
            resend = []
        model.acked = max(model.acked, min(opened.last_sequence, model.sent))
        if model.policy == "drop_newest":
            await self._learn_drops(model)
        if resend:
            model.sent = opened.last_sequence
            await self._send(model, resend)

    async def _goes_on_in_vain(self, model, publication):
        """Send what was on its way when somebody closed the stream: it must not be taken for stored, but be refused."""
        assert publication.opened.last_sequence == model.sent - 1
        with pytest.raises(FailedPrecondition) if model.unstored else contextlib.nullcontext():
            await publication.put([data(model.sent + number, text) for number, text in enumerate(model.unstored)])

    async def _learn_drops(self, model):
        # A notice may have been on its way when the connection broke: the log says which events are kept.
        kept = self.memory.logs[model.opened.stream_id].entries
        model.dropped |= {sequence for sequence in range(1, model.acked + 1) if sequence not in kept}

    async def _is_shut_out(self, model, old):
        if model.ended or model.closed:
            await old.stack.aclose()
            return
        newest = old.publication.opened.last_sequence
        with pytest.raises(FailedPrecondition) as raised:
            await old.publication.put([data(max(model.sent, newest) + 1, "zombie")])
            async for response in old.publication:
                assert not response.ack.sequence > model.sent
        assert "epoch" in raised.value.metadata
        await old.stack.aclose()

    @rule(model=models, count=st.integers(1, 30))
    def publish(self, model, count):
        """Send events."""
        if model.producer and not model.producer.over and not model.ended and not model.closed:
            self.run(self._send(model, [f"{model.producer.name}: {model.sent + n}" for n in range(1, count + 1)]))

    async def _send(self, model, texts):
        producer = model.producer
        events = []
        for text in texts:
            model.sent += 1
            model.texts[model.sent] = text
            events.append(end(model.sent) if text == "the end" else data(model.sent, text))
            if text == "the end":
                model.ended = model.sent
        if producer.blocked:
            # It has as much under way already as it may; what it sends waits in the pipe.
            await producer.publication.put(events)
            return
        await producer.publication.put(events)
        await self._hear(model)

    async def _hear(self, model, *, patient=False):
        """Listen until everything is acknowledged, or the producer is held."""
        producer = model.producer
        while model.acked < model.sent:
            response = await anext(producer.publication)
            if response.HasField("ack"):
                assert model.acked <= response.ack.sequence <= model.sent
                model.acked = response.ack.sequence
            elif response.HasField("notice"):
                gap = response.notice.dropped
                if response.notice.HasField("dropped"):
                    assert model.policy == "drop_newest"
                    model.dropped |= set(range(gap.first_sequence, gap.last_sequence + 1))
                if response.notice.blocked:
                    assert model.policy == "block"
                    producer.blocked = True
                    if not patient:
                        return
        producer.blocked = False

    @rule(model=models)
    def let_go_on(self, model):
        """Let all read what there is, so that a producer that is held may go on."""
        if model.producer is None or not model.producer.blocked:
            return

        async def go_on():
            for subscriber in self.all_subscribers:
                while subscriber.model is model and not subscriber.over and self._has_more(subscriber):
                    await self._take(subscriber)
            # It may be held by the place of one that left, too.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._hear(model, patient=True)

        self.run(go_on())

    @rule(model=models, back=st.integers(1, 5))
    def repeat(self, model, back):
        """Send events again that are acknowledged: they are acknowledged again, and are not there twice."""
        producer = model.producer
        if producer is None or producer.blocked or model.ended or model.closed or not model.acked:
            return

        async def again():
            first = max(1, model.acked - back)
            await producer.publication.put([data(n, model.texts[n]) for n in range(first, model.acked + 1)])
            assert (await anext(producer.publication)).ack.sequence == model.acked

        self.run(again())

    @rule(model=models, ahead=st.integers(2, 5))
    def skip(self, model, ahead):
        """Send an event whose predecessors are missing."""
        if model.producer is None or model.ended or model.closed:
            return
        with pytest.raises(OutOfRange) as raised:
            self.run(model.producer.publication.put([data(model.sent + ahead)]))
        assert raised.value.metadata["next_sequence"] == str(model.sent + 1)

    @rule(model=models, really=st.integers(0, 3))
    def end(self, model, really):
        if really == 3 and model.producer and not model.producer.blocked and not model.ended and not model.closed:
            self.run(self._send(model, ["the end"]))

    @rule(model=models, replica=st.integers(0, 1), really=st.integers(0, 3))
    def close(self, model, replica, really):
        if really != 3:
            return
        stream = self.run(self.broker(replica).close(CloseStreamRequest(stream_id=model.opened.stream_id)))
        if not model.ended and not model.closed:
            # What was under way may have been stored before, and is not acknowledged any more.
            assert model.acked < stream.last_sequence <= model.sent + 1
            model.closed = True
            model.unstored = [model.texts[late] for late in range(stream.last_sequence, model.sent + 1)]
            model.sent = model.acked = stream.last_sequence
            self.run(self._learn_drops(model))

    # What subscribers do.

    @rule(target=subscribers, model=models, replica=st.integers(0, 1), part=st.floats(0, 1), allow_gap=st.booleans())
    def subscribe(self, model, replica, part, allow_gap):
        model.readers += 1
        after = round(part * model.acked)
        return self.run(self._subscribe(f"reader {model.readers}", model, replica, after, allow_gap=allow_gap))

    async def _subscribe(self, name, model, replica, after, *, allow_gap):
        stack = AsyncExitStack()
        request = SubscribeRequest(
            stream_id=model.opened.stream_id, subscriber_id=name, after_sequence=after, allow_gap=allow_gap
        )
        began = after
        try:
            subscription = await stack.enter_async_context(self.broker(replica).subscribe(request))
        except OutOfRange as error:
            first = int(error.metadata["first_sequence"])
            assert not allow_gap
            assert after + 1 < first
            request.after_sequence = began = after = first - 1
            subscription = await stack.enter_async_context(self.broker(replica).subscribe(request))
        subscriber = Subscriber(name, model, subscription, stack, replica, after, began)
        self.all_subscribers.append(subscriber)
        return subscriber

    @rule(subscriber=subscribers, count=st.integers(1, 10))
    def read(self, subscriber, count):
        for _ in range(count):
            if subscriber.over or not self._has_more(subscriber):
                return
            self.run(self._take(subscriber))

    def _has_more(self, subscriber):
        model = subscriber.model
        return subscriber.position < model.certain or ((model.ended or model.closed) and model.acked == model.sent)

    async def _take(self, subscriber):
        model = subscriber.model
        try:
            delivery = await anext(subscriber.subscription)
        except StopAsyncIteration:
            assert model.ended or model.closed
            assert subscriber.position == model.sent
            await self._over(subscriber)
            return
        except Overloaded as error:
            refused = (model.policy, error.metadata["sequence"])
            assert refused == ("disconnect", str(subscriber.position))
            await self._over(subscriber)
            return
        if isinstance(delivery, Batch):
            for event in delivery.events:
                assert event.sequence == subscriber.position + 1
                self._is_what_was_published(model, StreamEvent.FromString(event.data))
                subscriber.position = event.sequence
        else:
            assert isinstance(delivery, StreamGap)
            assert delivery.first_sequence == subscriber.position + 1
            self._is_honest(subscriber, delivery)
            subscriber.position = delivery.last_sequence

    def _is_what_was_published(self, model, event):
        if event.event_type == DATA:
            assert event.payload.data.content.text == model.texts[event.sequence]
        elif model.ended:
            assert (event.event_type, event.sequence) == (END, model.ended)
        else:
            assert (model.closed, event.sequence) == (True, model.sent)

    def _is_honest(self, subscriber, gap):
        model = subscriber.model
        lost = set(range(gap.first_sequence, gap.last_sequence + 1))
        trimmed = model.sent - model.max_items + 1
        if model.policy == "drop_newest":
            lost -= model.dropped
        if model.policy in {"block", "drop_newest"}:
            # Its place counts from where it came in; what had gone before may be missing.
            assert not lost or subscriber.position == subscriber.began
        else:
            assert max(lost) <= trimmed

    async def _over(self, subscriber):
        subscriber.over = True
        await subscriber.stack.aclose()

    @rule(target=subscribers, subscriber=consumes(subscribers), replica=st.integers(0, 1))
    def move(self, subscriber, replica):
        """Let a subscriber lose its connection, and go on elsewhere."""
        if subscriber.over:
            return subscriber
        self.run(subscriber.stack.aclose())
        subscriber.over = True
        moved = self._subscribe(subscriber.name, subscriber.model, replica, subscriber.position, allow_gap=True)
        return self.run(moved)

    # What replicas do.

    @rule(replica=st.integers(0, 1))
    def drain(self, replica):
        """Stop a replica as SIGTERM does, and start another in its place."""

        async def leave():
            broker, stop, task = self.hosts[replica]
            broker.leave()
            for subscriber in self.all_subscribers:
                if subscriber.replica == replica and not subscriber.over:
                    await self._until_sent_away(subscriber)
            for model in self.all_models:
                if model.producer and model.producer.replica == replica:
                    await self._producer_sent_away(model)
            stop.set()
            await task
            self.hosts[replica] = await self._host(replica)

        self.run(leave())
        self._go_on_elsewhere(replica)

    @rule(replica=st.integers(0, 1))
    def kill(self, replica):
        """Stop a replica at once, and start another in its place."""

        async def die():
            for subscriber in self.all_subscribers:
                if subscriber.replica == replica and not subscriber.over:
                    await subscriber.stack.aclose()
            for model in self.all_models:
                if model.producer and model.producer.replica == replica:
                    await model.producer.stack.aclose()
            _, stop, task = self.hosts[replica]
            stop.set()
            await task
            self.hosts[replica] = await self._host(replica)

        self.run(die())
        self._go_on_elsewhere(replica)

    async def _until_sent_away(self, subscriber):
        held = True
        while held:
            try:
                delivery = await anext(subscriber.subscription)
            except StopAsyncIteration:
                break
            if isinstance(delivery, StreamGoAway):
                assert delivery.resume_token == str(subscriber.position)
                held = False
            else:
                # A batch that a gap went before.
                assert isinstance(delivery, Batch)
                subscriber.position = delivery.events[-1].sequence
        await subscriber.stack.aclose()

    async def _producer_sent_away(self, model):
        try:
            async for response in model.producer.publication:
                if response.HasField("ack"):
                    model.acked = max(model.acked, response.ack.sequence)
                gap = response.notice.dropped
                model.dropped |= set(range(gap.first_sequence or 1, gap.last_sequence + 1))
        except FailedPrecondition:
            assert model.closed
        await model.producer.stack.aclose()

    def _go_on_elsewhere(self, replica):
        for model in self.all_models:
            if model.producer and model.producer.replica == replica:
                producer = model.producer
                self.run(self._connect(model, producer.name, producer.epoch, 1 - replica, again=True))
        for subscriber in self.all_subscribers:
            if subscriber.replica == replica and not subscriber.over:
                again = self.run(
                    self._subscribe(subscriber.name, subscriber.model, 1 - replica, subscriber.position, allow_gap=True)
                )
                assert again is not None
                self.all_subscribers.remove(again)
                vars(subscriber).update(vars(again))

    @invariant()
    def tails_are_those_of_subscribers(self):
        for replica in (0, 1):
            read = {
                subscriber.model.opened.stream_id
                for subscriber in self.all_subscribers
                if subscriber.replica == replica and not subscriber.over
            }
            assert set(self.broker(replica)._hub.tails) == read

    def teardown(self):
        try:
            self.run(self._read_all_to_the_end())
        finally:
            for _, stop, _task in self.hosts:
                stop.set()
            self.run(asyncio.wait([task for _, _, task in self.hosts]))
            self.runner.close()

    async def _read_all_to_the_end(self):
        for model in self.all_models:
            if model.producer is not None:
                await model.producer.stack.aclose()
            stream = await self.broker(0).close(CloseStreamRequest(stream_id=model.opened.stream_id))
            if not model.ended and not model.closed:
                model.closed = True
                model.sent = model.acked = stream.last_sequence
            model.acked = model.sent
            await self._learn_drops(model) if model.policy == "drop_newest" else None
            for replica in (0, 1):
                await self._subscribe(f"last {replica}", model, replica, 0, allow_gap=True)
        for subscriber in self.all_subscribers:
            while not subscriber.over:
                await self._take(subscriber)


Brokers.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_any_order_of_operations_keeps_the_promises = Brokers.TestCase
