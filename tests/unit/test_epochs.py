"""Epochs: which partitions are paused, and why; the consumer only remembers what it was told."""

from __future__ import annotations

from typing import Any, cast

from aiokafka import TopicPartition

from connector.core.event import Event
from connector.kafka.source.epochs import Epochs
from connector.settings.sections import Buffer

TP = TopicPartition("inference-requests", 0)


class Consumer:
    """What `Epochs` asks of a consumer."""

    def __init__(self) -> None:
        self.paused: set[TopicPartition] = set()

    def pause(self, tp: TopicPartition) -> None:
        """Pause a partition."""
        self.paused.add(tp)

    def resume(self, tp: TopicPartition) -> None:
        """Resume a partition."""
        self.paused.discard(tp)

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Move a position."""


def begun(max_bytes: int) -> tuple[Epochs, Consumer]:
    """One partition with a position, and a consumer of it."""
    epochs, consumer = Epochs(Buffer(max_bytes=max_bytes)), Consumer()
    epochs.use(cast("Any", consumer))
    epochs.begin([TP])
    epochs.ledgers[TP].place(0, None)
    return epochs, consumer


def fill(epochs: Epochs, size: int) -> Event:
    """Deliver an event of so many bytes."""
    ledger = epochs.ledgers[TP]
    event = Event(ledger, ledger.next_offset or 0, None, b"", [], 0, 0.0, size)
    assert ledger.deliver(event)
    return event


def test_a_partition_begins_paused_and_is_fetched_once_it_has_a_position() -> None:
    epochs, consumer = begun(100)
    assert consumer.paused == {TP}
    epochs.gate(consuming=True, growth=0.0, unreadable=())
    assert not consumer.paused


def test_the_bytes_that_results_will_take_are_kept_free() -> None:
    for growth, room in ((0.0, 100), (1.0, 50), (3.0, 25)):
        epochs, consumer = begun(100)
        epochs.gate(consuming=True, growth=growth, unreadable=())
        fill(epochs, room)
        epochs.gate(consuming=True, growth=growth, unreadable=())
        assert not consumer.paused, growth
        fill(epochs, 1)
        epochs.gate(consuming=True, growth=growth, unreadable=())
        assert consumer.paused == {TP}, growth


def test_a_paused_partition_goes_on_at_half_of_its_share_and_not_before() -> None:
    epochs, consumer = begun(100)
    epochs.gate(consuming=True, growth=0.0, unreadable=())
    first, second = fill(epochs, 51), fill(epochs, 50)
    epochs.gate(consuming=True, growth=0.0, unreadable=())
    assert consumer.paused == {TP}
    epochs.ledgers[TP].complete(second)
    epochs.gate(consuming=True, growth=0.0, unreadable=())
    assert consumer.paused == {TP}
    epochs.ledgers[TP].complete(first)
    epochs.gate(consuming=True, growth=0.0, unreadable=())
    assert not consumer.paused


def test_what_is_unreadable_or_not_consumed_stays_paused() -> None:
    epochs, consumer = begun(100)
    epochs.gate(consuming=False, growth=0.0, unreadable=())
    assert consumer.paused == {TP}
    epochs.gate(consuming=True, growth=0.0, unreadable={TP})
    assert consumer.paused == {TP}
