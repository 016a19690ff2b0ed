"""Ledger: which delivered events of one partition are complete, and what may be committed: the Commit."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from connector.core.epochs import offset_map

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.core.epochs.offset_map import OffsetMap, Run

_FINISHED = re.compile(b"\1+")


class Commit(NamedTuple):
    """What a group has committed of a partition: all below `offset` is complete, and what `metadata` maps behind it."""

    offset: int
    metadata: str = ""


class Delivered(Protocol):
    """What a ledger needs of an event; two of them are the same when they are the same object."""

    @property
    def offset(self) -> int:
        """Where it stands in its partition."""
        ...

    @property
    def timestamp(self) -> int:
        """Kafka's, in milliseconds."""
        ...

    @property
    def arrived(self) -> float:
        """The loop's clock at its delivery, in seconds."""
        ...

    size: int
    """Its bytes, and those of its result once it is answered: the ledger adds them."""


class Ledger:
    """The delivered events of one partition in one epoch.

    It tracks the offsets that were *delivered*, so that holes (transaction markers, compaction, aborted events) never
    stall it. Until `place` has set the position it is *positioning*: what arrives is discarded, because the seek that
    follows reads it again. Once `drop` ended its epoch, it takes no event and no completion. What is complete behind an
    unfinished event is in the metadata of a commit, and the next owner's ledger skips it.
    """

    __slots__ = (
        "_done",
        "_last",
        "_map",
        "_metadata",
        "_next",
        "_open",
        "_order",
        "bytes",
        "committed",
        "completed",
        "dropped",
        "epoch",
        "highest_answered",
        "maps_refused",
        "partition",
        "refused",
        "skipped",
        "topic",
    )

    def __init__(self, topic: str, partition: int, epoch: int) -> None:
        self.topic = topic
        self.partition = partition
        self.epoch = epoch
        self.dropped = False
        self.committed: Commit | None = None
        """What the group has committed, as far as this epoch knows; None without a valid offset."""
        self.completed = 0
        """Events of this epoch that are complete."""
        self.maps_refused = False
        """Whether the broker refuses the metadata that a map of complete events needs."""
        self.highest_answered = -1
        """The highest offset whose result or dead letter is in hand."""
        self.refused = 0
        """Events refused because their offset was not above the last delivered."""
        self.skipped = 0
        """Events that an earlier owner had completed."""
        self.bytes = 0
        """Bytes of the unfinished events, and of their results that wait for the broker."""
        self._next: int | None = None
        self._last = -1
        self._order: deque[int] = deque()
        """The delivered offsets from the first unfinished event on."""
        self._open: dict[int, Delivered] = {}
        self._done: dict[int, int] = {}
        """The complete events among `_order`: their timestamps."""
        self._map: OffsetMap | None = None
        """What earlier owners completed, until the last of it is delivered."""
        self._metadata: str | None = None
        """The metadata as it was last encoded; None when it may be another by now."""

    def __repr__(self) -> str:
        return f"Ledger({self.topic}/{self.partition}, epoch {self.epoch}, {len(self._open)} unfinished)"

    @property
    def positioning(self) -> bool:
        """Whether the position of this epoch is still unknown."""
        return self._next is None

    def place(self, position: int, committed: Commit | None) -> None:
        """Set the position from which events will be delivered, and what the group has committed there.

        Called again, it moves the position forward over events that can no longer be read.
        """
        if self._next is None and committed is not None:
            self._map = offset_map.decode(committed.metadata, committed.offset)
        if self._next is None or position > self._next:
            self._next = position
            self._last = position - 1
            self._metadata = None
        self.committed = committed

    def deliver(self, event: Delivered) -> bool:
        """Take an event; False when it must be discarded.

        That is: positioning, dropped, not above the last delivered, or completed by an earlier owner.
        """
        offset = event.offset
        if self._next is None or self.dropped:
            return False
        if offset <= self._last:
            self.refused += 1
            return False
        self._last = offset
        self._next = offset + 1
        if self._map is not None and self._skip(event, self._map):
            return False
        self._order.append(offset)
        self._open[offset] = event
        self.bytes += event.size
        return True

    def _skip(self, event: Delivered, known: OffsetMap) -> bool:
        """Take an event for complete if the map says so."""
        finished = known.finished(event.offset, event.timestamp)
        self._metadata = None
        if known.exhausted:
            self._map = None
        if finished:
            self.skipped += 1
            if self._order:
                self._order.append(event.offset)
                self._done[event.offset] = event.timestamp
        return finished

    def answered(self, event: Delivered, size: int = 0) -> None:
        """Note that an event's result, of `size` bytes, or its dead letter is in hand.

        It takes room too, until the broker has it; of an ended epoch it changes nothing.
        """
        if self.dropped:
            return
        event.size += size
        self.bytes += size
        if event.offset > self.highest_answered:
            self.highest_answered = event.offset

    def complete(self, event: Delivered) -> None:
        """Mark an event complete; a second completion, and one of an ended epoch, change nothing."""
        offset = event.offset
        if self.dropped or self._open.pop(offset, None) is None:
            return
        self.bytes -= event.size
        self.completed += 1
        self._metadata = None
        order, done = self._order, self._done
        if order[0] != offset:
            done[offset] = event.timestamp
            return
        order.popleft()
        while done and order[0] in done:
            del done[order.popleft()]

    def drop(self) -> None:
        """End the epoch: whatever comes later from its events is ignored."""
        self.dropped = True
        self._order.clear()
        self._open.clear()
        self._done.clear()
        self._map = None
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
    def due(self) -> Commit | None:
        """What should be committed, None when there is nothing that the group does not know."""
        offset = self.committable
        if offset is None:
            return None
        commit = Commit(offset, self.metadata)
        return None if commit == self.committed else commit

    @property
    def metadata(self) -> str:
        """The map of what is complete from the committable offset on; empty when that is nothing, or more than fits."""
        offset = self.committable
        if self.maps_refused or offset is None:
            return ""
        if self._metadata is None:
            self._metadata = self.commit_at(offset).metadata
        return self._metadata

    def commit_at(self, offset: int) -> Commit:
        """What may be committed once all below `offset`, which is committable or above it, is complete.

        Its metadata maps what is complete from there on; empty when that is nothing, or more than fits.
        """
        known, done, start = self._map, self._done, self._next
        if self.maps_refused or start is None or not (done or known):
            return Commit(offset)
        if known is not None and not known.confirmed:
            # The map that we were given is passed on as it is, and what we completed ourselves is left out. Together they
            # lose events, when the topic was deleted and created again behind the group's back:
            #
            # 1. Owner A commits 3 of the first topic, with a map: 5 and 6 are complete, and 5 had timestamp t5.
            # 2. The topic is created again. The group still has A's commit: offsets have no topic id.
            # 3. Owner B starts at 3 with A's map. It has completed 4, which is an event of the second topic, when it
            #    commits; 5 has not been delivered, so that nothing has shown the map to be about another topic.
            # 4. With 4 in the map, its timestamp is a sample of it. Owner C is delivered 4, finds the timestamp right,
            #    believes the whole map, and skips 5 and 6, which nobody has ever called.
            #
            # Without it C asks A's own sample, finds another timestamp at 5, and discards the map. What it costs is that 4
            # is called again, should B die before 5 comes.
            return Commit(offset, offset_map.encode(offset, known.runs(start), known.samples(start)))
        runs = self._runs()
        if runs and runs[0][0] < offset:
            runs = [(max(first, offset), end) for first, end in runs if end > offset]
            done = {finished: timestamp for finished, timestamp in done.items() if finished >= offset}
        if known is None:
            return Commit(offset, offset_map.encode(offset, runs, done))
        return Commit(offset, offset_map.encode(offset, runs + known.runs(start), done, known.samples(start)))

    def _runs(self) -> list[Run]:
        """The complete events among `_order`, joined over what is no event; none when they are too many to be encoded."""
        flags = bytes(map(self._done.__contains__, self._order))
        first, last = flags.find(1), flags.rfind(1)
        offsets = list(self._order)
        if first < 0 or not offset_map.fits(flags.count(b"\0\1"), offsets[last] + 1 - offsets[first]):
            return []
        return [(offsets[run.start()], offsets[run.end() - 1] + 1) for run in _FINISHED.finditer(flags)]

    @property
    def unfinished(self) -> int:
        """How many delivered events are not complete."""
        return len(self._open)

    @property
    def uncommittable(self) -> int:
        """How many delivered events, complete or not, stand at or behind the first unfinished one."""
        return len(self._order)

    @property
    def oldest(self) -> Delivered | None:
        """The first unfinished event."""
        return self._open[self._order[0]] if self._order else None

    @property
    def idle(self) -> bool:
        """Whether every delivered event is complete."""
        return not self._open
