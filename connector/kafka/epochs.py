"""Epochs: the assignments of the moment, each with its ledger, and the pauses of their partitions."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from connector.ledger import Ledger

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from connector.settings.sections import Buffer


class Epochs:
    """The ledgers of our partitions, and the consumer that reads them."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._numbers = itertools.count(1)
        self._maps_refused = False
        self.consumer: AIOKafkaConsumer | None = None
        """The consumer of the moment."""
        self.ledgers: dict[TopicPartition, Ledger] = {}
        """The ledger of each of our partitions."""
        self.paused: set[TopicPartition] = set()
        """The partitions that are not fetched."""

    def use(self, consumer: AIOKafkaConsumer) -> None:
        """Take a consumer that has no partitions yet."""
        self.consumer = consumer
        self._maps_refused = False

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Start with a ledger that is positioning, nothing fetched, and no position that aiokafka could look for itself."""
        consumer = self.consumer
        assert consumer is not None
        for tp in partitions:
            self.ledgers[tp] = ledger = Ledger(tp.topic, tp.partition, next(self._numbers))
            ledger.maps_refused = self._maps_refused
            with contextlib.suppress(IllegalStateError):
                consumer.pause(tp)
                consumer.seek(tp, 0)
            self.paused.add(tp)

    def drop(self) -> None:
        """End all of them: whatever comes later from their events is ignored."""
        for ledger in self.ledgers.values():
            ledger.drop()
        self.ledgers.clear()
        self.paused.clear()

    def refuse_maps(self) -> None:
        """Commit offsets alone from here on, since the brokers are set to take less metadata than a map."""
        self._maps_refused = True
        for ledger in self.ledgers.values():
            ledger.maps_refused = True

    def gate(self, *, consuming: bool, unreadable: Collection[TopicPartition]) -> None:
        """Pause the partitions that are over their share of the buffer, and resume those that are well below it.

        Those that have no position, or that cannot be read at theirs, stay paused.
        """
        count = len(self.ledgers)
        if not count:
            return
        buffer = self._buffer
        events, size, span = buffer.max_events / count, buffer.max_bytes / count, buffer.max_uncommitted
        for tp, ledger in self.ledgers.items():
            if ledger.positioning or tp in unreadable:
                continue
            # Prefetched events are thrown away by a pause, so the way back is wide.
            scale = 0.5 if tp in self.paused else 1.0
            over = (
                not consuming
                or ledger.unfinished > events * scale
                or ledger.bytes > size * scale
                or ledger.uncommittable > span * scale
            )
            if over is not (tp in self.paused):
                self.pause(tp) if over else self.resume(tp)

    def pause(self, tp: TopicPartition) -> None:
        """Fetch nothing of a partition."""
        if self.consumer is not None:
            with contextlib.suppress(IllegalStateError):
                self.consumer.pause(tp)
                self.paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        """Fetch a partition again."""
        if self.consumer is not None:
            with contextlib.suppress(IllegalStateError):
                self.consumer.resume(tp)
                self.paused.discard(tp)
