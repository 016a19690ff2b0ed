"""Halt: consuming stopped because of settings or access, until they are mended."""

from __future__ import annotations

from connector.core.calls.probe import ProbeSchedule


class Halt:
    """Whether consuming is halted, why, and when to try again. Times are seconds of any clock that does not go back."""

    __slots__ = ("_schedule", "halted", "message", "reason")

    def __init__(self, first_probe: float = 1.0, max_probe: float = 60.0) -> None:
        self.halted = False
        self.reason = ""
        """A word that stands for the cause; empty while not halted."""
        self.message = ""
        """The cause in a sentence, as the service said it last; empty while not halted."""
        self._schedule = ProbeSchedule(first_probe, max_probe)

    @property
    def next_probe_at(self) -> float | None:
        """When the next probe is due; None while one is out, and while not halted."""
        return self._schedule.next_at

    def begin(self, reason: str, message: str, now: float) -> bool:
        """Halt; True when this is worth a log line, because it was not halted before or the reason is another.

        Calls in flight may all end with the same Halt: while halted, this leaves the schedule of probes alone.
        """
        is_news = not self.halted or reason != self.reason
        if not self.halted:
            self._schedule.begin(now)
        self.halted = True
        self.reason = reason
        self.message = message
        return is_news

    def probe_due(self, now: float) -> bool:
        """Say whether one batch should be called to see whether the cause was mended."""
        return self._schedule.due(now)

    def probe_started(self) -> None:
        """Note that a probe's batch is being called."""
        self._schedule.started()

    def probe_failed(self, now: float) -> None:
        """Note that the cause is still there: the next interval is twice as long, up to `max_probe`."""
        self._schedule.failed(now)

    def probe_abandoned(self, now: float) -> None:
        """Note that the probe ended without an outcome, as when its partition was revoked."""
        self._schedule.abandoned(now)

    def end(self) -> None:
        """Go on: the cause was mended."""
        self.halted = False
        self.reason = ""
        self.message = ""
        self._schedule.end()
