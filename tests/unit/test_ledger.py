"""The ledger against a naive model of a partition, in any interleaving of what can happen to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.event import Event
from connector.ledger import Ledger
from tests.unit.factories import make_event, make_events, make_ledger


@dataclass
class Assignment:
    """One epoch as a list of facts: what was delivered, what is complete, and where reading goes on."""

    ledger: Ledger
    position: int | None = None
    delivered: list[Event] = field(default_factory=list)
    complete: set[int] = field(default_factory=set)
    refused: int = 0
    committed: int | None = None
    seen: list[int] = field(default_factory=list)
    """Every value that was committable, in the order in which it was seen."""

    @property
    def unfinished(self) -> list[Event]:
        return [event for event in self.delivered if event.offset not in self.complete]


class Partition(RuleBasedStateMachine):
    """A partition with holes, a group's committed offset, and a process that has it assigned again and again."""

    @initialize(first=st.integers(0, 5))
    def create(self, first: int) -> None:
        self.first = first
        self.log: list[bool] = []
        """For each offset whether it is an event; the others are transaction markers, aborted or compacted."""
        self.log_start = 0
        self.committed: int | None = None
        self.acknowledged: set[int] = set()
        self.former: list[Event] = []
        self.append([True] * first)
        self.epoch = 0
        self.assign()

    @rule(kinds=st.lists(st.booleans(), min_size=1, max_size=8))
    def append(self, kinds: list[bool]) -> None:
        self.log += kinds

    @rule(count=st.integers(1, 3))
    def expire(self, count: int) -> None:
        self.log_start = min(self.log_start + count, len(self.log))

    # -- one epoch ---------------------------------------------------------------------------------------------------

    def assign(self) -> None:
        self.epoch += 1
        self.now = Assignment(Ledger("inference-requests", 0, self.epoch))

    @precondition(lambda self: self.now.position is None)
    @rule()
    def place(self) -> None:
        start = self.first if self.committed is None else self.committed
        self.now.position = max(start, self.log_start)
        self.now.committed = self.committed
        self.now.ledger.place(self.now.position, self.committed)

    @precondition(lambda self: self.now.position is not None and self.now.position < self.log_start)
    @rule()
    def move_over_expired_events(self) -> None:
        self.now.position = self.log_start
        self.now.committed = self.committed
        self.now.ledger.place(self.log_start, self.committed)

    @precondition(lambda self: self.now.position is not None)
    @rule()
    def learn_what_the_group_has_committed(self) -> None:
        self.now.committed = self.committed
        self.now.ledger.place(self.committed or 0, self.committed)

    @precondition(lambda self: self.now.position is None)
    @rule(offset=st.integers(0, 20))
    def fetch_while_positioning(self, offset: int) -> None:
        assert self.now.ledger.positioning
        assert not self.now.ledger.deliver(make_event(self.now.ledger, offset))

    @precondition(lambda self: self.now.position is not None)
    @rule(count=st.integers(1, 6))
    def fetch(self, count: int) -> None:
        assert self.now.position is not None
        start = max(self.now.position, self.log_start)
        for offset in [offset for offset in range(start, len(self.log)) if self.log[offset]][:count]:
            event = make_event(self.now.ledger, offset, b"key" * (offset % 3))
            assert self.now.ledger.deliver(event)
            self.now.delivered.append(event)
            self.now.position = offset + 1

    @precondition(lambda self: bool(self.now.position))
    @rule(data=st.data())
    def fetch_again(self, data: st.DataObject) -> None:
        assert self.now.position is not None
        offset = data.draw(st.integers(0, self.now.position - 1))
        assert not self.now.ledger.deliver(make_event(self.now.ledger, offset))
        self.now.refused += 1

    @precondition(lambda self: bool(self.now.delivered))
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.now.delivered))
        event.ledger.complete(event)
        self.now.complete.add(event.offset)
        self.acknowledged.add(event.offset)

    @precondition(lambda self: bool(self.former))
    @rule(data=st.data())
    def complete_in_a_former_epoch(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.former))
        event.ledger.complete(event)

    @rule()
    def commit(self) -> None:
        value = self.now.ledger.due
        if value is not None:
            self.committed = self.now.committed = self.now.ledger.committed = value

    @rule()
    def revoke_and_assign_again(self) -> None:
        ledger = self.now.ledger
        ledger.drop()
        assert ledger.dropped
        assert not ledger.deliver(make_event(ledger, 10_000))
        assert (ledger.bytes, ledger.unfinished, ledger.uncommittable) == (0, 0, 0)
        assert ledger.oldest is None
        assert ledger.committable is None
        assert ledger.due is None
        assert ledger.idle
        assert ledger.refused == self.now.refused
        self.former += self.now.delivered
        self.assign()

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        model, ledger = self.now, self.now.ledger
        unfinished = model.unfinished
        committable = unfinished[0].offset if unfinished else model.position
        assert ledger.positioning == (model.position is None)
        assert ledger.committable == committable
        assert ledger.due == (None if committable == model.committed else committable)
        assert ledger.oldest is (unfinished[0] if unfinished else None)
        assert ledger.unfinished == len(unfinished)
        assert ledger.idle == (not unfinished)
        assert ledger.bytes == sum(event.size for event in unfinished)
        assert ledger.uncommittable == (
            len([event for event in model.delivered if event.offset >= unfinished[0].offset]) if unfinished else 0
        )
        assert ledger.refused == model.refused

    @invariant()
    def the_committable_offset_never_goes_back_and_never_passes_an_unfinished_event(self) -> None:
        value = self.now.ledger.committable
        if value is None:
            assert not self.now.seen
            return
        assert all(event.offset >= value for event in self.now.unfinished)
        self.now.seen.append(value)
        assert self.now.seen == sorted(self.now.seen)

    @invariant()
    def every_event_below_the_committed_offset_was_acknowledged(self) -> None:
        for offset in range(self.first, self.committed or 0):
            assert not self.log[offset] or offset in self.acknowledged or offset < self.log_start


