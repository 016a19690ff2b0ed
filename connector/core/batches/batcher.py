"""Batcher: which events share a call, and which batch is called next.

The owner runs the clock and the slots: it adds events, lets `ripen` what has waited for its time, asks `peek` for the batch
to call whenever a slot is free, takes it, and says what became of each. A batch stays open and grows for as long as nobody
takes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Any

from connector.core.batches.batch import Batch
from connector.core.batches.bisect import Bisection

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from connector.core.epochs.ledger import Ledger
    from connector.core.event import Event


class Ordering(StrEnum):
    """What makes a lane."""

    KEY = "key"
    PARTITION = "partition"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch closes, and who may share one.

    `max_events` and `max_bytes` (of the body) close it; `linger` seconds after the arrival of its oldest event it goes as
    soon as a slot is free; `one_id` allows one InferenceId only in a batch; `overhead` and `row_overhead` are the bytes that
    the body format adds to a body and to each row; `max_calls` bounds a bisection.
    """

    max_events: int
    max_bytes: int
    linger: float
    one_id: bool
    ordering: Ordering = Ordering.KEY
    overhead: int = 0
    row_overhead: int = 0
    max_calls: int = 64


@dataclass(slots=True)
class _Lanes:
    """The lanes of one epoch: which batch holds each, and the events that wait behind it."""

    holders: dict[Hashable, Batch] = field(default_factory=dict)
    waiting: dict[Hashable, deque[Event]] = field(default_factory=dict)


