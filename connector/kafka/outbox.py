"""Outbox: what waits for one topic, published in order by a producer that is replaced when it is spoilt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import murmur2
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from connector.errors import ConnectorError
from connector.kafka import repairs
from connector.kafka.explanation import explain
from connector.log_events import LogEvent

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from connector.metrics import Stopwatch
    from connector.outgoing import Outgoing


class ProducerFactory(Protocol):
    """Makes a producer that is not started."""

    def __call__(self, *, max_batch_size: int) -> AIOKafkaProducer:
        """A producer whose batches hold at most `max_batch_size` bytes."""
        ...


_BATCH_BYTES = 1_000_000
"""A batch never grows beyond this, whatever the topic takes."""
_RECORD_BATCH_OVERHEAD = 128
"""More than the header of a record batch (61 bytes) and a record's own lengths; max.message.bytes is about the batch."""
_BACKOFF = (0.1, 5.0)


@lru_cache(maxsize=65536)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def record_size(outgoing: Outgoing) -> int:
    """The most bytes that a record takes in a batch of its own."""
    size = DefaultRecordBatchBuilder.estimate_size_in_bytes(outgoing.key, outgoing.value, outgoing.headers)
    return int(size) + _RECORD_BATCH_OVERHEAD


class Outbox:
    """What waits for one topic: per output partition one batch in flight, and behind it all that has come since.

    A producer is idempotent, and any failed send spoils it: it is replaced, and whatever the broker has not acknowledged
    is sent again in the same order. `acknowledged` is called with what the broker has, in order; `too_large` with what
    can never fit the topic, and gives what should be sent in its place, or None; `busy` runs while anything is pending.
    """

    def __init__(
        self,
        topic: str,
        producer: ProducerFactory,
        *,
        acknowledged: Callable[[list[Outgoing]], None],
        too_large: Callable[[Outgoing, int], Outgoing | None],
        busy: Stopwatch,
        log: FilteringBoundLogger,
        start_limit: float = 30.0,
        stop_limit: float = 5.0,
    ) -> None:
        self.topic = topic
        self.max_message_bytes = 1_048_588
        """The topic's `max.message.bytes`; Kafka's default until it is looked up."""
        self.problem: str | None = None
        """Why nothing can be published at present, in a sentence; None while all is well."""
        self._make = producer
        self._acknowledged = acknowledged
        self._too_large = too_large
        self._busy = busy
        self._log = log
        self._start_limit = start_limit
        self._stop_limit = stop_limit
        self._inbox: deque[Outgoing] = deque()
        self._queues: dict[int, deque[Outgoing]] = {}
        self._in_flight: dict[int, list[Outgoing]] = {}
        self._sticky = itertools.count()
        self._pending = 0
        self._batch_bytes = _BATCH_BYTES
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
        """Forget what is queued and not in flight."""
        self._inbox.clear()
        for queue in self._queues.values():
            queue.clear()
        self._count(sum(map(len, self._in_flight.values())))

    async def flushed(self) -> None:
        """Wait until the broker has acknowledged everything."""
        await self._empty.wait()

    async def run(self) -> None:
        """Publish until cancelled."""
        backoff, longest = _BACKOFF
        while True:
            producer = None
            try:
                producer = self._make(max_batch_size=min(self._batch_bytes, self.max_message_bytes))
                repairs.keep_batches(producer)
                async with asyncio.timeout(self._start_limit):
                    await producer.start()
                if not self._pending:
                    self.problem = None
                await self._publish(producer)
            except (ConnectorError, KafkaError, OSError, TimeoutError) as error:
                problem = f"publishing to {self.topic} fails: {explain(error)}"
                if problem != self.problem:
                    self._log.warning(
                        LogEvent.PUBLISH_FAILED, topic=self.topic, error=repr(error), pending=self._pending
                    )
                self.problem = problem
                if isinstance(error, MessageSizeTooLargeError):
                    backoff = _BACKOFF[0]  # the next try is another one
            finally:
                if producer is not None:
                    await self._give_up(producer)
            await asyncio.sleep(backoff)
            backoff = _BACKOFF[0] if self.problem is None else min(2 * backoff, longest)

    async def _publish(self, producer: AIOKafkaProducer) -> None:
        """Send what is queued, one batch in flight for each output partition; raises the error of the first failed send."""
        while True:
            self._wake.clear()
            if self._inbox:
                self._distribute(len(await producer.partitions_for(self.topic)))
            for partition, queue in list(self._queues.items()):
                if queue and partition not in self._in_flight:
                    await self._send(producer, partition, queue)
            await self._wake.wait()
            if self._failure is not None:
                await self._settle()
                failure, self._failure = self._failure, None
                raise failure

    def _distribute(self, partitions: int) -> None:
        """Choose the partition of everything in the inbox as Kafka's default partitioner does, so equal keys meet."""
        queues, inbox = self._queues, self._inbox
        keyless = next(self._sticky) % partitions
        while inbox:
            outgoing = inbox.popleft()
            # An estimate for every event would cost more than the send.
            if len(outgoing.value or b"") + len(outgoing.key or b"") + 4096 > self.max_message_bytes:
                size = record_size(outgoing)
                if size > self.max_message_bytes:
                    replacement = self._too_large(outgoing, size)
                    if replacement is None:
                        self._count(self._pending - 1)
                        continue
                    outgoing = replacement
            partition = keyless if outgoing.key is None else _hash(outgoing.key) % partitions
            queue = queues.get(partition)
            if queue is None:
                queue = queues[partition] = deque()
            queue.append(outgoing)

    async def _send(self, producer: AIOKafkaProducer, partition: int, queue: deque[Outgoing]) -> None:
        builder = producer.create_batch()
        sent: list[Outgoing] = []
        while queue:
            _, key, value, headers, timestamp, _ = queue[0]
            if builder.append(timestamp=timestamp, key=key, value=value, headers=headers) is None:
                break
            sent.append(queue.popleft())
        builder.close()
        self._in_flight[partition] = sent
        future = await producer.send_batch(builder, self.topic, partition=partition)
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
            self.problem = None
            self._count(self._pending - len(sent))
            self._acknowledged(sent)
        else:
            if isinstance(error, MessageSizeTooLargeError):
                self._shrink(sent)
            self._failure = self._failure or error
        self._wake.set()

    async def _settle(self) -> None:
        """Give the other batches in flight a moment, so that fewer are sent twice."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                while len(self._in_flight) > 1:
                    self._wake.clear()
                    await self._wake.wait()

    async def _give_up(self, producer: AIOKafkaProducer) -> None:
        """Queue all that is in flight again, before what came later, then stop the producer, by force if it must be."""
        spoilt = bool(self._in_flight)
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

    def _shrink(self, sent: list[Outgoing]) -> None:
        """The broker takes less than it said: smaller batches, and what is too large on its own never again."""
        if len(sent) == 1:
            self.max_message_bytes = min(self.max_message_bytes, record_size(sent[0]) - 1)
        else:
            self._batch_bytes = max(min(self._batch_bytes, sum(map(record_size, sent))) // 2, 128)

    def _count(self, pending: int) -> None:
        if pending and not self._pending:
            self._busy.start(time.monotonic())
            self._empty.clear()
        elif self._pending and not pending:
            self._busy.stop(time.monotonic())
            self._empty.set()
        self._pending = pending
