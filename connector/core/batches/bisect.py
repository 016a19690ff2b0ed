"""Bisection: how a refused batch is taken apart until each bad event stands alone.

A part waits for every earlier part that shares a lane with it, so the outcomes of a lane come in order; parts without a
common lane go side by side. For k bad events among n, and a model that fails exactly when one is present, at most
2*k*ceil(log2 n) + k + 1 calls are made; after `max_calls` the rest goes one by one, so never more than `max_calls` + n.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.batches.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from connector.core.event import Event


class Bisection:
    """Takes batches apart; `lane_of` gives an event's lane (None: one of its own), `size_of` its bytes in a body."""

    def __init__(
        self,
        max_calls: int,
        lane_of: Callable[[Event], Hashable | None],
        size_of: Callable[[Event], int],
        overhead: int = 0,
    ) -> None:
        self._max_calls = max_calls
        self._lane_of = lane_of
        self._size_of = size_of
        self._overhead = overhead

    def halve(self, batch: Batch) -> list[Batch]:
        """Split a batch in two; the parts that may be called at once."""
        middle = (len(batch.events) + 1) // 2
        return self._branch(batch, [batch.events[:middle], batch.events[middle:]])

    def behead(self, batch: Batch) -> list[Batch]:
        """Split the first event off, for a probe; the parts that may be called at once, the single event first."""
        return self._branch(batch, [batch.events[:1], batch.events[1:]])

    def cut(self, batch: Batch, events: list[Event], rest: list[Event]) -> tuple[Batch, Batch]:
        """Take out events whose outcome is known already; parts for them and for the rest, neither of which waits."""
        batch.unanswered = 2
        return self._part(batch, events), self._part(batch, rest)

    def exhausted(self, batch: Batch) -> bool:
        """Whether this part may only go one by one, because its root has used up its calls."""
        return batch.parent is not None and len(batch.events) > 1 and batch.root.calls >= self._max_calls

    def singles(self, batch: Batch) -> list[Batch]:
        """Split a batch into its events; the parts that may be called at once."""
        return self._branch(batch, [[event] for event in batch.events])

    def answered(self, batch: Batch) -> tuple[list[Batch], bool]:
        """Note that a batch or part is answered; the parts that may be called now, and whether its root is done."""
        ready: list[Batch] = []
        while True:
            for part in batch.then:
                part.waits -= 1
                if part.waits == 0:
                    ready.append(part)
            parent = batch.parent
            if parent is None:
                return ready, True
            parent.unanswered -= 1
            if parent.unanswered:
                return ready, False
            batch = parent

    def _branch(self, batch: Batch, groups: Sequence[list[Event]]) -> list[Batch]:
        last: dict[Hashable, Batch] = {}
        ready: list[Batch] = []
        for events in groups:
            part = self._part(batch, events)
            lanes = {lane for lane in map(self._lane_of, events) if lane is not None}
            before = {id(last[lane]): last[lane] for lane in lanes if lane in last}
            for earlier in before.values():
                earlier.then.append(part)
            part.waits = len(before)
            last.update(dict.fromkeys(lanes, part))
            if not before:
                ready.append(part)
        batch.unanswered = len(groups)
        return ready

    def _part(self, batch: Batch, events: list[Event]) -> Batch:
        oldest = min(event.arrived for event in events)
        part = Batch(batch.number, batch.route, batch.group, oldest, parent=batch)
        part.events = events
        part.size = self._overhead + sum(map(self._size_of, events))
        # A part is called once for each split: what its batch has tried is not tried again.
        part.attempts.update(batch.attempts)
        part.mark = batch.mark
        return part
