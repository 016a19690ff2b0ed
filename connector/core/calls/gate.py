"""Gate: whether calls are made freely, or only as probes, because of a halt or of the guard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.calls.outcome import Kind

if TYPE_CHECKING:
    from collections.abc import Hashable

    from connector.core.batches.batch import Batch
    from connector.core.batches.batcher import Batcher
    from connector.core.calls.guard import Guard
    from connector.core.calls.halt import Halt
    from connector.core.calls.outcome import Outcome


class Gate:
    """Lets every batch through while open; while closed, one probe at a time, at growing intervals.

    A probe of the guard is a single event, another lane each time: a batch could be refused for one bad event among many
    good ones. Times are seconds of any clock that does not go back.
    """

    def __init__(self, guard: Guard, halt: Halt) -> None:
        self.guard = guard
        self.halt = halt
        self._probe: Batch | None = None
        self._lane: Hashable | None = None

    @property
    def closed(self) -> bool:
        """Whether consuming is stopped."""
        return self.halt.halted or self.guard.tripped

    @property
    def probing(self) -> bool:
        """Whether a probe is in flight."""
        return self._probe is not None

    def wake_at(self) -> float | None:
        """When the next probe is due; None while one is out, and while open."""
        return self.halt.next_probe_at if self.halt.halted else self.guard.next_probe_at

    def choose(self, batcher: Batcher, now: float) -> Batch | None:
        """The batch to call next, None when there is none or none may be called."""
        if not self.closed:
            return batcher.peek(now)
        reason = self.halt if self.halt.halted else self.guard
        return batcher.probe(now, self._lane) if self._probe is None and reason.probe_due(now) else None

    def take(self, batcher: Batcher, batch: Batch) -> Batch:
        """Start a call with the batch that `choose` gave, or, where only a single event may be tried, with its first."""
        if self.closed:
            if self.halt.halted:
                self.halt.probe_started()
            else:
                batch = batcher.behead(batch)
                self.guard.probe_started()
            self._probe, self._lane = batch, batcher.lane_of(batch.events[0])
        batcher.take(batch)
        return batch

    def is_probe(self, batch: Batch) -> bool:
        """Whether this batch is the probe in flight."""
        return batch is self._probe

    def concluded(self, batch: Batch, outcome: Outcome, now: float) -> bool:
        """Take a call's outcome into account; True when it opened the gate."""
        was_closed, probe = self.closed, batch is self._probe
        if probe:
            self._probe = None
        if outcome.kind is Kind.HALT:
            # Many calls in flight end with the same halt: only the probe's tells that the cause is still there.
            if probe and self.halt.halted:
                self.halt.probe_failed(now)
        elif probe:
            self._probed(outcome, now)
        return was_closed and not self.closed

    def _probed(self, outcome: Outcome, now: float) -> None:
        if outcome.kind is Kind.RETRY:
            self.abandoned(now)
            return
        if self.halt.halted:
            self.halt.end()
        if not self.guard.tripped:
            return
        if outcome.kind is Kind.OK:
            self.guard.probe_succeeded()
        else:
            self.guard.probe_rejected(now)

    def abandoned(self, now: float) -> None:
        """Note that the probe in flight, if any, will not tell anything."""
        self._probe = None
        if self.halt.halted:
            self.halt.probe_abandoned(now)
        if self.guard.tripped:
            self.guard.probe_abandoned(now)
