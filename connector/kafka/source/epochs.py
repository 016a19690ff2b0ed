"""Epochs: the assignments of the moment, each with its ledger, and the pauses of their partitions."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError

from connector.core.epochs.ledger import Ledger
from connector.kafka import repairs

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

    from connector.settings.sections import Buffer


class Epochs:
    """The ledgers of our partitions, and the consumer that reads them."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._numbers = itertools.count(1)
        self._paused: set[TopicPartition] = set()
        self._maps_refused = False
        self.consumer: AIOKafkaConsumer | None = None
        """The consumer of the moment."""
        self.ledgers: dict[TopicPartition, Ledger] = {}
        """The ledger of each of our partitions."""

    # -- how they stand ----------------------------------------------------------------------------------------------

    def lag(self) -> dict[int, float]:
        """How many events of each of our partitions are not complete, as far as the broker has told its end."""
        lags: dict[int, float] = {}
        consumer = self.consumer
        if consumer is None:
            return lags
        for tp, ledger in self.ledgers.items():
            end, oldest = consumer.highwater(tp), ledger.oldest
            first = oldest.offset if oldest is not None else repairs.position(consumer, tp)
            if end is not None and first is not None and not ledger.positioning:
                lags[tp.partition] = max(0, end - first)
        return lags

    def ages(self) -> dict[int, float]:
        """Seconds since the delivery of each partition's oldest unfinished event."""
        now = time.monotonic()
        return {
            ledger.partition: now - ledger.oldest.arrived if ledger.oldest is not None else 0.0
            for ledger in self.ledgers.values()
        }

    def oldest(self) -> dict[int, float]:
        """The offset of each partition's oldest unfinished event, where there is one."""
        return {ledger.partition: ledger.oldest.offset for ledger in self.ledgers.values() if ledger.oldest is not None}

    @property
    def owe(self) -> bool:
        """Whether there are events to work on: delivered and not complete, or readable at the broker and not fetched."""
        return any(
            ledger.unfinished or ledger.positioning or (tp not in self._paused and self._readable(tp))
            for tp, ledger in self.ledgers.items()
        )

    def _readable(self, tp: TopicPartition) -> bool:
        """Whether the broker has told of events behind our position; those of open transactions do not count."""
        if self.consumer is None:
            return False
        end, position = self.consumer.last_stable_offset(tp), repairs.position(self.consumer, tp)
        return end is not None and position is not None and position < end

    def state(self) -> dict[str, object]:
        """All of it, for a person who must find out why nothing moves."""
        return {
            "paused": sorted(tp.partition for tp in self._paused),
            "lag": self.lag(),
            "unfinished": {tp.partition: ledger.unfinished for tp, ledger in self.ledgers.items()},
            "oldest": self.oldest(),
        }

    # -- where they begin, pause and end -----------------------------------------------------------------------------

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
            self._paused.add(tp)

    def drop(self) -> None:
        """End all of them: whatever comes later from their events is ignored."""
        for ledger in self.ledgers.values():
            ledger.drop()
        self.ledgers.clear()
        self._paused.clear()

    def refuse_maps(self) -> None:
        """Commit offsets alone from here on, since the brokers are set to take less metadata than a map."""
        self._maps_refused = True
        for ledger in self.ledgers.values():
            ledger.maps_refused = True

    def gate(self, *, consuming: bool, growth: float, unreadable: Collection[TopicPartition]) -> None:
        """Pause the partitions that are over their share of the buffer, and resume those that are well below it.

        `growth` is how many bytes of results come for each byte of events: there must be room for them, because only
        fetching is held back, and never what is fetched. Those that have no position, or that cannot be read at theirs,
        stay paused.
        """
        count = len(self.ledgers)
        if not count:
            return
        buffer = self._buffer
        events, span = buffer.max_events / count, buffer.max_uncommitted
        size = buffer.max_bytes / count / (1 + growth)
        for tp, ledger in self.ledgers.items():
            if ledger.positioning or tp in unreadable:
                continue
            # Prefetched events are thrown away by a pause, so the way back is wide.
            scale = 0.5 if tp in self._paused else 1.0
            over = (
                not consuming
                or ledger.unfinished > events * scale
                or ledger.bytes > size * scale
                or ledger.uncommittable > span * scale
            )
            if over is not (tp in self._paused):
                self.pause(tp) if over else self.resume(tp)

    def pause(self, tp: TopicPartition) -> None:
        """Fetch nothing of a partition."""
        if self.consumer is not None:
            with contextlib.suppress(IllegalStateError):
                self.consumer.pause(tp)
                self._paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        """Fetch a partition again."""
        if self.consumer is not None:
            with contextlib.suppress(IllegalStateError):
                self.consumer.resume(tp)
                self._paused.discard(tp)