TestPartition = Partition.TestCase
TestPartition.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_holes_between_offsets_do_not_stall_the_commit() -> None:
    ledger = make_ledger(position=3)
    first, second = make_event(ledger, 5), make_event(ledger, 9)
    for event in (first, second):
        ledger.deliver(event)
    assert ledger.committable == 5
    ledger.complete(first)
    assert ledger.committable == 9
    ledger.complete(second)
    assert ledger.committable == 10


def test_a_later_completion_does_not_pass_an_earlier_unfinished_event() -> None:
    ledger = make_ledger()
    events = make_events(ledger, "abc")
    for event in events:
        ledger.deliver(event)
    ledger.complete(events[2])
    ledger.complete(events[1])
    assert (ledger.committable, ledger.uncommittable, ledger.unfinished) == (0, 3, 1)
    ledger.complete(events[0])
    assert (ledger.committable, ledger.uncommittable, ledger.unfinished) == (3, 0, 0)


def test_a_completion_of_an_ended_epoch_leaves_the_next_one_alone() -> None:
    ended = make_ledger(epoch=1)
    late = make_event(ended, 0)
    ended.deliver(late)
    ended.drop()
    ledger = make_ledger(epoch=2)
    ledger.deliver(make_event(ledger, 0))
    late.ledger.complete(late)
    assert ended.committable is None
    assert ended.bytes == 0
    assert ledger.committable == 0


def test_what_arrives_before_the_position_is_known_is_discarded_and_not_counted_as_refused() -> None:
    ledger = Ledger("inference-requests", 0, 1)
    assert not ledger.deliver(make_event(ledger, 41))
    assert ledger.committable is None
    assert ledger.due is None
    ledger.place(7, None)
    assert ledger.deliver(make_event(ledger, 7))
    assert ledger.refused == 0


def test_a_position_that_the_group_does_not_know_is_due_at_once() -> None:
    assert make_ledger(position=12).due == 12


def test_a_position_that_the_group_has_committed_is_not_due() -> None:
    ledger = Ledger("inference-requests", 0, 1)
    ledger.place(12, 12)
    assert ledger.due is None


def test_moving_over_expired_events_keeps_what_was_delivered_before() -> None:
    ledger = make_ledger()
    event = make_event(ledger, 0)
    ledger.deliver(event)
    ledger.place(50, None)
    assert ledger.committable == 0
    ledger.complete(event)
    assert ledger.committable == 50
    assert not ledger.deliver(make_event(ledger, 49))
    assert ledger.deliver(make_event(ledger, 50))
