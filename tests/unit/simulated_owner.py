"""SimulatedOwner: slots and a virtual clock around a Batcher, and an endpoint of any temper.

It keeps its own naive list of what waits in each lane, and checks with every step what the batcher promises.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from connector.core.batches.batcher import Batcher, BatchPolicy, Ordering
from connector.core.event import Event, Route
from tests.unit.factories import make_event, make_ledger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from connector.core.batches.batch import Batch


@dataclass(frozen=True)
class Spec:
    """An event before it is delivered; a bad one fails every call that holds it."""

    partition: int
    key: bytes | None
    route: Route
    payload: bytes
    bad: bool


class SimulatedOwner:
    """Drives a batcher through a list of events, chance deciding what happens next."""

    def __init__(self, policy: BatchPolicy, slots: int, specs: Sequence[Spec], random: Random) -> None:
        self.batcher = Batcher(policy)
        self.policy = policy
        self.slots = slots
        self.random = random
        self.now = 0.0
        self.coming = list(specs)
        self.largest_row = max(len(spec.payload) for spec in specs) + policy.row_overhead
        self.ledgers = {spec.partition: make_ledger(spec.partition) for spec in specs}
        self.specs: dict[Event, Spec] = {}
        self.next_offset: Counter[int] = Counter()
        self.lanes: dict[Any, list[Event]] = {}
        """What is not answered, lane by lane, in the order of delivery."""
        self.in_flight: list[Batch] = []
        self.backoffs: dict[Batch, float] = {}
        self.called: dict[Batch, list[Event]] = {}
        """The events of each batch and part at its first call."""
        self.parts_called: Counter[Batch] = Counter()
        self.unconcluded: dict[Batch, set[Event]] = {}
        """What is not answered of each root that was called or taken apart."""
        self.retries_left = 20 + len(specs)
        self.draining = False
        self.taken_apart: set[Batch] = set()
        self.dead: list[Event] = []

    # -- what the owner does -----------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.coming or self.in_flight or not self.batcher.empty)

    def run(self, *, probe: bool = False) -> None:
        """Go on until every event is answered."""
        while self.busy:
            self.step()
            if probe and self.random.randrange(8) == 0:
                self.probe()

    def step(self) -> None:
        """Deliver some events, or conclude a call, or let time pass; then fill the slots."""
        if self.coming and self.random.randrange(3) == 0:
            self.deliver(self.random.randint(1, 12))
        elif self.in_flight and self.random.randrange(3) > 0:
            self.conclude(self.in_flight.pop(self.random.randrange(len(self.in_flight))))
        elif not self.coming and not self.in_flight:
            wake_at = self.batcher.wake_at()
            assert wake_at is not None, "what is left waits for nothing"
            self.now = max(self.now, wake_at)
        else:
            self.now += self.random.randrange(3)
        self.fill_slots()

    def deliver(self, count: int) -> None:
        """Add the next events."""
        events = []
        for spec in self.coming[:count]:
            offset = self.next_offset[spec.partition]
            self.next_offset[spec.partition] += self.random.choice((1, 1, 1, 2, 5))
            ledger = self.ledgers[spec.partition]
            event = make_event(ledger, offset, spec.key, arrived=self.now, payload=spec.payload, route=spec.route)
            events.append(event)
            self.specs[event] = spec
            self.lanes.setdefault(self.lane(event), []).append(event)
        del self.coming[:count]
        self.batcher.add(events)

    def fill_slots(self) -> None:
        """Call batches for as long as a slot is free and one is due; the one with the oldest event goes first."""
        oldest = float("-inf")
        self.batcher.ripen(self.now)
        while len(self.in_flight) < self.slots:
            batch = self.peek()
            if batch is None:
                self.check_that_nothing_is_due()
                return
            if not self.draining:
                assert min(event.arrived for event in batch.events) >= oldest
                oldest = min(event.arrived for event in batch.events)
            self.call(batch)

    def peek(self) -> Batch | None:
        """The batch that is due; to ask for it changes nothing."""
        before, wake_at = self.snapshot(), self.batcher.wake_at()
        batch = self.batcher.peek(self.now)
        for lane in (None, *list(self.lanes)[:2]):
            self.batcher.probe(self.now, lane)
        assert self.batcher.peek(self.now) is batch
        assert (self.snapshot(), self.batcher.wake_at()) == (before, wake_at)
        return batch

    def snapshot(self) -> list[Any]:
        """The batcher's tables, copied."""
        batcher = self.batcher
        tables = (batcher._open, batcher._due, batcher._ready, batcher._backoff)
        return [*map(list, tables), {ledger: dict(lanes.holders) for ledger, lanes in batcher._lanes.items()}]

    def call(self, batch: Batch) -> None:
        """Give a slot to the batch that `peek` gave."""
        whole = list(batch.events)
        self.batcher.take(batch)
        self.check(batch)
        assert batch.events == whole or (self.draining and set(batch.events) < set(whole))
        assert not batch.open
        if batch not in self.called:
            self.called[batch] = list(batch.events)
            if batch.parent is not None:
                self.parts_called[batch.root] += 1
                bound = self.policy.max_calls + len(batch.root.events)
                assert self.draining or self.parts_called[batch.root] <= bound
        self.unconcluded.setdefault(batch.root, set(batch.root.events))
        above: Batch | None = batch
        while above is not None:
            assert self.backoffs.pop(above, 0.0) <= self.now or self.draining
            above = above.parent
        self.in_flight.append(batch)

    def conclude(self, batch: Batch) -> None:
        """Tell the batcher what became of a call."""
        bad = any(self.specs[event].bad for event in batch.events)
        if self.retries_left and self.random.randrange(4) == 0:
            self.retries_left -= 1
            self.retry(self.without_expired(batch))
        elif len(batch.events) > 1 and (bad or self.random.randrange(8) == 0):
            self.taken_apart.add(batch.root)
            self.batcher.split(batch)
        else:
            self.answer(batch, bad=bad)

    def answer(self, batch: Batch, *, bad: bool) -> None:
        """Have the results or the dead letter of a call in hand."""
        for event in batch.events:
            assert event.ledger.dropped or self.lanes[self.lane(event)][0] is event
            self.forget(event, batch.root)
            event.ledger.answered(event)
            if bad:
                self.dead.append(event)
        self.batcher.answered(batch)

    def retry(self, batch: Batch | None) -> None:
        """Have a batch called again, after a while or at once."""
        if batch is not None:
            self.backoffs[batch] = self.now + self.random.randrange(4)
            self.batcher.retry(batch, self.backoffs[batch])

    def without_expired(self, batch: Batch) -> Batch | None:
        """What is left of a batch when the events that became too old are dead letters."""
        if self.random.randrange(4) > 0:
            return batch
        expired = [event for event in batch.events if self.random.randrange(3) == 0]
        for event in expired:
            self.forget(event, batch.root)
            event.ledger.answered(event)
        rest = [event for event in batch.events if event not in expired]
        if not rest:
            self.batcher.answered(batch)
            return None
        if not expired:
            return batch
        self.taken_apart.add(batch.root)
        old, kept = self.batcher.cut(batch, expired, rest)
        self.batcher.answered(old)
        return kept

    def forget(self, event: Event, root: Batch) -> None:
        """Take an answered event off the lists."""
        lane = self.lane(event)
        self.lanes[lane].remove(event)
        if not self.lanes[lane]:
            del self.lanes[lane]
        self.unconcluded[root].discard(event)
        if not self.unconcluded[root]:
            del self.unconcluded[root]

    def probe(self) -> None:
        """Call the first event of the next batch alone."""
        lane = self.random.choice([*self.lanes.values()])[0] if self.lanes else None
        batch = self.batcher.probe(self.now, None if lane is None else self.batcher.lane_of(lane))
        if batch is None:
            return
        first = batch.events[0]
        self.taken_apart.add(batch.root)
        single = self.batcher.behead(batch)
        assert single.events == [first]
        self.call(single)

    def drain(self) -> None:
        """Take no more events, and go on for as long as the batcher gives anything out."""
        self.draining = True
        self.coming.clear()
        self.batcher.drain()
        self.fill_slots()
        while self.in_flight or self.batcher.wake_at() is not None:
            self.step()

    # -- what must hold ----------------------------------------------------------------------------------------------

    def lane(self, event: Event) -> Any:
        """What an event must stay in order with."""
        if self.policy.ordering is Ordering.PARTITION:
            return event.ledger
        if self.policy.ordering is Ordering.KEY and event.key is not None:
            return event.ledger, event.key
        return event

    def check(self, batch: Batch) -> None:
        """Check a batch that is about to be called."""
        policy, events = self.policy, batch.events
        assert 0 < len(events) <= policy.max_events
        assert batch.size == policy.overhead + sum(len(event.payload) + policy.row_overhead for event in events)
        assert batch.size <= policy.max_bytes or len(events) == 1
        assert {event.route for event in events} == {batch.route}
        if policy.one_id:
            assert len({event.key for event in events}) == 1
            assert events[0].key or len(events) == 1
        assert events == self.called.get(batch, events)
        self.check_lanes(events)
        if self.draining:
            below = [event for event in events if event.offset < event.ledger.highest_answered]
            assert below == events or (below and (batch in self.called or batch.parent is not None))
        elif batch.parent is None and batch not in self.called:
            full = len(events) == policy.max_events or batch.size + self.largest_row > policy.max_bytes
            alone = policy.one_id and not events[0].key
            assert full or alone or self.now >= min(event.arrived for event in events) + policy.linger

    def check_lanes(self, events: list[Event]) -> None:
        """Check that the events are the first of their lanes, in order, and that none of their lanes is in a call."""
        busy = {self.lane(event) for batch in self.in_flight for event in batch.events}
        by_lane: dict[Any, list[Event]] = {}
        for event in events:
            by_lane.setdefault(self.lane(event), []).append(event)
        for lane, members in by_lane.items():
            assert lane not in busy
            assert members == self.lanes[lane][: len(members)]

    def check_that_nothing_is_due(self) -> None:
        """Check that everything that waits while a slot is free has a reason."""
        wake_at = self.batcher.wake_at()
        assert wake_at is None or wake_at > self.now
        if self.draining:
            return
        assert all(at > self.now for at in self.backoffs.values())
        held = {self.lane(event) for root in self.unconcluded for event in root.events}
        for lane, events in self.lanes.items():
            if lane not in held and events:
                assert self.now < events[0].arrived + self.policy.linger
                assert wake_at is not None

    def check_that_nothing_is_left(self) -> None:
        """Check that all events are answered, and that the batcher forgot them."""
        assert not any(self.lanes.values())
        assert not self.unconcluded
        assert self.batcher.empty
        assert self.batcher.wake_at() is None
        assert self.batcher.peek(float("inf")) is None
        tables = (
            self.batcher._lanes,
            self.batcher._open,
            self.batcher._due,
            self.batcher._ready,
            self.batcher._backoff,
        )
        assert not any(tables)

    def check_that_answers_stand_in_no_gap(self) -> None:
        """Check that nothing below an answered event waits, unless a batch that is being taken apart holds its lane."""
        held = {self.lane(event) for root in self.taken_apart & set(self.unconcluded) for event in root.events}
        for lane, events in self.lanes.items():
            assert lane in held or all(event.offset >= event.ledger.highest_answered for event in events)
