"""ProbeSchedule: when to try again while consuming is stopped, at intervals that double."""

from __future__ import annotations


class ProbeSchedule:
    """When the next probe is due: `first` seconds after `begin`, then twice as long after each failure.

    The interval is at most `maximum` seconds. One probe is out at a time.
    Times are seconds of a clock that does not go back.
    """

    __slots__ = ("_first", "_interval", "_maximum", "_running", "next_at")

    def __init__(self, first: float, maximum: float) -> None:
        if not 0 < first <= maximum:
            raise ValueError(
                f"The first interval of probes, {first} s, must be above 0 and at most the longest, {maximum} s."
            )
        self._first = first
        self._maximum = maximum
        self._interval = first
        self._running = False
        self.next_at: float | None = None
        """When the next probe is due; None while a probe is out, and before `begin`."""

    def begin(self, now: float) -> None:
        """Start over: the first probe is due one first interval from `now`."""
        self._running = True
        self._interval = self._first
        self.next_at = now + self._interval

    def due(self, now: float) -> bool:
        """Say whether a probe should be started."""
        return self.next_at is not None and now >= self.next_at

    def started(self) -> None:
        """Note that a probe is out: none is due until it has failed or was abandoned."""
        self.next_at = None

    def failed(self, now: float) -> None:
        """Note that the probe changed nothing: the next interval is twice as long."""
        self._interval = min(2 * self._interval, self._maximum)
        self.abandoned(now)

    def abandoned(self, now: float) -> None:
        """Note that the probe ended without an answer, as when its partition was revoked: the interval stays.

        A probe that ends after `end` is too late to matter: otherwise it would make another one due.
        """
        if self._running:
            self.next_at = now + self._interval

    def end(self) -> None:
        """Stop: no probe is due before `begin`."""
        self._running = False
        self.next_at = None
