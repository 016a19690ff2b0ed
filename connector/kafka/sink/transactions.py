"""Transactions: exactly-once output, with one transactional producer for each input partition that is ours.

The transactional id is `{group}/{topic}/{partition}`: aiokafka commits offsets in transactions without the group's
generation (TxnOffsetCommit v0), so what fences the partition's former owner is the id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import structlog

from connector.core.answers.dead_letter import without_value
from connector.kafka import clients
from connector.kafka.ownership import owned
from connector.kafka.sink.output_topic import OutputTopic
from connector.kafka.sink.transactor import Transactor

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer, TopicPartition

    from connector.core.answers.outgoing import Outgoing
    from connector.core.epochs.lease import Lease
    from connector.core.epochs.ledger import Commit, Ledger
    from connector.kafka.sink.protocol import Upstream
    from connector.kafka.topic import Topic
    from connector.settings import Settings
    from connector.telemetry.metrics import Metrics
    from connector.telemetry.problems import Problems

_TURN = 1 / 50
"""Seconds between two transactions of a process, in the long run; one costs about 1.8 ms of CPU."""
_STARTS = 8
"""Producers that are started at a time."""


class Group(Protocol):
    """What transactions need of our membership in the group."""

    @property
    def lease(self) -> Lease:
        """Whether we may take ourselves for the owner of our partitions."""
        ...

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has committed of a partition; raises KafkaError."""
        ...

    def rejoin(self) -> None:
        """Ask the group for our partitions anew."""
        ...


class Transactions:
    """The sink of exactly-once: publishes answers, and commits the offsets of their events, in transactions.

    `upstream` is told of results and dead letters when their transaction is committed.
    """

    def __init__(
        self,
        settings: Settings,
        membership: Group,
        metrics: Metrics,
        problems: Problems,
        upstream: Upstream,
    ) -> None:
        kafka = settings.kafka
        self.results = OutputTopic(kafka.output_topic, upstream.result_too_large)
        self.dead_letters = OutputTopic(kafka.dead_letter_topic, without_value)
        self.group = kafka.group_id
        self.problems = problems
        self.limit = 2 * kafka.request_timeout
        self.hurry = asyncio.Event()
        self._settings = settings
        self._membership = membership
        self._metrics = metrics
        self._upstream = upstream
        self._log = structlog.get_logger("connector.transactions")
        self._transactors: dict[Ledger, Transactor] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._since = 0.0
        self._last_turn = 0.0

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
        """Start the producers of these epochs, which fences whoever had the partitions before.

        Raises KafkaError, or SettingsError when a file of `kafka.security` cannot be used.

        The group's offsets may be read only after that: a transaction of the former owner may have been committing.
        """
        for ledger in [ledger for ledger in self._transactors if ledger.dropped]:
            self._close(self._transactors.pop(ledger))
        self._count()
        if self._closing:
            await asyncio.wait(self._closing)
        places = asyncio.Semaphore(_STARTS)

        async def start(ledger: Ledger) -> None:
            async with places:
                transactor = Transactor(ledger, self, self._log)
                await transactor.open()
                if ledger.dropped:
                    await transactor.close()
                    return
                self._transactors[ledger] = transactor
                transactor.begin()

        missing = [ledger for ledger in ledgers if ledger not in self._transactors]
        # All of them end here: a start that went on behind a failed one would fence the one that is tried next.
        for outcome in await asyncio.gather(*map(start, missing), return_exceptions=True):
            if outcome is not None:
                raise outcome

    def _close(self, transactor: Transactor) -> None:
        task = asyncio.create_task(transactor.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # -- for the transactors -----------------------------------------------------------------------------------------

    def producer(self, ledger: Ledger, *, max_batch_size: int) -> AIOKafkaProducer:
        """A transactional producer of the ledger's partition that is not started."""
        return clients.producer(
            self._settings,
            self._membership.lease,
            max_batch_size=max_batch_size,
            transactional_id=f"{self.group}/{ledger.topic}/{ledger.partition}",
        )

    async def owned(self) -> None:
        """Wait until the lease holds."""
        await owned(self._membership.lease)

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has committed, read with its errors checked."""
        return await self._membership.committed(partition)

    def turn(self) -> float:
        """The moment at which the next transaction of a partition may begin.

        Every transaction takes a turn for the one that follows it, so that there are no more of them than turns, however
        many partitions have something to commit, and the partitions do not commit all at once.
        """
        self._last_turn = max(time.monotonic() + self._settings.kafka.transaction_interval, self._last_turn + _TURN)
        return self._last_turn

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

    def rejoin(self) -> None:
        """Ask the group for our partitions anew."""
        self._membership.rejoin()

    # -- for the app -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Nothing to do but to wait for what is closing: every transactor has a task of its own."""
        try:
            await asyncio.Event().wait()
        finally:
            if self._closing:
                await asyncio.wait(self._closing)

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
