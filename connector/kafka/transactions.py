"""Transactions: exactly-once output, with one transactional producer for each input partition that is ours.

The transactional id is `{group}/{topic}/{partition}`: aiokafka commits offsets in transactions without the group's
generation (TxnOffsetCommit v0), so what fences the partition's former owner is the id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from connector.dead_letter import without_value
from connector.kafka import clients
from connector.kafka.output_topic import OutputTopic
from connector.kafka.ownership import owned
from connector.kafka.transactor import Transactor

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer, TopicPartition

    from connector.kafka.sink import Upstream
    from connector.kafka.topics import Topic
    from connector.lease import Lease
    from connector.ledger import Commit, Ledger
    from connector.metrics import Metrics
    from connector.outgoing import Outgoing
    from connector.settings import Settings

_PER_SECOND = 50
"""Transactions that a process commits in a second at most; one costs about 1.8 ms of CPU."""
_STARTS = 8
"""Producers that are started at a time."""


class Transactions:
    """The sink of exactly-once: publishes answers, and commits the offsets of their events, in transactions.

    `upstream` is told of results and dead letters when their transaction is committed; `committed` reads the group's offset
    of a partition.
    """

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        metrics: Metrics,
        upstream: Upstream,
        committed: Callable[[TopicPartition], Awaitable[Commit | None]],
    ) -> None:
        kafka = settings.kafka
        self.results = OutputTopic(kafka.output_topic, upstream.result_too_large)
        self.dead_letters = OutputTopic(kafka.dead_letter_topic, without_value)
        self.group = kafka.group_id
        self.limit = 2 * kafka.request_timeout
        self.hurry = asyncio.Event()
        self._settings = settings
        self._lease = lease
        self._metrics = metrics
        self._upstream = upstream
        self._committed = committed
        self._log = structlog.get_logger("connector.transactions")
        self._transactors: dict[Ledger, Transactor] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._since = 0.0

    # -- for the pipeline --------------------------------------------------------------------------------------------

    def publish(self, results: list[Outgoing]) -> None:
        """Take results; each waits for the answers of the events before its own."""
        by_ledger: dict[Ledger, list[Outgoing]] = {}
        for outgoing in results:
            by_ledger.setdefault(outgoing.event.ledger, []).append(outgoing)
        for ledger, answers in by_ledger.items():
            transactor = self._transactors.get(ledger)
            if transactor is not None:
                transactor.add(answers)
        self._count()

    def bury(self, dead_letters: list[Outgoing]) -> None:
        """Take dead letters, which share the transactions of the results."""
        self.publish(dead_letters)

    @property
    def pending(self) -> int:
        """How many results and dead letters are in no committed transaction."""
        return self._pending

    @property
    def commit_age(self) -> float:
        """Seconds since nothing was left to commit."""
        return time.monotonic() - self._since if self._pending else 0.0

    @property
    def problem(self) -> str | None:
        """Why something cannot be published at present, in a sentence; None while all is well."""
        return next((one.problem for one in self._transactors.values() if one.problem is not None), None)

    async def flushed(self) -> None:
        """Wait until everything that can be committed is."""
        self.hurry.set()
        while busy := [one for one in self._transactors.values() if not one.idle.is_set()]:
            await busy[0].idle.wait()

    def discard(self) -> None:
        """Close every transactor: its epoch has ended."""
        self.hurry.clear()
        for transactor in self._transactors.values():
            self._close(transactor)
        self._transactors.clear()
        self._count()

    # -- for the source ----------------------------------------------------------------------------------------------

    async def open(self, ledgers: Iterable[Ledger]) -> None:
        """Start the producers of these epochs, which fences whoever had the partitions before; raises KafkaError.

        The group's offsets may be read only after that: a transaction of the former owner may have been committing.
        """
        for ledger in [ledger for ledger in self._transactors if ledger.dropped]:
            self._close(self._transactors.pop(ledger))
        if self._closing:
            await asyncio.wait(self._closing)
        places = asyncio.Semaphore(_STARTS)

        async def start(ledger: Ledger) -> None:
            async with places:
                transactor = Transactor(ledger, self, self._log)
                await transactor.start()
                if ledger.dropped:
                    await transactor.close()
                    return
                self._transactors[ledger] = transactor
                transactor.begin()

        await asyncio.gather(*(start(ledger) for ledger in ledgers if ledger not in self._transactors))

    def _close(self, transactor: Transactor) -> None:
        task = asyncio.create_task(transactor.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- for the transactors -----------------------------------------------------------------------------------------

    def producer(self, ledger: Ledger) -> AIOKafkaProducer:
        """A transactional producer of the ledger's partition that is not started."""
        return clients.producer(
            self._settings,
            self._lease,
            max_batch_size=min(self.results.max_batch_bytes, self.dead_letters.max_batch_bytes),
            transactional_id=f"{self.group}/{ledger.topic}/{ledger.partition}",
        )

    async def owned(self) -> None:
        """Wait until the lease holds."""
        await owned(self._lease)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has committed, read with its errors checked."""
        return await self._committed(partition)

    def interval(self) -> float:
        """Seconds between two transactions of a partition: longer with many partitions that have something to commit."""
        active = sum(1 for one in self._transactors.values() if not one.idle.is_set())
        return max(self._settings.kafka.transaction_interval, active / _PER_SECOND)

    def settled(self, outgoings: list[Outgoing]) -> None:
        """Note what a committed transaction held."""
        self._metrics.transactions.labels("committed").inc()
        results = [outgoing for outgoing in outgoings if outgoing.reason is None]
        if results:
            self._upstream.published(results)
        if len(results) < len(outgoings):
            self._upstream.buried([outgoing for outgoing in outgoings if outgoing.reason is not None])
        self._count()

    def failed(self) -> None:
        """Note that a transaction, or the start of its producer, has failed."""
        self._metrics.transactions.labels("failed").inc()

    # -- for the app -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Nothing to do: every transactor has a task of its own, from `open` to `discard`."""
        await asyncio.Event().wait()

    def learn(self, topics: Mapping[str, Topic]) -> None:
        """Take the sizes that the topics allow."""
        self.results.learn(topics)
        self.dead_letters.learn(topics)

    def _count(self) -> None:
        pending = sum(len(one.answers) for one in self._transactors.values())
        if bool(pending) is not bool(self._pending):
            self._since = time.monotonic()
            busy = self._metrics.publishing
            (busy.start if pending else busy.stop)(time.monotonic())
        self._pending = pending
