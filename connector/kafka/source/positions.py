"""Positions: asks Kafka what decides where every epoch starts, and notices where one cannot go on.

Reading paths: `find` places new epochs; `hold_back` has those placed again that cannot be read where they stand, which the
broker says, or `watch`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from connector.core.epochs.position import NOWHERE, Position, PositionPolicy
from connector.errors import SettingsError
from connector.kafka import repairs, topics
from connector.kafka.explanation import explain
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from connector.core.epochs.ledger import Commit, Ledger
    from connector.kafka.source.commits import Committer
    from connector.kafka.source.epochs import Epochs
    from connector.settings.kafka import Kafka
    from connector.telemetry.metrics import Metrics
    from connector.telemetry.problems import Problems

_RETRY = (0.2, 5.0)


class Positions:
    """Finds the position of every epoch; `placed` is called when partitions were placed.

    What commits in transactions, if anything does, is opened before offsets are read.
    """

    def __init__(
        self,
        kafka: Kafka,
        epochs: Epochs,
        metrics: Metrics,
        problems: Problems,
        log: Any,
        *,
        placed: Callable[[], None],
        transactions: Committer | None,
    ) -> None:
        self._kafka = kafka
        self._epochs = epochs
        self._metrics = metrics
        self._problems = problems
        self._log = log
        self._placed = placed
        self._transactions = transactions
        self._policy = PositionPolicy(kafka.auto_offset_reset)
        self._unreadable: dict[TopicPartition, int] = {}
        """Where we stood on the partitions that cannot be read there."""
        self._starts: dict[TopicPartition, Position] = {}
        """Where epochs start for which that is known already."""
        self._for_a_person: set[TopicPartition] = set()
        """The partitions for which `kafka.auto_offset_reset` leaves the choice to a person."""
        self._finding: asyncio.Task[None] | None = None
        self._topic_id: Any = None
        self._watching = True

    @property
    def unreadable(self) -> Collection[TopicPartition]:
        """The partitions that cannot be read where we stand, and stay paused until they are placed."""
        return self._unreadable.keys()

    def expect(self, topic_id: Any) -> None:
        """Take this for the id of the input topic, which exists."""
        self._topic_id = topic_id
        self._problems.clear(Problem.TOPIC_GONE)

    def find(self) -> asyncio.Task[None]:
        """Place every epoch that has no position, in a task that takes as long as Kafka does not say where."""
        self._finding = asyncio.create_task(self._find())
        return self._finding

    def hold_back(self, partitions: Iterable[TopicPartition]) -> None:
        """Pause partitions that cannot be read where we stand, until it is found where to go on."""
        for tp in partitions:
            if tp in self._epochs.ledgers and self._epochs.consumer is not None:
                self._unreadable.setdefault(tp, self._epochs.ledgers[tp].next_offset or 0)
                self._epochs.pause(tp)
        if self._finding is None or self._finding.done():
            self.find()

    def forget(self) -> None:
        """Look for nothing: the epochs have ended."""
        if self._finding is not None:
            self._finding.cancel()
            self._finding = None
        self._unreadable.clear()
        self._starts.clear()

    def stop(self) -> None:
        """Watch no more: a client that is closed would open another connection, and nobody would close that one."""
        self._watching = False

    async def watch(self, consumer: AIOKafkaConsumer) -> None:
        """Notice what a paused partition does not: a topic that was created again, and retention that passed us."""
        topic, ledgers = self._kafka.input_topic, self._epochs.ledgers
        while True:
            await asyncio.sleep(self._kafka.metadata_max_age)
            if not self._watching:
                return
            placed = {tp: ledger for tp, ledger in ledgers.items() if not ledger.positioning}
            try:
                async with asyncio.timeout(self._kafka.request_timeout):
                    found = (await topics.describe(repairs.client(consumer), [topic])).get(topic)
                    begins = await consumer.beginning_offsets(placed) if placed and found is not None else {}
            except (KafkaError, OSError, TimeoutError):
                continue
            if found is None:
                self._problems.set(Problem.TOPIC_GONE, topic=topic)
                continue
            self._problems.clear(Problem.TOPIC_GONE)
            placed = {tp: ledger for tp, ledger in placed.items() if ledgers.get(tp) is ledger}
            passed = [tp for tp, ledger in placed.items() if begins[tp] > (ledger.next_offset or 0)]
            self.hold_back(list(placed) if found.id != self._topic_id else passed)

    # -- one task at a time ------------------------------------------------------------------------------------------

    async def _find(self) -> None:
        """Place every ledger that is positioning, and every partition that is unreadable, trying for as long as it takes."""
        ledgers = self._epochs.ledgers
        wait, longest = _RETRY
        for tp in self._for_a_person - ledgers.keys():
            self._decided(tp)
        while waiting := {tp for tp, ledger in ledgers.items() if ledger.positioning} | set(self._unreadable):
            try:
                if await self._open([ledgers[tp] for tp in waiting]):
                    await self._read(waiting)
            except Exception as error:  # noqa: BLE001 - left alone, the partitions would stay paused for ever
                self._log.exception(LogEvent.SOURCE_FAILED)
                self._problems.set(Problem.POSITIONS_BROKE, error=type(error).__name__)
            else:
                self._problems.clear(Problem.POSITIONS_BROKE)
            if waiting & set(self._unreadable) or any(ledgers[tp].positioning for tp in waiting):
                await asyncio.sleep(wait)
                wait = min(2 * wait, longest)
        # Whatever failed was about partitions that are placed by now, or not ours any more.
        self._problems.clear(Problem.TRANSACTIONS_CLOSED)
        self._problems.clear(Problem.OFFSETS_UNREADABLE)
        self._problems.clear(Problem.POSITIONS_BROKE)

    async def _open(self, ledgers: list[Ledger]) -> bool:
        """Open what commits offsets in transactions, if anything does; False when it did not open."""
        if self._transactions is None:
            return True
        try:
            await self._transactions.open(ledgers)
        except (SettingsError, KafkaError, OSError, TimeoutError) as error:
            self._problems.set(Problem.TRANSACTIONS_CLOSED, group=self._kafka.group_id, error=explain(error))
            return False
        self._problems.clear(Problem.TRANSACTIONS_CLOSED)
        return True

    async def _read(self, waiting: set[TopicPartition]) -> None:
        """Place these partitions, where the group's offsets can be read."""
        try:
            async with asyncio.timeout(self._kafka.request_timeout):
                await self._place(waiting)
        except (KafkaError, OSError, TimeoutError) as error:
            self._problems.set(Problem.OFFSETS_UNREADABLE, group=self._kafka.group_id, error=explain(error))
        else:
            self._problems.clear(Problem.OFFSETS_UNREADABLE)

    async def _place(self, waiting: set[TopicPartition]) -> None:
        """Find the position of each of these partitions, where there is one, and let it be fetched."""
        consumer, ledgers = self._epochs.consumer, self._epochs.ledgers
        assert consumer is not None
        topic = self._kafka.input_topic
        found = (await topics.describe(repairs.client(consumer), [topic])).get(topic)
        if found is None:
            raise UnknownTopicOrPartitionError(topic)
        # The group's offsets may be those of an earlier topic of that name, which broker and group do not tell apart.
        if found.id != self._topic_id:
            self._unreadable.update(dict.fromkeys(ledgers, NOWHERE))
            waiting |= set(ledgers)
        everything = {TopicPartition(topic, number) for number in range(found.partitions)} | waiting
        committed = await repairs.committed(consumer, everything)
        known_group = any(commit is not None for commit in committed.values())
        open_ended = [tp for tp in waiting if committed[tp] is None or tp in self._unreadable]
        begins = await consumer.beginning_offsets(open_ended) if open_ended else {}
        ends = await consumer.end_offsets(open_ended) if open_ended else {}
        for tp in waiting:
            commit = committed[tp]
            if tp in self._unreadable:
                self._go_on(consumer, tp, commit, begins[tp], ends[tp])
                continue
            position = self._starts.pop(tp, None)
            if position is None and commit is not None:
                position = Position(commit.offset, commit)
            if position is None:
                position = self._first(tp, begins[tp], ends[tp], known_group=known_group)
            if position.offset is not None:
                ledgers[tp].place(position.offset, position.commit)
                consumer.seek(tp, position.offset)
                self._decided(tp)
        self._topic_id = found.id
        self._placed()

    def _first(self, tp: TopicPartition, begin: int, end: int, *, known_group: bool) -> Position:
        position = self._policy.first(begin, end, known_group=known_group)
        where = {"topic": tp.topic, "partition": tp.partition, "offset": position.offset}
        if position.offset is None:
            name = _name(tp)
            self._for_a_person.add(tp)
            self._problems.set(Problem.NO_COMMIT, name, group=self._kafka.group_id, partition=name)
        elif known_group:
            self._log.info(LogEvent.PARTITION_NEW, **where)
        else:
            self._log.info(LogEvent.POSITION_CHOSEN, **where, reason=self._policy.reset)
        return position

    def _go_on(
        self, consumer: AIOKafkaConsumer, tp: TopicPartition, committed: Commit | None, begin: int, end: int
    ) -> None:
        stood, ledger = self._unreadable[tp], self._epochs.ledgers[tp]
        position = self._policy.go_on(stood, committed, begin, end)
        if position.offset is None:
            name = _name(tp)
            self._for_a_person.add(tp)
            self._problems.set(Problem.POSITION_GONE, name, partition=name, begin=begin, end=end)
            return
        self._decided(tp)
        if position.recreated:
            self._metrics.topics_recreated.inc()
            self._log.error(LogEvent.TOPIC_RECREATED, topic=tp.topic, partition=tp.partition)
        if position.lost:
            self._metrics.lost_to_retention.inc(position.lost)
            self._log.error(
                LogEvent.LOST_TO_RETENTION, topic=tp.topic, partition=tp.partition, offset=stood, lost=position.lost
            )
            ledger.place(position.offset, ledger.committed)
        del self._unreadable[tp]
        if position.another_epoch:
            self._begin_again(tp, position)
        else:
            consumer.seek(tp, position.offset)

    def _begin_again(self, tp: TopicPartition, position: Position) -> None:
        """Begin another epoch there; events of the old one are answered all the same, but say nothing about offsets.

        It is placed at the next turn of `_find`, which opens its transactions first.
        """
        self._epochs.ledgers[tp].drop()
        self._epochs.begin([tp])
        self._starts[tp] = position

    def _decided(self, tp: TopicPartition) -> None:
        """Note that a partition does not wait for a person, or not here."""
        self._for_a_person.discard(tp)
        self._problems.clear(Problem.NO_COMMIT, _name(tp))
        self._problems.clear(Problem.POSITION_GONE, _name(tp))


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"
