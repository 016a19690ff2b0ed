"""Commits: commits what is complete, one commit at a time, and none between the end of epochs and the next assignment.

Where transactions commit, these are never allowed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from aiokafka import OffsetAndMetadata
from aiokafka.errors import CommitFailedError, IllegalStateError, OffsetMetadataTooLargeError

from connector.core.epochs.ledger import Commit, Ledger
from connector.kafka.explanation import explain
from connector.telemetry.log_events import LogEvent

if TYPE_CHECKING:
    from connector.core.epochs.lease import Lease
    from connector.kafka.source.epochs import Epochs
    from connector.settings.kafka import Kafka
    from connector.telemetry.metrics import Metrics


class Committer(Protocol):
    """What commits in our stead, in transactions."""

    async def open(self, ledgers: Iterable[Ledger]) -> None:
        """Fence the former owners of these partitions, whose offsets may be read then; raises KafkaError, SettingsError."""
        ...

    @property
    def commit_age(self) -> float:
        """Seconds since nothing was left to commit."""
        ...


class Commits:
    """Commits what the ledgers say is due, at an interval and at the end of epochs."""

    def __init__(self, kafka: Kafka, epochs: Epochs, lease: Lease, metrics: Metrics, log: Any) -> None:
        self._kafka = kafka
        self._epochs = epochs
        self._lease = lease
        self._metrics = metrics
        self._log = log
        self._allowed = False
        self._committing: asyncio.Task[None] | None = None
        self._last = time.monotonic()
        self._covered: dict[Ledger, int] = {}
        """How many complete events of each epoch its last commit covers."""

    @property
    def age(self) -> float:
        """Seconds since all that was complete had been committed."""
        return time.monotonic() - self._last

    @property
    def uncommitted(self) -> int:
        """How many events are complete that no commit covers."""
        return sum(ledger.completed - self._covered.get(ledger, 0) for ledger in self._epochs.ledgers.values())

    def allow(self) -> None:
        """Commit from here on: the epochs have begun."""
        self._allowed = True
        self._covered.clear()

    async def end(self) -> bool:
        """Commit nothing more at the interval, and end what is under way; gives whether commits were allowed."""
        allowed, committing = self._allowed, self._committing
        self.cancel()
        if committing is not None:
            # Left alone, its retry would go out with the next generation, and move the next owner's offsets.
            await asyncio.wait([committing])
        return allowed

    def cancel(self) -> None:
        """`end`, without waiting."""
        self._allowed = False
        if self._committing is not None:
            self._committing.cancel()

    async def run(self) -> None:
        """Commit what is due at every interval."""
        while True:
            await asyncio.sleep(self._kafka.commit_interval)
            if self._allowed:
                self._committing = asyncio.create_task(self.commit(self._kafka.request_timeout))
                await asyncio.wait([self._committing])

    async def commit(self, limit: float) -> None:
        """Commit what is due, within `limit` seconds; a failure is logged, and what is due stays due."""
        consumer = self._epochs.consumer
        due = {
            tp: (ledger, commit) for tp, ledger in self._epochs.ledgers.items() if (commit := ledger.due) is not None
        }
        completed = {ledger: ledger.completed for ledger, _ in due.values()}
        if consumer is None or not due:
            self._last = time.monotonic()
            return
        if not self._lease.holds(time.monotonic()):
            return
        try:
            async with asyncio.timeout(limit):
                try:
                    await consumer.commit({tp: OffsetAndMetadata(*commit) for tp, (_, commit) in due.items()})
                except OffsetMetadataTooLargeError:
                    self._epochs.refuse_maps()
                    due = {tp: (ledger, Commit(commit.offset)) for tp, (ledger, commit) in due.items()}
                    await consumer.commit({tp: OffsetAndMetadata(*commit) for tp, (_, commit) in due.items()})
        except (CommitFailedError, IllegalStateError) as error:
            self._log.info(LogEvent.COMMIT_REFUSED, error=explain(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the next commit has it all
            self._metrics.commit_failures.inc()
            self._log.warning(LogEvent.COMMIT_FAILED, error=explain(error))
        else:
            self._last = time.monotonic()
            self._covered |= completed
            for ledger, commit in due.values():
                if not ledger.dropped:
                    ledger.committed = commit
