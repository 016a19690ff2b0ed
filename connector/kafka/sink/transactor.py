"""Transactor: publishes the answers of one input partition, each portion and its offset in one transaction."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from aiokafka import OffsetAndMetadata, TopicPartition
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OffsetMetadataTooLargeError, ProducerFenced

from connector.core.answers.portion import Answers
from connector.kafka import repairs
from connector.kafka.explanation import explain
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aiokafka import AIOKafkaProducer
    from structlog.typing import FilteringBoundLogger

    from connector.core.answers.outgoing import Outgoing
    from connector.core.answers.portion import Portion
    from connector.core.epochs.ledger import Commit, Ledger
    from connector.kafka.sink.output_topic import OutputTopic
    from connector.telemetry.problems import Problems

_MOST_EVENTS = 10_000
_MOST_BYTES = 16 * 2**20
"""Bounds of a transaction; what is above them waits for the next."""
_BACKOFF = (0.1, 5.0)
_LOOK = 1.0
"""Seconds after which a partition without answers is looked at for an offset that the group does not know."""


_DISPLACED = 3
"""How often in a row the group has another offset than ours until we ask it for the partitions anew."""


class Displaced(KafkaError):
    """The group has an offset that we never committed."""


class Surroundings(Protocol):
    """What a transactor needs of the transactions that it belongs to."""

    results: OutputTopic
    dead_letters: OutputTopic
    group: str
    problems: Problems
    hurry: asyncio.Event
    """Set while what is answered should be committed without waiting for more."""
    limit: float
    """Seconds that a start, and a transaction, may take."""

    def producer(self, ledger: Ledger, *, max_batch_size: int) -> AIOKafkaProducer:
        """A transactional producer of the ledger's partition that is not started."""
        ...

    async def owned(self) -> None:
        """Wait until the lease holds."""
        ...

    async def committed(self, partition: TopicPartition) -> Commit | None:
        """What the group has committed, read with its errors checked."""
        ...

    def turn(self) -> float:
        """The moment at which the next transaction of a partition may begin, on the loop's clock."""
        ...

    def settled(self, outgoings: list[Outgoing]) -> None:
        """Note what a committed transaction held."""
        ...

    def failed(self) -> None:
        """Note that a transaction, or the start of its producer, has failed."""
        ...

    def rejoin(self) -> None:
        """Ask the group for our partitions anew."""
        ...