class Batcher:
    """Groups events into batches, keeps the order of lanes, and hands out the batch with the oldest event first."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        self._by_key = policy.ordering is Ordering.KEY
        self._shared_lane = policy.ordering is Ordering.PARTITION or None
        self._bisection = Bisection(policy.max_calls, self.lane_of, self.size_of, policy.overhead)
        self._lanes: dict[Ledger, _Lanes] = {}
        self._open: dict[Any, Batch] = {}
        self._due: list[tuple[float, Batch]] = []
        self._ready: list[Batch] = []
        self._backoff: list[tuple[float, Batch]] = []
        self._numbers = count(1)
        self._draining = False

    # -- events in ---------------------------------------------------------------------------------------------------

    def add(self, events: Iterable[Event]) -> None:
        """Take delivered events, in the order of their partitions."""
        by_key, shared_lane = self._by_key, self._shared_lane
        ledger: Ledger | None = None
        lanes = _Lanes()
        for event in events:
            lane = event.key if by_key else shared_lane
            if lane is None:
                self._place(event)
                continue
            if event.ledger is not ledger:
                ledger = event.ledger
                lanes = self._lanes.setdefault(ledger, _Lanes())
            holder = lanes.holders.get(lane)
            if holder is None:
                lanes.holders[lane] = self._place(event)
            elif lane in lanes.waiting:
                lanes.waiting[lane].append(event)
            elif not self._join(holder, event):
                lanes.waiting[lane] = deque((event,))

    def lane_of(self, event: Event) -> Hashable | None:
        """The lane of an event; None for a lane of its own."""
        lane = event.key if self._by_key else self._shared_lane
        return None if lane is None else (event.ledger, lane)

    def size_of(self, event: Event) -> int:
        """The bytes that an event takes in a body."""
        return len(event.payload) + self._policy.row_overhead

    def _group(self, event: Event) -> Any:
        return (event.route, event.inference_id) if self._policy.one_id else event.route

    def _place(self, event: Event) -> Batch:
        """Put an event into the open batch of its group, or into one that it opens."""
        group = self._group(event)
        batch = self._open.get(group)
        if batch is not None:
            if self._append(batch, event):
                return batch
            self._close(batch)
        batch = Batch(next(self._numbers), event.route, group, event.arrived)
        self._open[group] = batch
        batch.size = self._policy.overhead
        self._append(batch, event)
        if batch.open:
            heappush(self._due, (event.arrived + self._policy.linger, batch))
        return batch

    def _join(self, holder: Batch, event: Event) -> bool:
        """Put an event behind the earlier ones of its lane into the batch that holds them, if that still grows."""
        if not holder.open:
            return False
        group = self._group(event)
        # Most events share one Route object, and comparing two field by field costs more than all else here.
        return (holder.group is group or holder.group == group) and self._append(holder, event)

    def _append(self, batch: Batch, event: Event) -> bool:
        size = batch.size + len(event.payload) + self._policy.row_overhead
        if size > self._policy.max_bytes and batch.events:
            return False
        batch.events.append(event)
        batch.size = size
        if event.arrived < batch.oldest:
            batch.oldest = event.arrived
            heappush(self._due, (event.arrived + self._policy.linger, batch))
        policy = self._policy
        full = len(batch.events) >= policy.max_events or size >= policy.max_bytes
        # An event without a key has an id of its own: nothing that the batch could wait for would join it.
        if full or (policy.one_id and not event.key):
            self._close(batch)
        return True

    def _close(self, batch: Batch) -> None:
        del self._open[batch.group]
        batch.open = False
        heappush(self._ready, batch)
        self._forget_closed()

    def _make_ready(self, batch: Batch) -> None:
        """Let a closed batch or a part be called: one by one, when its root has used up its calls."""
        parts = self._bisection.singles(batch) if self._bisection.exhausted(batch) else (batch,)
        for part in parts:
            heappush(self._ready, part)

    # -- batches out -------------------------------------------------------------------------------------------------

    def ripen(self, now: float) -> None:
        """Let the batches be called whose backoff has ended."""
        while self._backoff and self._backoff[0][0] <= now:
            self._make_ready(heappop(self._backoff)[1])

    def peek(self, now: float) -> Batch | None:
        """The batch that a free slot should take, None when nothing is due."""
        if self._draining:
            return next((batch for batch in self._ready if any(map(_in_gap, batch.events))), None)
        due = self._due[0][1] if self._due and self._due[0][0] <= now else None
        ready = self._ready[0] if self._ready else None
        if due is None or ready is None:
            return due or ready
        return min(due, ready)

    def take(self, batch: Batch) -> None:
        """Start a call with the batch that `peek` gave; while draining, with what of it stands in the gap."""
        self._withdraw(batch)
        if self._draining and batch.parent is None and not batch.started:
            self._narrow(batch)
        batch.started += 1
        # Calls that only repeat one, as while the endpoint throttles, say nothing about where the bad events are.
        if batch.parent is not None and batch.started == 1:
            root = batch.root
            root.calls += 1
            if root.calls == self._policy.max_calls:
                self._go_one_by_one(root)

    def _withdraw(self, batch: Batch) -> None:
        if batch.open:
            self._close(batch)
        if self._ready[0] is batch:
            heappop(self._ready)
        else:
            self._ready.remove(batch)
            heapify(self._ready)

    def _go_one_by_one(self, root: Batch) -> None:
        """Take the parts apart that wait for a slot: their root has just used up its calls."""
        parts = [part for part in self._ready if len(part.events) > 1 and part.root is root]
        for part in parts:
            self._ready.remove(part)
        heapify(self._ready)
        for part in parts:
            self._make_ready(part)

    def wake_at(self) -> float | None:
        """When something that is not due falls due, None when only an event or an answer can change anything."""
        times = [heap[0][0] for heap in (self._due, self._backoff) if heap]
        return min(times, default=None)

    def behead(self, batch: Batch) -> Batch:
        """Take the first event off a batch that `peek` gave, as a part of its own for a probe, and give that."""
        if len(batch.events) == 1:
            return batch
        self._withdraw(batch)
        single, *others = self._bisection.behead(batch)
        for part in (single, *others):
            self._make_ready(part)
        return single

    def probe(self, now: float, avoid: Hashable | None) -> Batch | None:
        """The batch that a probe should take: like `peek`, but of another lane than `avoid` where there is one."""
        first = self.peek(now)
        if first is None or avoid is None or self.lane_of(first.events[0]) != avoid:
            return first
        due = [batch for batch in self._open.values() if batch.oldest + self._policy.linger <= now]
        others = [batch for batch in (*self._ready, *due) if self.lane_of(batch.events[0]) != avoid]
        return min(others, default=first)

    def cut(self, batch: Batch, events: list[Event], rest: list[Event]) -> tuple[Batch, Batch]:
        """Take events out of a batch that was called, because their outcome is known; parts for them and for the rest."""
        return self._bisection.cut(batch, events, rest)

    @property
    def empty(self) -> bool:
        """Whether no event is open, ready, backing off or behind a lane."""
        return not (self._open or self._ready or self._backoff or any(lanes.waiting for lanes in self._lanes.values()))

    def state(self) -> dict[str, object]:
        """How many batches there are of each kind, and how many lanes are held."""
        return {
            "open": len(self._open),
            "ready": len(self._ready),
            "backing_off": len(self._backoff),
            "lanes": sum(len(lanes.holders) for lanes in self._lanes.values()),
            "waiting_lanes": sum(len(lanes.waiting) for lanes in self._lanes.values()),
        }

    def _forget_closed(self) -> None:
        while self._due and not self._due[0][1].open:
            heappop(self._due)
        # A long linger would keep batches alive here that closed by count long ago.
        if len(self._due) > 2 * len(self._open) + 64:
            self._due = [entry for entry in self._due if entry[1].open]
            heapify(self._due)

    # -- what became of a call ---------------------------------------------------------------------------------------

    def retry(self, batch: Batch, at: float) -> None:
        """Call the same batch again at `at` or later; it holds its lanes meanwhile."""
        heappush(self._backoff, (at, batch))

    def split(self, batch: Batch) -> None:
        """Halve a batch of two events or more."""
        for part in self._bisection.halve(batch):
            self._make_ready(part)

    def answered(self, batch: Batch) -> None:
        """Note that every event of a batch or part has its outcome; the lanes are freed when the whole batch has."""
        ready, concluded = self._bisection.answered(batch)
        for part in ready:
            self._make_ready(part)
        if concluded:
            self._free(batch.root, batch.root.events)

    def _free(self, batch: Batch, events: Iterable[Event]) -> None:
        """Free the lanes of these events, as far as the batch holds them."""
        by_key, shared_lane = self._by_key, self._shared_lane
        for event in events:
            lane = event.key if by_key else shared_lane
            lanes = self._lanes.get(event.ledger)
            if lanes is None or lane is None or lanes.holders.get(lane) is not batch:
                continue
            del lanes.holders[lane]
            if lane in lanes.waiting:
                self._refill(lanes, lane)
            elif not lanes.holders:
                del self._lanes[event.ledger]
        if self._draining:
            self._close_all()

    def _refill(self, lanes: _Lanes, lane: Hashable) -> None:
        """Move a freed lane's waiting events into one batch, as many as it takes."""
        waiting = lanes.waiting[lane]
        holder = lanes.holders[lane] = self._place(waiting.popleft())
        while waiting and self._join(holder, waiting[0]):
            waiting.popleft()
        if not waiting:
            del lanes.waiting[lane]

    # -- the end of epochs -------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """From here on give out only events below the highest answered offset of their partition.

        Those stand between what is done and its commit; the rest is read again by the next owner. Backoffs end at once.
        """
        self._draining = True
        self._ready += [batch for _, batch in self._backoff]
        self._backoff.clear()
        heapify(self._ready)
        self._close_all()

    def _close_all(self) -> None:
        for batch in list(self._open.values()):
            self._close(batch)

    def _narrow(self, batch: Batch) -> None:
        """Leave in a batch that was not called only the events in the gap.

        The others wait again, first in their lanes: a call that is still in flight may be answered above them, and then
        they stand in the gap.
        """
        gap = list(filter(_in_gap, batch.events))
        others = [event for event in batch.events if not _in_gap(event)]
        if not others:
            return
        gap_lanes = set(map(self.lane_of, gap))
        batch.events = gap
        batch.size = self._policy.overhead + sum(map(self.size_of, gap))
        for event in reversed(others):
            lane = event.key if self._by_key else self._shared_lane
            if lane is None:
                self._place(event)
            else:
                self._lanes[event.ledger].waiting.setdefault(lane, deque()).appendleft(event)
        self._free(batch, (event for event in others if self.lane_of(event) not in gap_lanes))
        self._close_all()

    def clear(self) -> None:
        """Forget every event, and take events as at the start."""
        for heap in (self._lanes, self._open, self._due, self._ready, self._backoff):
            heap.clear()
        self._draining = False


def _in_gap(event: Event) -> bool:
    """Whether an event stands between what is answered and its commit."""
    return event.offset < event.ledger.highest_answered
