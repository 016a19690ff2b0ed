"""Watchdog: tells being stuck from waiting."""

from __future__ import annotations


class Watchdog:
    """Barks when there is work that nothing holds up, and nothing has moved for `limit` seconds.

    `limit` must be above everything that may rightly take its time without a sign: a call, a backoff, a linger.
    """

    __slots__ = ("_progress", "_since", "limit", "stuck")

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.stuck = False
        """Whether nothing has moved for too long."""
        self._since: float | None = None
        self._progress = -1

    def look(self, now: float, *, work: bool, progress: int) -> bool:
        """Take what there is at this moment; True when it is found stuck just now.

        `work` says whether there is any that nothing known holds up; `progress` is any number that changes when
        something moves.
        """
        if not work or progress != self._progress or self._since is None:
            self._progress = progress
            self._since = now if work else None
            self.stuck = False
            return False
        just_now = not self.stuck and now - self._since > self.limit
        self.stuck = self.stuck or just_now
        return just_now
