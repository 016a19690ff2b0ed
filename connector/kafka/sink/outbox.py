"""Outbox: what waits for one topic, published in order by a producer that is replaced when it is spoilt."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from connector.errors import ConnectorError
from connector.kafka import repairs
from connector.kafka.explanation import explain
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from connector.core.answers.outgoing import Outgoing
    from connector.core.epochs.lease import Lease
    from connector.kafka.sink.output_topic import OutputTopic
    from connector.telemetry.metrics import Stopwatch
    from connector.telemetry.problems import Problems


class ProducerFactory(Protocol):
    """Makes a producer that is not started."""

    def __call__(self, *, max_batch_size: int) -> AIOKafkaProducer:
        """A producer whose batches hold at most `max_batch_size` bytes."""
        ...


_BACKOFF = (0.1, 5.0)


class _Withdrawn(Exception):
    """What was in flight must not be published any more."""


class Outbox:
    """What waits for one topic: per output partition one batch in flight, and behind it all that has come since.

    A producer is idempotent, and any failed send spoils it: it is replaced, and whatever the broker has not acknowledged
    is sent again in the same order. `acknowledged` is called with what the broker has, in order; `busy` runs while
    anything is pending. Nothing is sent while the `lease` does not hold.
    """

    def __init__(
        self,
        topic: OutputTopic,
        producer: ProducerFactory,
        *,
        acknowledged: Callable[[list[Outgoing]], None],
        lease: Lease,
        busy: Stopwatch,
        problems: Problems,
        log: FilteringBoundLogger,
        start_limit: float = 30.0,
        stop_limit: float = 5.0,
    ) -> None:
        self.topic = topic
        self._make = producer
        self._acknowledged = acknowledged
        self._lease = lease
        self._busy = busy
        self._problems = problems
        self._log = log
        self._start_limit = start_limit
        self._stop_limit = stop_limit
        self._inbox: deque[Outgoing] = deque()
        self._queues: dict[int, deque[Outgoing]] = {}
        self._in_flight: dict[int, list[Outgoing]] = {}
        self._pending = 0
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._failure: BaseException | None = None

    @property
    def pending(self) -> int:
        """How many results or dead letters the broker has not acknowledged."""
        return self._pending

    def append(self, outgoings: Iterable[Outgoing]) -> None:
        """Queue results or dead letters; their order is kept for each key."""
        before = len(self._inbox)
        self._inbox.extend(outgoings)
        added = len(self._inbox) - before
        if added:
            self._count(self._pending + added)
            self._wake.set()

    def discard(self) -> None:
        """Forget what is queued and not in flight; without a lease also what is in flight, and withdraw it."""
        self._inbox.clear()
        for queue in self._queues.values():
            queue.clear()
        if self._in_flight and not self._lease.holds(time.monotonic()):
            self._in_flight.clear()
            self._failure = self._failure or _Withdrawn()
            self._wake.set()
        self._count(sum(map(len, self._in_flight.values())))

    async def flushed(self) -> None:
        """Wait until the broker has acknowledged everything."""
        await self._empty.wait()

    async def run(self) -> None:
        """Publish until cancelled."""
        backoff, longest = _BACKOFF
        while True:
            producer, spoilt = None, False
            try:
                producer = self._make(max_batch_size=self.topic.max_batch_bytes)
                async with asyncio.timeout(self._start_limit):
                    await producer.start()
                if not self._pending:
                    self._problems.clear(Problem.PUBLISH_FAILS, self.topic.name)
                await self._publish(producer)
            except _Withdrawn:
                spoilt = True
            except (ConnectorError, KafkaError, OSError, TimeoutError) as error:
                spoilt = True
                name = self.topic.name
                if self._problems.set(Problem.PUBLISH_FAILS, name, topic=name, error=explain(error)):
                    self._log.warning(LogEvent.PUBLISH_FAILED, topic=name, error=repr(error), pending=self._pending)
                if isinstance(error, MessageSizeTooLargeError):
                    backoff = _BACKOFF[0]  # the next try is another one
            finally:
                if producer is not None:
                    await self._give_up(producer, spoilt=spoilt or bool(self._in_flight))
            await asyncio.sleep(backoff)
            failing = self._problems.holds(Problem.PUBLISH_FAILS, self.topic.name)
            backoff = min(2 * backoff, longest) if failing else _BACKOFF[0]

    async def _publish(self, producer: AIOKafkaProducer) -> None:
        """Send what is queued, one batch in flight for each output partition; raises the error of the first failed send."""
        while True:
            self._wake.clear()
            if self._inbox:
                self._distribute(len(await producer.partitions_for(self.topic.name)))
            for partition, queue in list(self._queues.items()):
                if queue and partition not in self._in_flight:
                    await self._send(producer, partition, queue)
            await self._wake.wait()
            if self._failure is not None:
                await self._settle()
                failure, self._failure = self._failure, None
                raise failure

    def _distribute(self, partitions: int) -> None:
        """Move what is in the inbox to the queues of its partitions."""
        inbox, fitting = self._inbox, []
        while inbox:
            outgoing = self.topic.fitting(inbox.popleft())
            if outgoing is None:
                self._count(self._pending - 1)
            else:
                fitting.append(outgoing)
        self.topic.distribute(fitting, partitions, self._queues)

    async def _send(self, producer: AIOKafkaProducer, partition: int, queue: deque[Outgoing]) -> None:
        batch, sent = self.topic.batch(producer, queue)
        self._in_flight[partition] = sent
        future = await producer.send_batch(batch, self.topic.name, partition=partition)
        future.add_done_callback(lambda done: self._answered(partition, sent, done))

    def _answered(self, partition: int, sent: list[Outgoing], future: asyncio.Future[object]) -> None:
        if self._in_flight.get(partition) is not sent:
            # The answer of a producer that was given up: what it sent is already queued again.
            if not future.cancelled():
                future.exception()
            return
        error = KafkaError("the send was cancelled") if future.cancelled() else future.exception()
        if error is None:
            del self._in_flight[partition]
            self._problems.clear(Problem.PUBLISH_FAILS, self.topic.name)
            self._count(self._pending - len(sent))
            self._acknowledged(sent)
        else:
            if isinstance(error, MessageSizeTooLargeError):
                self.topic.shrink(sent)
            self._failure = self._failure or error
        self._wake.set()

    async def _settle(self) -> None:
        """Give the other batches in flight a moment, so that fewer are sent twice."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while len(self._in_flight) > 1:
                    self._wake.clear()
                    await self._wake.wait()

    async def _give_up(self, producer: AIOKafkaProducer, *, spoilt: bool) -> None:
        """Queue all that is in flight again, before what came later, then stop the producer, by force if it must be."""
        again: list[Outgoing] = []
        for partition, queue in self._queues.items():
            again += self._in_flight.pop(partition, [])
            again += queue
            queue.clear()
        self._inbox.extendleft(reversed(again))
        if not spoilt:
            try:
                async with asyncio.timeout(self._stop_limit):
                    await producer.stop()
            except (KafkaError, OSError, TimeoutError):
                spoilt = True
        if spoilt:
            await repairs.abandon(producer)

    def _count(self, pending: int) -> None:
        if pending and not self._pending:
            self._busy.start(time.monotonic())
            self._empty.clear()
        elif self._pending and not pending:
            self._busy.stop(time.monotonic())
            self._empty.set()
        self._pending = pending
