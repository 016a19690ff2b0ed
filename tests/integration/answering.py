"""Answering: a worker with exactly-once output and an upstream that answers every event at once, or when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from connector.core.answers.dead_letter import dead_letter
from connector.core.answers.outgoing import Outgoing
from connector.core.calls.outcome import unanswerable
from connector.core.reason import Reason
from connector.kafka.sink.transactions import Transactions
from tests.integration.clients import started
from tests.integration.stage import Recorder, Stage, Working, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka.structs import ConsumerRecord

    from connector.core.event import Event
    from connector.settings import Settings


def result(event: Event, value: bytes | None = None) -> Outgoing:
    """A result whose value is the coordinates of its event, unless it is given."""
    return Outgoing(event, None, event.source.encode() if value is None else value, [], time.time_ns() // 1_000_000)


class Upstream(Recorder):
    """A recorder that answers what it is given, unless it is to `hold` it, and completes what is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.sink: Transactions
        self.settled: list[int] = []
        """The offsets of answers whose transactions are known to be committed, in that order."""
        self.values: dict[int, bytes] = {}
        """What the answers of some offsets are, when not their coordinates."""

    def deliver(self, events: list[Event]) -> None:
        """Keep events, and answer them."""
        self.events += events
        if not self.hold:
            self.answer(events)

    def answer(self, events: Iterable[Event]) -> None:
        """Hand results to the transactions."""
        self.sink.publish([result(event, self.values.get(event.offset)) for event in events])

    async def drain(self, calls_until: float, published_until: float) -> None:
        """Wait for what is answered, as the pipeline does."""
        self.drains += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, published_until - time.monotonic())):
                await self.sink.flushed()

    def forget(self) -> None:
        """Forget what is answered."""
        self.forgotten += 1
        self.sink.discard()

    def published(self, results: list[Outgoing]) -> None:
        """Complete the events of results."""
        self.settled += [outgoing.event.offset for outgoing in results]
        self.complete([outgoing.event for outgoing in results])

    def buried(self, letters: list[Outgoing]) -> None:
        """Complete the events of dead letters."""
        self.published(letters)

    def result_too_large(self, outgoing: Outgoing, size: int) -> None:
        """Answer with a dead letter."""
        self.bury(outgoing.event, f"{size} bytes")

    def bury(self, event: Event, message: str = "it is bad") -> None:
        """Answer an event with a dead letter."""
        outcome = unanswerable(Reason.TOO_LARGE, message)
        self.sink.bury([dead_letter(event, outcome, now_ms=time.time_ns() // 1_000_000)])


class Answering(Working):
    """A source and transactions at work."""

    def __init__(self, settings: Settings) -> None:
        self.upstream = Upstream()
        super().__init__(settings, self.upstream)
        self._closer = asyncio.create_task(self.transactions.run())

    def committer(self, settings: Settings) -> Transactions:
        """The transactions."""
        self.transactions = self.upstream.sink = Transactions(
            settings, self.membership, self.metrics, self.problems, self.upstream
        )
        return self.transactions

    def producer(self, partition: int = 0) -> AIOKafkaProducer:
        """The producer of the moment of a partition."""
        (found,) = (
            one._producer for one in self.transactions._transactors.values() if one.partition.partition == partition
        )
        assert found is not None
        return found

    async def stop(self) -> None:
        """Leave the group, and end."""
        await super().stop()
        self._closer.cancel()
        await asyncio.wait([self._closer])


def exactly_once(stage: Stage, **kafka: object) -> Settings:
    """Settings of exactly-once output."""
    return stage.settings(**({"delivery": "exactly_once", "transaction_timeout": "10s"} | kafka))


async def answering(stage: Stage, settings: Settings | None = None, *, hold: bool = False) -> Answering:
    """A worker whose partitions have positions that the group knows; it stops with the stage."""
    working = Answering(settings or exactly_once(stage))
    working.upstream.hold = hold
    stage.stack.push_async_callback(working.stop)
    working.transactions.learn(await working.source.find_topics())
    await until(lambda: working.partitions)
    await until(lambda: all(ledger.due is None for ledger in working.source.epochs.ledgers.values()))
    return working


async def committed_records(servers: str, topic: str, partition: int = 0) -> list[ConsumerRecord]:
    """What a reader of committed transactions finds in a partition at this moment."""
    tp, records = TopicPartition(topic, partition), []
    reader = AIOKafkaConsumer(
        bootstrap_servers=servers, isolation_level="read_committed", auto_offset_reset="earliest", fetch_max_wait_ms=20
    )
    async with started(reader) as consumer:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        async with asyncio.timeout(15):
            while await consumer.position(tp) < end:
                for batch in (await consumer.getmany(timeout_ms=20)).values():
                    records += batch
    return records


async def sources(stage: Stage, topic: str | None = None) -> list[str]:
    """The coordinates in the values of committed results, without the name of the input topic."""
    records = await committed_records(stage.servers, topic or stage.output)
    return [(record.value or b"").decode().removeprefix(stage.topic + "/") for record in records]


def each(count: int, partition: int = 0, first: int = 0) -> list[str]:
    """What `sources` gives when every event was answered once, in order."""
    return [f"{partition}/{offset}" for offset in range(first, count)]
