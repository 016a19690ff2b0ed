"""The ledger against a naive model of a partition, in any interleaving of what can happen to one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.core.epochs.ledger import Commit, Ledger
from connector.core.epochs.offset_map import decode
from connector.core.event import Event
from tests.unit.factories import make_event, make_events, make_ledger


def offsets_in(commit: Commit) -> set[int]:
    """The offsets that a commit names as complete."""
    known = decode(commit.metadata, commit.offset)
    return {offset for first, end in known.runs(0) for offset in range(first, end)} if known is not None else set()


@dataclass
class Assignment:
    """One epoch as a list of facts: what was delivered, what is complete, and where reading goes on."""

    ledger: Ledger
    position: int | None = None
    delivered: list[Event] = field(default_factory=list)
    complete: set[int] = field(default_factory=set)
    answered: set[int] = field(default_factory=set)
    refused: int = 0
    skipped: int = 0
    committed: Commit | None = None
    named: set[int] = field(default_factory=set)
    """What the map of the earlier owners names."""
    samples: dict[int, int] = field(default_factory=dict)
    confirmed: bool = False
    discarded: bool = False
    inherited: set[int] = field(default_factory=set)
    """What must not be called again, whatever the map looks like."""
    seen: list[int] = field(default_factory=list)
    """Every value that was committable, in the order in which it was seen."""

    @property
    def unfinished(self) -> list[Event]:
        return [event for event in self.delivered if event.offset not in self.complete]

    def skips(self, offset: int, timestamp: int) -> bool:
        """Whether the map says that an event is complete, and is to be believed."""
        if offset in self.samples and not self.discarded:
            self.confirmed = self.samples[offset] == timestamp
            self.discarded = not self.confirmed
        return self.confirmed and offset in self.named

    def passed_on(self) -> set[int]:
        """What must not be called again after a commit of this moment."""
        assert self.position is not None
        committable = self.ledger.committable
        assert committable is not None
        done = {offset for offset in self.complete if offset > committable}
        rest = set() if self.discarded else {offset for offset in self.inherited if offset >= self.position}
        if self.discarded or max(self.named, default=-1) < self.position:
            return done
        if self.confirmed:
            return done | rest if done else set()
        return rest if min(self.samples) >= self.position else set()


class Partition(RuleBasedStateMachine):
    """A partition with holes, what a group has committed of it, and owners that die and take over at any moment."""

    @initialize(first=st.integers(0, 5), kinds=st.lists(st.sampled_from([True, True, True, False]), max_size=30))
    def create(self, first: int, kinds: list[bool]) -> None:
        self.first = first
        self.log: list[bool] = []
        """For each offset whether it is an event; the others are transaction markers, aborted or compacted."""
        self.log_start = 0
        self.topic = 1
        self.committed: Commit | None = None
        self.passed_on: set[int] = set()
        """Complete events that the last commit names so that they are not called again."""
        self.acknowledged: set[int] = set()
        self.former: list[Event] = []
        self.append([True] * first + kinds)
        self.epoch = 0
        self.assign()

    @rule(kinds=st.lists(st.booleans(), min_size=1, max_size=8))
    def append(self, kinds: list[bool]) -> None:
        self.log += kinds

    @rule(count=st.integers(1, 3))
    def expire(self, count: int) -> None:
        self.log_start = min(self.log_start + count, len(self.log))

    def event(self, offset: int) -> Event:
        event = make_event(self.now.ledger, offset, b"key" * (offset % 3))
        event.timestamp = 1000 * self.topic + offset * 7 % 5
        return event

    # -- one epoch ---------------------------------------------------------------------------------------------------

    def assign(self) -> None:
        self.epoch += 1
        self.now = Assignment(Ledger("inference-requests", 0, self.epoch))

    @precondition(lambda self: self.now.position is None)
    @rule()
    def place(self) -> None:
        start = self.first if self.committed is None else self.committed.offset
        self.now.position = max(start, self.log_start)
        self.now.committed = self.committed
        self.now.ledger.place(self.now.position, self.committed)
        if self.committed is not None and (known := decode(self.committed.metadata, start)) is not None:
            self.now.named = offsets_in(self.committed)
            self.now.samples = known.samples(0)
            if min(known.samples(0)) >= self.log_start:
                self.now.inherited = self.passed_on

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
        self.now.ledger.place(self.committed.offset if self.committed else 0, self.committed)

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
            event = self.event(offset)
            skipped = self.now.skips(offset, event.timestamp)
            assert self.now.ledger.deliver(event) is not skipped
            if skipped:
                assert offset in self.acknowledged
                self.now.skipped += 1
                self.now.complete.add(offset)
            assert skipped or offset not in self.now.inherited
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

    @precondition(lambda self: bool(self.now.unfinished))
    @rule(data=st.data())
    def complete_all_but_a_few(self, data: st.DataObject) -> None:
        unfinished = self.now.unfinished
        slow = data.draw(st.sets(st.sampled_from(unfinished), min_size=1, max_size=3))
        for event in unfinished:
            if event not in slow:
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
        commit = self.now.ledger.due
        if commit is not None:
            self.committed = self.now.committed = self.now.ledger.committed = commit
            self.passed_on = self.now.passed_on()
            assert bool(self.passed_on) <= bool(commit.metadata)
            if not self.now.named or self.now.confirmed or self.now.discarded:
                assert {offset for offset in offsets_in(commit) if self.log[offset]} <= self.acknowledged

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
        assert ledger.metadata == ""
        assert ledger.idle
        assert ledger.refused == self.now.refused
        self.former += self.now.delivered
        self.assign()

    @rule(count=st.integers(1, 30))
    def hand_over(self, count: int) -> None:
        self.commit()
        self.revoke_and_assign_again()
        self.place()
        self.fetch(count)

    @rule(dice=st.integers(0, 3))
    def create_the_topic_again(self, dice: int) -> None:
        """Behind the back of the group, which goes on where it was: all it knows is about other events."""
        if dice:
            return
        self.revoke_and_assign_again()
        self.topic += 1
        self.log_start = 0
        self.acknowledged.clear()
        self.passed_on = set()
        self.first = self.committed.offset if self.committed is not None else self.first

    @precondition(lambda self: bool(self.now.unfinished))
    @rule(size=st.integers(0, 9), data=st.data())
    def answer(self, size: int, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.now.unfinished))
        before = event.size
        self.now.ledger.answered(event, size)
        assert event.size == before + size, "the result takes room until the broker has it"
        self.now.answered.add(event.offset)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        model, ledger = self.now, self.now.ledger
        unfinished = model.unfinished
        committable = unfinished[0].offset if unfinished else model.position
        assert ledger.positioning == (model.position is None)
        assert ledger.committable == committable
        commit = None if committable is None else Commit(committable, ledger.metadata)
        assert ledger.due == (None if commit == model.committed else commit)
        assert ledger.skipped == model.skipped
        assert commit is None or not commit.metadata or offsets_in(commit)
        assert ledger.oldest is (unfinished[0] if unfinished else None)
        assert ledger.unfinished == len(unfinished)
        assert ledger.idle == (not unfinished)
        assert ledger.bytes == sum(event.size for event in unfinished)
        assert ledger.uncommittable == (
            len([event for event in model.delivered if event.offset >= unfinished[0].offset]) if unfinished else 0
        )
        assert ledger.refused == model.refused
        assert ledger.dropped or ledger.highest_answered == max(model.answered, default=-1)

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
        for offset in range(self.first, self.committed.offset if self.committed else 0):
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
    late.ledger.answered(late, 100)
    late.ledger.complete(late)
    assert ended.highest_answered == -1
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
    assert make_ledger(position=12).due == Commit(12)


def test_a_position_that_the_group_has_committed_is_not_due() -> None:
    ledger = Ledger("inference-requests", 0, 1)
    ledger.place(12, Commit(12))
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


# -- the map of complete events ----------------------------------------------------------------------------------------


def stamped_events(ledger: Ledger, offsets: list[int], since: int = 1000) -> list[Event]:
    """Events whose timestamps ascend from `since` on."""
    events = [make_event(ledger, offset) for offset in offsets]
    for event in events:
        event.timestamp = since + event.offset
    return events


def commit_of(complete: list[int], delivered: int = 10) -> Commit:
    """What an owner commits that has delivered the events from 0 on and completed some of them."""
    ledger = make_ledger()
    events = stamped_events(ledger, list(range(delivered)))
    for event in events:
        ledger.deliver(event)
    for offset in complete:
        ledger.complete(events[offset])
    assert ledger.due is not None
    return ledger.due


def next_owner(commit: Commit) -> Ledger:
    ledger = Ledger("inference-requests", 0, 2)
    ledger.place(commit.offset, commit)
    return ledger


def delivered_to(ledger: Ledger, offsets: list[int], since: int = 1000) -> list[Event]:
    """The events that were not skipped."""
    return [event for event in stamped_events(ledger, offsets, since) if ledger.deliver(event)]


def test_the_next_owner_skips_what_is_complete_behind_a_slow_event() -> None:
    commit = commit_of([*range(1, 5), 6])
    ledger = next_owner(commit)
    assert commit.offset == 0
    assert ledger.due is None
    slow, *others = delivered_to(ledger, list(range(10)))
    assert [event.offset for event in (slow, *others)] == [0, 5, 7, 8, 9]
    assert (ledger.skipped, ledger.refused, ledger.unfinished, ledger.uncommittable) == (5, 0, 5, 10)
    ledger.complete(slow)
    assert ledger.committable == 5


def test_skipped_events_are_committable_when_nothing_before_them_is_unfinished() -> None:
    ledger = next_owner(commit_of([1, 2, 3]))
    (first,) = delivered_to(ledger, [0])
    ledger.complete(first)
    assert delivered_to(ledger, [1, 2, 3]) == []
    assert ledger.due == Commit(4)
    assert ledger.idle


def test_a_map_survives_an_owner_that_has_read_a_part_of_it() -> None:
    ledger = next_owner(commit_of([*range(1, 8)]))
    delivered_to(ledger, [0, 1, 2, 3])
    again = next_owner(Commit(0, ledger.metadata))
    assert [event.offset for event in delivered_to(again, list(range(10)))] == [0, 8, 9]


def test_a_topic_created_again_discards_the_map_and_delivers_everything() -> None:
    ledger = next_owner(commit_of([2, 3, 4]))
    assert len(delivered_to(ledger, list(range(6)), since=2000)) == 6
    assert (ledger.skipped, ledger.metadata) == (0, "")


def test_a_map_that_is_not_confirmed_yet_is_passed_on_without_events_that_could_confirm_it() -> None:
    ledger = next_owner(commit_of([3, 4, 5]))
    _, second = delivered_to(ledger, [0, 1], since=2000)
    ledger.complete(second)
    again = next_owner(Commit(0, ledger.metadata))
    assert len(delivered_to(again, list(range(10)), since=2000)) == 10
    same = next_owner(Commit(0, ledger.metadata))
    assert [event.offset for event in delivered_to(same, list(range(10)))] == [0, 1, 2, 6, 7, 8, 9]


def test_a_hole_between_complete_events_costs_nothing() -> None:
    lengths = []
    for step in (1, 2):
        ledger = make_ledger()
        events = stamped_events(ledger, [step * number for number in range(1000)])
        for event in events:
            ledger.deliver(event)
        for event in events[1:]:
            ledger.complete(event)
        lengths.append(len(ledger.metadata))
    assert abs(lengths[0] - lengths[1]) < 30


def test_too_many_scattered_events_are_committed_without_a_map() -> None:
    commit = commit_of(list(range(1, 60_000, 3)), delivered=60_000)
    assert commit == Commit(0)


def test_metadata_is_encoded_again_only_after_a_change() -> None:
    ledger = make_ledger()
    events = stamped_events(ledger, [0, 1, 2])
    for event in events:
        ledger.deliver(event)
    ledger.complete(events[2])
    text = ledger.metadata
    assert ledger.metadata is text
    ledger.complete(events[1])
    assert ledger.metadata != text


def test_a_broker_that_refuses_maps_gets_none() -> None:
    commit = commit_of([1, 2])
    ledger = next_owner(commit)
    ledger.maps_refused = True
    assert commit.metadata
    assert ledger.due == Commit(0)
    assert len(delivered_to(ledger, [0, 1, 2, 3])) == 2


def test_metadata_of_somebody_else_is_replaced() -> None:
    ledger = next_owner(Commit(7, "lag=3"))
    assert ledger.due == Commit(7)
    assert ledger.deliver(make_event(ledger, 7))


def test_moving_over_expired_events_keeps_the_map_of_those_that_follow() -> None:
    ledger = next_owner(commit_of([*range(2, 8)]))
    before = ledger.due
    ledger.place(5, ledger.committed)
    after = ledger.due
    assert before is None
    assert after is not None
    assert offsets_in(after) == {5, 6, 7}


def test_a_discarded_map_is_not_passed_on() -> None:
    ledger = next_owner(commit_of([*range(1, 8)]))
    assert len(delivered_to(ledger, [0, 1, 2])) == 1
    assert len(delivered_to(ledger, [3], since=2000)) == 1
    assert offsets_in(Commit(0, ledger.metadata)) == {1, 2}
