"""Ledger: which delivered events of one partition are complete, and what may be committed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.event import Event


class Ledger:
    """The delivered events of one partition in one epoch.

    It tracks the offsets that were *delivered*, so that holes (transaction markers, compaction, aborted events) never
    stall it. Until `place` has set the position it is *positioning*: what arrives is discarded, because the seek that
    follows reads it again. Once `drop` ended its epoch, it takes no event and no completion.
    """

    __slots__ = (
        "_last",
        "_next",
        "_open",
        "_order",
        "bytes",
        "committed",
        "dropped",
        "epoch",
        "highest_answered",
        "partition",
        "refused",
        "topic",
    )

    def __init__(self, topic: str, partition: int, epoch: int) -> None:
        self.topic = topic
        self.partition = partition
        self.epoch = epoch
        self.dropped = False
        self.committed: int | None = None
        """The last value that the group has committed, as far as this epoch knows; None without a valid one."""
        self.highest_answered = -1
        """The highest offset whose result or dead letter is in hand."""
        self.refused = 0
        """Events refused because their offset was not above the last delivered."""
        self.bytes = 0
        """Bytes of the unfinished events, and of their results that wait for the broker."""
        self._next: int | None = None
        self._last = -1
        self._order: deque[int] = deque()
        self._open: dict[int, Event] = {}

    def __repr__(self) -> str:
        return f"Ledger({self.topic}/{self.partition}, epoch {self.epoch}, {len(self._open)} unfinished)"

    @property
    def positioning(self) -> bool:
        """Whether the position of this epoch is still unknown."""
        return self._next is None

    def place(self, position: int, committed: int | None) -> None:
        """Set the position from which events will be delivered, and what the group has committed there.

        Called again, it moves the position forward over events that can no longer be read.
        """
        if self._next is None or position > self._next:
            self._next = position
            self._last = position - 1
        self.committed = committed

    def deliver(self, event: Event) -> bool:
        """Take an event; False when it must be discarded: positioning, dropped, or not above the last delivered."""
        offset = event.offset
        if self._next is None or self.dropped:
            return False
        if offset <= self._last:
            self.refused += 1
            return False
        self._last = offset
        self._next = offset + 1
        self._order.append(offset)
        self._open[offset] = event
        self.bytes += event.size
        return True

    def complete(self, event: Event) -> None:
        """Mark an event complete; a second completion, and one of an ended epoch, change nothing."""
        if self.dropped or self._open.pop(event.offset, None) is None:
            return
        self.bytes -= event.size
        order, unfinished = self._order, self._open
        while order and order[0] not in unfinished:
            order.popleft()

    def drop(self) -> None:
        """End the epoch: whatever comes later from its events is ignored."""
        self.dropped = True
        self._order.clear()
        self._open.clear()
        self.bytes = 0

    @property
    def committable(self) -> int | None:
        """The first delivered offset that is not complete, or the last delivered + 1; None while there is no position."""
        if self.dropped:
            return None
        return self._order[0] if self._order else self._next

    def unfinished_offsets(self) -> Iterator[int]:
        """The offsets of the unfinished events, ascending; the ledger must not change meanwhile."""
        return filter(self._open.__contains__, self._order)

    @property
    def next_offset(self) -> int | None:
        """The lowest offset that would be taken next; None while positioning."""
        return self._next

    @property
    def due(self) -> int | None:
        """What should be committed, None when there is nothing that the group does not know."""
        value = self.committable
        return None if value == self.committed else value

    @property
    def unfinished(self) -> int:
        """How many delivered events are not complete."""
        return len(self._open)

    @property
    def uncommittable(self) -> int:
        """How many delivered events, complete or not, stand at or behind the first unfinished one."""
        return len(self._order)

    @property
    def oldest(self) -> Event | None:
        """The first unfinished event."""
        return self._open[self._order[0]] if self._order else None

    @property
    def idle(self) -> bool:
        """Whether every delivered event is complete."""
        return not self._open