class Transactor:
    """The answers of one partition in one epoch, and the transactional producer that publishes them.

    After any failure the producer is replaced under the same transactional id, which ends whatever transaction was open,
    and the committed offset is read: it tells which portion was committed unheard, so nothing is published twice.
    """

    def __init__(self, ledger: Ledger, around: Surroundings, log: FilteringBoundLogger) -> None:
        self.ledger = ledger
        self.answers = Answers(ledger)
        self.partition = TopicPartition(ledger.topic, ledger.partition)
        self.idle = asyncio.Event()
        self._around = around
        self._name = f"{ledger.topic}/{ledger.partition}"
        self._log = log
        self._producer: AIOKafkaProducer | None = None
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._next = 0.0
        self._backoff = _BACKOFF[0]
        self._displaced = 0
        self._attempted: Commit | None = None
        self._found: Commit | None = None
        """What the group had before this epoch, perhaps from an earlier topic of that name."""
        self._batch_bytes = 0
        self._giving_up: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Start the producer for the first time, and note what the group has; raises KafkaError."""
        await self.start()
        try:
            self._found = await self._committed()
        except BaseException:
            await self._give_up()
            raise

    async def start(self) -> None:
        """Start the producer, which ends the transactions of whoever had the partition before; raises KafkaError."""
        around = self._around
        self._batch_bytes = min(around.results.max_batch_bytes, around.dead_letters.max_batch_bytes)
        self._producer = around.producer(self.ledger, max_batch_size=self._batch_bytes)
        try:
            async with asyncio.timeout(around.limit):
                await self._producer.start()
        except BaseException:
            await self._give_up()
            raise

    def begin(self) -> None:
        """Publish from here on; the ledger has its position."""
        self._next = self._around.turn()
        self._task = asyncio.create_task(self._run())

    def add(self, outgoings: Iterable[Outgoing]) -> None:
        """Take answers."""
        for outgoing in outgoings:
            self.answers.add(outgoing)
        self.idle.clear()
        self._wake.set()

    async def close(self) -> None:
        """Publish nothing more: a transaction that is open is aborted by the partition's next owner, or by the brokers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._around.problems.clear(Problem.TRANSACTION_FAILS, self._name)
        await self._give_up()
        if self._giving_up:
            await asyncio.wait(self._giving_up)

    async def _give_up(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # A cancellation must not leave it half abandoned.
            task = asyncio.create_task(repairs.abandon(producer))
            self._giving_up.add(task)
            task.add_done_callback(self._giving_up.discard)
            await asyncio.wait([task])

    # -- the loop ----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self.ledger.dropped:
            try:
                if self._producer is None:
                    # A start fences the partition's owner, so it must be us, also when it has ended: one that came late
                    # has fenced whoever got the partition meanwhile, and nothing would stop us from publishing.
                    await self._around.owned()
                    await self.start()
                    await self._around.owned()
                    await self._reconcile()
                await self._publish()
            except Exception as error:  # noqa: BLE001 - whatever it was, another producer goes on
                self._failed(error)
                await self._give_up()
                await asyncio.sleep(self._backoff)
                longer = min(2 * self._backoff, _BACKOFF[1])
                self._backoff = _BACKOFF[0] if isinstance(error, MessageSizeTooLargeError) else longer

    def _failed(self, error: Exception) -> None:
        if isinstance(error.__cause__ or error, OffsetMetadataTooLargeError):
            self.ledger.maps_refused = True
        self._around.failed()
        self._displaced = self._displaced + 1 if isinstance(error, Displaced) else 0
        if self._displaced >= _DISPLACED:
            # If the partition is another's the group says so; if it is ours the next epoch begins where the group is.
            self._around.rejoin()
        if isinstance(error, ProducerFenced):
            # Another start with our id, or the brokers' time limit; whether the partition is ours is for the group to say.
            self._log.warning(LogEvent.FENCED, topic=self.ledger.topic, partition=self.ledger.partition)
            return
        name, problems = self._name, self._around.problems
        if problems.set(Problem.TRANSACTION_FAILS, name, partition=name, error=explain(error)):
            self._log.warning(
                LogEvent.PUBLISH_FAILED,
                topic=self.ledger.topic,
                partition=self.ledger.partition,
                error=repr(error),
                pending=len(self.answers),
            )

    async def _publish(self) -> None:
        """Commit portion after portion; raises what a transaction failed with."""
        while True:
            portion = self.answers.portion(_MOST_EVENTS, _MOST_BYTES)
            if portion is None:
                self._around.problems.clear(Problem.TRANSACTION_FAILS, self._name)
                self._wake.clear()
                self.idle.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK):
                        await self._wake.wait()
            elif not self._around.hurry.is_set() and (wait := self._next - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._around.hurry.wait()
            else:
                self._next = self._around.turn()
                self.idle.clear()
                if await self._transact(portion):
                    self._settle(portion.commit)
                    self._around.problems.clear(Problem.TRANSACTION_FAILS, self._name)
                    self._backoff = _BACKOFF[0]

    # -- one transaction ---------------------------------------------------------------------------------------------

    async def _transact(self, portion: Portion) -> bool:
        """Publish and commit a portion; False when it holds what cannot be sent, so that there is another to take."""
        fitting = self._fit(portion)
        if fitting is None:
            return False
        producer, around = self._producer, self._around
        assert producer is not None
        sends: list[tuple[OutputTopic, list[Outgoing], asyncio.Future[object]]] = []
        self._attempted = portion.commit
        async with asyncio.timeout(around.limit):
            await producer.begin_transaction()
            for topic, outgoings in fitting.items():
                queues: dict[int, deque[Outgoing]] = {}
                topic.distribute(outgoings, len(await producer.partitions_for(topic.name)), queues)
                for number, queue in queues.items():
                    while queue:
                        batch, sent = topic.batch(producer, queue)
                        future = await producer.send_batch(batch, topic.name, partition=number)
                        future.add_done_callback(_take_exception)
                        sends.append((topic, sent, future))
            await self._acknowledged(sends)
            offsets = {self.partition: OffsetAndMetadata(*portion.commit)}
            await producer.send_offsets_to_transaction(offsets, around.group)
            await producer.commit_transaction()
        return True

    def _fit(self, portion: Portion) -> dict[OutputTopic, list[Outgoing]] | None:
        """The portion by topic; None when some of it had to be replaced by something else."""
        by_topic: dict[OutputTopic, list[Outgoing]] = {}
        whole = True
        for outgoing in portion.outgoings:
            topic = self._around.results if outgoing.reason is None else self._around.dead_letters
            fitting = topic.fitting(outgoing)
            if fitting is outgoing:
                by_topic.setdefault(topic, []).append(outgoing)
                continue
            whole = False
            if fitting is None:
                self.answers.take_back(outgoing)
            else:
                self.answers.add(fitting)
        return by_topic if whole else None

    async def _acknowledged(self, sends: list[tuple[OutputTopic, list[Outgoing], asyncio.Future[object]]]) -> None:
        """Wait for every send: the commit of a transaction succeeds although one of them failed."""
        if not sends:
            return
        await asyncio.wait([future for *_, future in sends])
        failure: BaseException | None = None
        for topic, sent, future in sends:
            error = KafkaError("the send was cancelled") if future.cancelled() else future.exception()
            # Batches made before the topic's limit was learned say nothing about what was learned.
            if isinstance(error, MessageSizeTooLargeError) and (
                len(sent) == 1 or topic.max_batch_bytes >= self._batch_bytes
            ):
                topic.shrink(sent)
            failure = failure or error
        if failure is not None:
            raise failure

    async def _reconcile(self) -> None:
        """Find out whether the last portion was committed: the answer to a commit can be lost on its way.

        Raises Displaced when the group has an offset that we never committed: then the partition is another process's, or
        its offset was moved.
        """
        # The start of our producer has ended every transaction under our id, so the group's offset is the last word on them.
        # Say we know of 5, and the portion up to 10 has failed:
        #   - The group is at 5: it was aborted, and is published again.
        #   - The group is at 10: the brokers had committed it, and the answer was lost with the connection. Published
        #     again, its results would be there twice.
        #   - The group is at 20, which only another can have committed: we were frozen, B got the partition, started with
        #     our id, and went on. Our start has fenced B, since the last one wins, and no broker stops us: our 5 to 9
        #     would be published a second time, and the group moved back from 20 to 10. So we publish nothing. B starts
        #     again, finds the group where B left it, and goes on; we ask the group whose the partition is.
        # Before the first commit of an epoch we know of no offset, or of none that is valid: then the group has none either,
        # or still the one that was found there, perhaps of an earlier topic of that name.
        committed, known = await self._committed(), self.ledger.committed
        if committed is not None and committed == self._attempted:
            self._settle(committed)
        elif committed not in ((None, self._found) if known is None else (known,)):
            raise Displaced(
                f"the group is at {_place(committed)}, and we left it at {_place(known)}: another process works on it"
            )

    async def _committed(self) -> Commit | None:
        async with asyncio.timeout(self._around.limit):
            return await self._around.committed(self.partition)

    def _settle(self, committed: Commit) -> None:
        if self.ledger.dropped:
            return
        self.ledger.committed = committed
        self._around.settled(self.answers.settle(committed.offset))


def _place(commit: Commit | None) -> str:
    return "no offset" if commit is None else f"offset {commit.offset}"


def _take_exception(future: asyncio.Future[object]) -> None:
    """Who waits for a send may be cancelled; an error that nobody takes would be logged by asyncio."""
    if not future.cancelled():
        future.exception()
