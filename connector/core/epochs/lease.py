"""Lease: this process's own evidence that it still owns its partitions."""

from __future__ import annotations


class Lease:
    """Evidence that the group takes us for a member, good for `duration` seconds.

    It counts from the moment at which the coordinator was *asked*: its answer may have waited for us, as after a SIGSTOP,
    while the group gave our partitions away. A clock that is read late is late itself, so a loop that did not turn for
    longer than the duration holds no lease either.
    """

    __slots__ = ("_until", "duration")

    def __init__(self, duration: float) -> None:
        self.duration = duration
        self._until = float("-inf")

    def renew(self, asked: float) -> None:
        """The coordinator, asked at this moment, took us for a member."""
        self._until = max(self._until, asked + self.duration)

    def holds(self, now: float) -> bool:
        """Whether we may take ourselves for the owner."""
        return now < self._until

    def end(self) -> None:
        """The group has said that we are no member."""
        self._until = float("-inf")
