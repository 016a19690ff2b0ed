"""Ledgers and events for tests, and the call of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.epochs.ledger import Ledger
from connector.core.event import Event, Route
from connector.core.routes.inference_id import coordinate_id, key_id

if TYPE_CHECKING:
    from connector.core.batches.batch import Batch
    from connector.core.batches.batcher import Batcher

ROUTE = Route("fraud-detector")


def make_ledger(partition: int = 0, epoch: int = 1, position: int = 0) -> Ledger:
    """A ledger whose position is set."""
    ledger = Ledger("inference-requests", partition, epoch)
    ledger.place(position, None)
    return ledger


def make_event(
    ledger: Ledger,
    offset: int,
    key: bytes | None = None,
    *,
    arrived: float = 0.0,
    payload: bytes = b"1,2,3",
    route: Route = ROUTE,
) -> Event:
    """An event whose value is its payload."""
    size = len(payload) + len(key or b"")
    inference_id = key_id(key) if key else coordinate_id(ledger.topic, ledger.partition, offset)
    return Event(ledger, offset, key, payload, (), 0, arrived, size, payload, route, inference_id)


def make_events(ledger: Ledger, keys: str, *, first: int = 0, arrived: float = 0.0) -> list[Event]:
    """Events with one-letter keys at successive offsets; `.` stands for no key."""
    return [
        make_event(ledger, first + number, None if key == "." else key.encode(), arrived=arrived)
        for number, key in enumerate(keys)
    ]


def take(batcher: Batcher, now: float = 0.0) -> Batch:
    """Call the batch that is due, which must be one."""
    batcher.ripen(now)
    batch = batcher.peek(now)
    assert batch is not None
    batcher.take(batch)
    return batch
