"""Retry: how long a batch waits before it is called again, and which of its events have waited for too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector.core.batches.batch import Batch
    from connector.core.event import Event
    from connector.core.reason import Reason

_MAX_EXPONENT = 1023
"""The largest power of two that a float holds: 2.0 ** 1024 raises OverflowError."""


def full_jitter(attempt: int, initial: float, maximum: float, random: float) -> float:
    """Seconds to wait after the failure number `attempt`, counted from 0: a random part of a bound that doubles.

    `initial` is the bound after the first failure and `maximum` the largest, in seconds; `random` is in [0, 1).
    Full jitter spreads the calls of many batches that failed together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random * min(maximum, initial * 2.0 ** min(attempt, _MAX_EXPONENT))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a batch is called again: see `full_jitter`; `max_age` in seconds, None when no event is ever too old."""

    initial: float
    maximum: float
    max_age: float | None = None

    def wait(self, batch: Batch, reason: Reason, random: float) -> float:
        """Seconds until a batch that has just failed for this reason is called again."""
        return full_jitter(max(0, batch.attempts[reason] - 1), self.initial, self.maximum, random)

    def by_age(self, batch: Batch, now_ms: float) -> tuple[list[Event], list[Event]]:
        """The events of a batch that are too old to be called again, and the others, each in their order.

        `now_ms` is the wall clock in milliseconds.
        """
        if self.max_age is None:
            return [], batch.events
        oldest = now_ms - self.max_age * 1000
        expired = [event for event in batch.events if event.timestamp < oldest]
        return expired, [event for event in batch.events if event.timestamp >= oldest]
