"""Sinks: everything that publishes answers, at work on a real broker behind an upstream that keeps what it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from connector.core.answers.dead_letter import dead_letter
from connector.core.answers.outgoing import Outgoing
from connector.core.calls.outcome import unanswerable
from connector.core.epochs.lease import Lease
from connector.core.epochs.ledger import Commit, Ledger
from connector.core.reason import Reason
from connector.kafka import clients, topics
from connector.kafka.sink.sink import OutboxSink
from connector.kafka.sink.transactions import Transactions
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problems
from tests.unit.factories import make_event

if TYPE_CHECKING:
    from aiokafka import TopicPartition

    from connector.core.event import Event
    from connector.kafka.sink.protocol import Sink
    from connector.settings import Settings
    from tests.integration.stage import Stage


class Told:
    """An upstream that keeps what it is told, and answers a result that is too large with a dead letter."""

    def __init__(self) -> None:
        self.sink: Sink
        self.results: list[Outgoing] = []
        """Results that are published, in the order in which that was told."""
        self.letters: list[Outgoing] = []
        """Dead letters that are published, likewise."""
        self.too_large: list[tuple[Outgoing, int]] = []

    def published(self, results: list[Outgoing]) -> None:
        """Keep results, and complete their events."""
        self.results += results
        for outgoing in results:
            outgoing.event.ledger.complete(outgoing.event)

    def buried(self, letters: list[Outgoing]) -> None:
        """Keep dead letters, and complete their events."""
        self.letters += letters
        for outgoing in letters:
            outgoing.event.ledger.complete(outgoing.event)

    def result_too_large(self, result: Outgoing, size: int) -> None:
        """Keep it, and bury its event."""
        self.too_large.append((result, size))
        self.sink.bury([letter(result.event, f"{size} bytes")])


def letter(event: Event, message: str = "it is bad") -> Outgoing:
    """A dead letter of an event."""
    return dead_letter(event, unanswerable(Reason.TOO_LARGE, message), now_ms=time.time_ns() // 1_000_000)


class AtWork:
    """A sink at work for one partition of the input topic, whose events are delivered as they are answered."""

    def __init__(
        self,
        stage: Stage,
        sink: Sink,
        upstream: Told,
        lease: Lease,
        problems: Problems,
        begin: Callable[[Ledger], Awaitable[None]],
    ) -> None:
        self.stage = stage
        self.sink = sink
        self.upstream = upstream
        self.lease = lease
        self._problems = problems
        self.ledger: Ledger
        self._begin = begin
        self._delivered = 0

    @property
    def problem(self) -> str | None:
        """Why nothing can be published at present."""
        return None if self._problems.gravest is None else self._problems.gravest.sentence

    async def begin(self) -> None:
        """Let the partition be ours, in an epoch of its own, after the one that was before."""
        self.ledger = Ledger(self.stage.topic, 0, 1)
        await self._begin(self.ledger)
        self.ledger.place(self._delivered, None)

    def end(self) -> None:
        """Let the partition be given away, as a worker does."""
        self.ledger.drop()
        self.sink.discard()

    def event(self, key: bytes | None = b"key", value: bytes = b"") -> Event:
        """The next event of the partition, delivered."""
        event = make_event(self.ledger, self._delivered, key, payload=value)
        self._delivered += 1
        assert self.ledger.deliver(event)
        return event

    def results(self, values: Iterable[bytes], key: bytes | None = b"key") -> list[Outgoing]:
        """Results of new events of one key."""
        now = time.time_ns() // 1_000_000
        return [Outgoing(self.event(key), key, value, [], now) for value in values]

    def publish(self, *values: bytes, key: bytes | None = b"key") -> list[Outgoing]:
        """Hand results of one key to the sink."""
        outgoings = self.results(values, key)
        self.sink.publish(outgoings)
        return outgoings

    def bury(self, *values: bytes) -> list[Outgoing]:
        """Hand dead letters of events with these values to the sink."""
        letters = [letter(self.event(value=value)) for value in values]
        self.sink.bury(letters)
        return letters


Open = Callable[["Stage", "Settings", Lease], AbstractAsyncContextManager[AtWork]]


@asynccontextmanager
async def _at_work(at_work: AtWork, settings: Settings) -> AsyncIterator[AtWork]:
    sink, kafka = at_work.sink, settings.kafka
    at_work.upstream.sink = sink
    names = [kafka.output_topic, kafka.dead_letter_topic]
    sink.learn(await topics.look_up(clients.common(settings), names, limit=10))
    task = asyncio.create_task(sink.run())
    try:
        await at_work.begin()
        yield at_work
    finally:
        at_work.end()
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def at_least_once(stage: Stage, settings: Settings, lease: Lease) -> AsyncIterator[AtWork]:
    """Results and dead letters through producers of their own."""
    upstream, problems = Told(), Problems()

    async def begin(ledger: Ledger) -> None:
        """It publishes whatever it is given."""

    sink = OutboxSink(settings, lease, Metrics(time.monotonic).publishing, problems, upstream)
    async with _at_work(AtWork(stage, sink, upstream, lease, problems, begin), settings) as at_work:
        yield at_work


class _Group:
    """The place in the group of a worker that nobody takes it from."""

    def __init__(self, stage: Stage, lease: Lease) -> None:
        self.lease = lease
        self._stage = stage

    async def committed(self, partition: TopicPartition) -> Commit | None:
        offset = await self._stage.committed(partition.partition)
        return None if offset is None else Commit(offset)

    def rejoin(self) -> None:
        raise AssertionError("the partition is nobody else's")


@asynccontextmanager
async def exactly_once(stage: Stage, settings: Settings, lease: Lease) -> AsyncIterator[AtWork]:
    """Results and dead letters in transactions."""
    upstream, problems = Told(), Problems()
    sink = Transactions(settings, _Group(stage, lease), Metrics(time.monotonic), problems, upstream)

    async def begin(ledger: Ledger) -> None:
        await sink.open([ledger])

    async with _at_work(AtWork(stage, sink, upstream, lease, problems, begin), settings) as at_work:
        yield at_work


SINKS: dict[str, Open] = {"at least once": at_least_once, "exactly once": exactly_once}
