"""KafkaSource: brings the events of our partitions, and ends their epochs in order.

It owns the consumer, which it can replace. Reading paths: `_poll` is the loop; `on_partitions_revoked` and
`on_partitions_assigned` are a rebalance. `Epochs` has the ledgers and is back-pressure, `Positions` finds where they start,
`Commits` commits, `Membership` knows how we stand with the group.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import ConsumerStoppedError, KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from connector.core.event import Event
from connector.errors import SettingsError
from connector.kafka import clients, repairs
from connector.kafka.explanation import explain
from connector.kafka.source.commits import Commits
from connector.kafka.source.epochs import Epochs
from connector.kafka.source.lookup import find_topics
from connector.kafka.source.positions import Positions
from connector.kafka.unreadable import AGAIN, Unreadable
from connector.telemetry.log import traceback_of
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord

    from connector.kafka.source.commits import Committer
    from connector.kafka.source.membership import Membership
    from connector.kafka.source.protocol import Downstream
    from connector.kafka.topic import Topic
    from connector.settings import Settings
    from connector.telemetry.metrics import Metrics
    from connector.telemetry.problems import Problems

_POLL_MS = 200
_POLL_RECORDS = 2000
"""Events taken in one turn, so that the loop is not held for long by many small ones."""
_FAILURES_BEFORE_REPLACEMENT = 5
_RETRY = (0.2, 5.0)
_CLOSING = 2.0
"""Seconds of a drain that publishing and the commit may count on, at most a fifth of it."""


class KafkaSource:
    """The source on aiokafka: it commits what is complete, unless `transactions` do."""

    def __init__(
        self,
        settings: Settings,
        membership: Membership,
        metrics: Metrics,
        problems: Problems,
        downstream: Downstream,
        transactions: Committer | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = settings.kafka
        self._membership = membership
        self._metrics = metrics
        self._problems = problems
        self._downstream = downstream
        self._transactions = transactions
        self._log = structlog.get_logger("connector.source")
        self.epochs = Epochs(settings.buffer)
        """The ledgers of our partitions."""
        self._positions = Positions(
            self._kafka, self.epochs, metrics, problems, self._log, placed=self.gate, transactions=transactions
        )
        self._commits = Commits(self._kafka, self.epochs, membership.lease, metrics, self._log)
        self._ending = asyncio.Lock()
        self._stopping = False

    # -- how it stands -----------------------------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """What it is doing, for a person who must find out why nothing moves."""
        return {**self._membership.state(), **self.epochs.state()}

    @property
    def owes(self) -> bool:
        """Whether there are events to work on."""
        return self.epochs.owe

    @property
    def partitions(self) -> int:
        """How many partitions are ours."""
        return len(self.epochs.ledgers)

    @property
    def unfinished(self) -> int:
        """How many events are delivered and not complete."""
        return sum(ledger.unfinished for ledger in self.epochs.ledgers.values())

    @property
    def bytes(self) -> int:
        """Bytes of the unfinished events, and of their results that wait for the broker."""
        return sum(ledger.bytes for ledger in self.epochs.ledgers.values())

    @property
    def commit_age(self) -> float:
        """Seconds since all that was complete had been committed."""
        return self._commits.age if self._transactions is None else self._transactions.commit_age

    def lag(self) -> dict[int, float]:
        """How many events of each of our partitions are not complete, as far as the broker has told its end."""
        return self.epochs.lag()

    def ages(self) -> dict[int, float]:
        """Seconds since the delivery of each partition's oldest unfinished event."""
        return self.epochs.ages()

    def oldest(self) -> dict[int, float]:
        """The offset of each partition's oldest unfinished event, where there is one."""
        return self.epochs.oldest()

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def find_topics(self) -> dict[str, Topic]:
        """Wait until the topics exist, and describe them."""
        return await find_topics(self._settings, self._problems)

    async def run(self) -> None:
        """Bring events until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._membership.watch())
            tasks.create_task(self._consume())

    async def _consume(self) -> None:
        """Poll, commit and watch, and replace the consumer when it is spoilt."""
        wait, longest = _RETRY
        while not self._stopping:
            try:
                consumer = await self._start()
                wait = _RETRY[0]
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._poll(consumer))
                    tasks.create_task(self._commits.run())
                    tasks.create_task(self._positions.watch(consumer))
            except* (SettingsError, KafkaError, OSError, TimeoutError) as errors:
                self._problems.set(
                    Problem.CONSUMER_FAILED, servers=self._kafka.bootstrap_servers, error=explain(_first(errors))
                )
            except* Exception as errors:  # noqa: BLE001 - whatever it was, another consumer goes on
                self._log.error(LogEvent.SOURCE_FAILED, exception=traceback_of(_first(errors)))
                self._problems.set(Problem.CONSUMER_BROKE, error=type(_first(errors)).__name__)
            await self._close_consumer(limit=self._kafka.request_timeout)
            await asyncio.sleep(wait)
            wait = min(2 * wait, longest)

    async def _start(self) -> AIOKafkaConsumer:
        found = await self.find_topics()
        self._positions.expect(found[self._kafka.input_topic].id)
        consumer = clients.consumer(self._settings)
        self.epochs.use(consumer)
        async with asyncio.timeout(2 * self._kafka.request_timeout):
            await consumer.start()
        repairs.keep_poll_detection(consumer)
        self._membership.begin(consumer)
        consumer.subscribe([self._kafka.input_topic], listener=_Listener(self))
        return consumer

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Take what has been fetched, turn by turn; paused or not, so that the membership stays alive."""
        failures, batches = 0, Unreadable()
        while True:
            started = time.monotonic()
            if repairs.heartbeat_died(consumer):
                raise KafkaError("the heartbeat of the membership has ended")
            try:
                # Never under a time limit of ours: a cancelled getmany may leave what it took undelivered.
                fetched = await consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
            except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
                self._positions.hold_back(_partitions_of(error))
                continue
            except ConsumerStoppedError:
                return
            except KafkaError as error:
                failures += 1
                self._problems.set(Problem.FETCH_FAILS, topic=self._kafka.input_topic, error=explain(error))
                if failures >= _FAILURES_BEFORE_REPLACEMENT or repairs.heartbeat_died(consumer):
                    raise
                await asyncio.sleep(_RETRY[0] * 2**failures)
                continue
            self._metrics.polling.add(time.monotonic() - started)
            if failures:
                failures = 0
                self._problems.clear(Problem.FETCH_FAILS)
            if (places := batches.look(consumer, time.monotonic())) is None:
                self._problems.clear(Problem.UNREADABLE_BATCH)
            else:
                self._problems.set(Problem.UNREADABLE_BATCH, places=places, seconds=AGAIN)
            self._deliver(consumer, fetched)
            self.gate()
            # getmany does not give way to other tasks while it has something to give.
            await asyncio.sleep(0)

    def _deliver(self, consumer: AIOKafkaConsumer, fetched: Mapping[TopicPartition, list[ConsumerRecord]]) -> None:
        """Deliver what was fetched; no await stands between `getmany` and here."""
        now = time.monotonic()
        for tp, records in fetched.items():
            ledger = self.epochs.ledgers.get(tp)
            if ledger is None:
                # Fetched before our listener ran: never dropped, read again once the epoch has begun.
                consumer.pause(tp)
                consumer.seek(tp, records[0].offset)
                continue
            events, skipped = [], ledger.skipped
            for record in records:
                key, value, headers = record.key, record.value, record.headers
                size = (len(key) if key else 0) + (len(value) if value else 0)
                for name, data in headers:
                    size += len(name) + (len(data) if data else 0)
                event = Event(ledger, record.offset, key, value, headers, record.timestamp, now, size)
                if ledger.deliver(event):
                    events.append(event)
            if ledger.skipped > skipped:
                self._metrics.skipped.inc(ledger.skipped - skipped)
            if events:
                self._metrics.events.inc(len(events))
                self._downstream.deliver(events)

    def gate(self) -> None:
        """Pause what must not be fetched at present, and resume what may be."""
        downstream = self._downstream
        self.epochs.gate(
            consuming=downstream.consuming, growth=downstream.growth, unreadable=self._positions.unreadable
        )

    # -- a rebalance -------------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give our partitions up: finish what is being called, publish and commit it; nothing of it when they are lost."""
        # While this runs the group takes us for the owner, and its other members wait. When it returns aiokafka joins, and
        # the partitions are anybody's. What of ours goes out after that is about another's partition:
        #   1. The coordinator is loading and refuses our commit of 70; aiokafka keeps it, to try again.
        #   2. We return, and join generation 8. The partition is B's, which works on and commits 100.
        #   3. The commit goes out with the generation of that moment, 8. The broker compares generations, not owners: 70.
        # So the commit under way ends before anything else here, the last one is made while we are still the owner, and
        # none is allowed until the next assignment.
        # A generation below 0 says that the group did not wait: it has kicked us out, and B is at work. Whatever we drained
        # would be published twice, and a commit would carry the generation -1, which an empty group takes: B, done with
        # 5,000 events, has left, and our 630 is where the next one begins.
        # A stop may be draining already: `_ending` makes whoever comes second find no epochs. And they end whatever happens,
        # since aiokafka would swallow an exception and join, while our calls went on and their results were published.
        consumer = self.epochs.consumer
        lost = consumer is not None and repairs.generation(consumer) < 0
        if self.epochs.ledgers:
            self._log.info(
                LogEvent.PARTITIONS_LOST if lost else LogEvent.PARTITIONS_REVOKED, partitions=len(self.epochs.ledgers)
            )
        try:
            await self._end_epochs(self._kafka.revoke_drain, lost=lost)
        except Exception:  # noqa: BLE001 - aiokafka would swallow it, and go on
            self._log.exception(LogEvent.REBALANCE_FAILED)
        finally:
            self._drop_epochs()

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Begin an epoch for each partition: ledger, pause and a placeholder position before the first await."""
        self._drop_epochs()
        if self._stopping:
            return
        self.epochs.begin(assigned)
        self._membership.joined()
        self._problems.clear(Problem.CONSUMER_FAILED)
        self._problems.clear(Problem.CONSUMER_BROKE)
        self._problems.clear(Problem.FETCH_FAILS)
        if self._transactions is None:
            self._commits.allow()
        self._log.info(LogEvent.PARTITIONS_ASSIGNED, partitions=len(self.epochs.ledgers))
        finding = self._positions.find()
        # No heartbeat is sent while this listener runs, so it may take a part of the session only.
        await asyncio.wait([finding], timeout=self._kafka.session_timeout / 4)

    def _drop_epochs(self) -> None:
        self._positions.forget()
        if self.epochs.ledgers:
            self.epochs.drop()
            self._downstream.forget()

    async def _end_epochs(self, drain: float, *, lost: bool = False) -> None:
        """End every epoch within `drain` seconds."""
        async with self._ending:
            may_commit = await self._commits.end()
            if self.epochs.ledgers and not lost:
                end = time.monotonic() + drain
                closing = min(_CLOSING, drain / 5)
                await self._downstream.drain(end - closing, end - closing / 2)
                if may_commit:
                    await self._commits.commit(max(0.1, end - time.monotonic()))
                    if left := self._commits.uncommitted:
                        self._log.warning(LogEvent.LEFT_UNCOMMITTED, events=left)
            self._drop_epochs()

    # -- the end -----------------------------------------------------------------------------------------------------

    async def stop(self, drain: float, limit: float) -> None:
        """End every epoch within `drain` seconds, then leave the group within `limit` more."""
        self._stopping = True
        self._positions.stop()
        await self._end_epochs(drain)
        await self._close_consumer(limit)

    async def _close_consumer(self, limit: float) -> None:
        consumer, self.epochs.consumer = self.epochs.consumer, None
        self._membership.end()
        self._commits.cancel()
        self._drop_epochs()
        if consumer is not None:
            await repairs.stop_consumer(consumer, limit)


class _Listener(ConsumerRebalanceListener):
    """What aiokafka calls in a rebalance; apart, because its class has no types, and nothing that inherits it is checked."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._source.on_partitions_revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        await self._source.on_partitions_assigned(assigned)


def _partitions_of(error: KafkaError) -> list[TopicPartition]:
    """The partitions that an error of `getmany` is about."""
    about = error.args[0]
    return list(about) if isinstance(about, Mapping) else [about]


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first exception of a group of groups."""
    error: Exception | BaseExceptionGroup[Exception] = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
