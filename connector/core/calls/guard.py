"""Guard: stops consuming when too many events are dead-lettered.

A broken deployment of a model rejects every event; without the guard it would drain the topic into dead letters.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from connector.core.calls.probe import ProbeSchedule

if TYPE_CHECKING:
    from connector.core.reason import Reason


class Guard:
    """Counts the last `window` events as they finish, and trips when more than `max_ratio` of them are dead letters.

    It trips only while the window is full. Once tripped it counts nothing until `probe_succeeded`, which empties the
    window. Times are seconds of any clock that does not go back.
    """

    __slots__ = ("_dead", "_reasons", "_runs", "_schedule", "_total", "hint", "max_ratio", "tripped", "window")

    def __init__(self, window: int, max_ratio: float, first_probe: float = 1.0, max_probe: float = 60.0) -> None:
        if window < 1:
            raise ValueError(f"The guard's window is at least 1 event, not {window}.")
        self.window = window
        self.max_ratio = max_ratio
        self.tripped = False
        self.hint = ""
        """Why it tripped and what to do, in a sentence or two; empty while it is not tripped."""
        self._schedule = ProbeSchedule(first_probe, max_probe)
        # Events of a call finish together, so the window holds runs of the same reason; None stands for a result.
        self._runs: deque[tuple[Reason | None, int]] = deque()
        self._reasons: dict[Reason, int] = {}
        self._total = 0
        self._dead = 0

    def answered(self, events: int, now: float) -> bool:
        """Count events that finished with a result; True when the window filled with them and the guard tripped."""
        return self._finished(None, events, now)

    def dead_lettered(self, reason: Reason, events: int, now: float) -> bool:
        """Count events that finished as dead letters, without a call too; True when that made the guard trip."""
        return self._finished(reason, events, now)

    @property
    def ratio(self) -> float:
        """The part of the window's events that are dead letters, 0 to 1."""
        return self._dead / self._total if self._total else 0.0

    @property
    def next_probe_at(self) -> float | None:
        """When the next probe is due; None while one is out, and while the guard is not tripped."""
        return self._schedule.next_at

    def probe_due(self, now: float) -> bool:
        """Say whether one batch should be called to see whether events are answered again."""
        return self._schedule.due(now)

    def probe_started(self) -> None:
        """Note that a probe's batch is being called."""
        self._schedule.started()

    def probe_rejected(self, now: float) -> None:
        """Note that the probe brought dead letters: the next interval is twice as long, up to `max_probe`."""
        self._schedule.failed(now)

    def probe_abandoned(self, now: float) -> None:
        """Note that the probe ended without an outcome, as when its partition was revoked."""
        self._schedule.abandoned(now)

    def probe_succeeded(self) -> None:
        """Note that an event was answered: the window is emptied, and consuming goes on."""
        self.tripped = False
        self.hint = ""
        self._schedule.end()
        self._runs.clear()
        self._reasons.clear()
        self._total = self._dead = 0

    def _finished(self, reason: Reason | None, events: int, now: float) -> bool:
        if self.tripped or events <= 0:
            return False
        # Results can trip the guard at one moment, when they fill the window; those after it push dead letters out.
        room = self.window - self._total
        for part in (room, events - room) if 0 < room < events else (events,):
            self._append(reason, part)
            if self._total == self.window and self.ratio > self.max_ratio:
                self.tripped = True
                self.hint = self._explain()
                self._schedule.begin(now)
                return True
        return False

    def _append(self, reason: Reason | None, events: int) -> None:
        if self._runs and self._runs[-1][0] is reason:
            self._runs.append((reason, self._runs.pop()[1] + events))
        else:
            self._runs.append((reason, events))
        self._count(reason, events)
        while self._total > self.window:
            oldest, length = self._runs.popleft()
            out = min(length, self._total - self.window)
            if out < length:
                self._runs.appendleft((oldest, length - out))
            self._count(oldest, -out)

    def _count(self, reason: Reason | None, events: int) -> None:
        self._total += events
        if reason is not None:
            self._dead += events
            self._reasons[reason] = self._reasons.get(reason, 0) + events

    def _explain(self) -> str:
        reason = max(self._reasons, key=self._reasons.__getitem__)
        return (
            f"{self._dead} of the last {self.window} events could not be answered, most often {reason}: "
            f"{reason.meaning} {reason.remedy} Consuming goes on by itself once a probe is answered."
        )
