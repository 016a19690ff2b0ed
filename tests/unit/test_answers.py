"""The answers against a naive model: every portion is the longest answered prefix that fits, and commits what follows it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connector.core.answers.outgoing import Outgoing
from connector.core.answers.portion import Answers, Portion
from connector.core.epochs.ledger import Commit, Ledger
from connector.core.event import Event
from connector.core.reason import Reason
from tests.unit.factories import make_event, make_ledger


def answer(event: Event, size: int = 1, reason: Reason | None = None) -> Outgoing:
    return Outgoing(event, None, b"x" * size, [], 0, reason)


@dataclass
class Group:
    """What the brokers know: the group's commit, and how often the answer of each event was published."""

    commit: Commit | None = None
    published: dict[int, int] = field(default_factory=dict)


class Answering(RuleBasedStateMachine):
    """Events with holes between them, answered in any order by owners that take over at any moment."""

    @initialize(
        first=st.integers(0, 3),
        steps=st.lists(st.integers(1, 3), min_size=1, max_size=40),
        inherited=st.sets(st.integers(0, 40)),
    )
    def create(self, first: int, steps: list[int], inherited: set[int]) -> None:
        self.log = [first]
        for step in steps:
            self.log.append(self.log[-1] + step)
        self.group = Group()
        self.unfinished: list[Event] = []
        self.answers: Answers
        self.in_hand: dict[int, Outgoing] = {}
        self.mapped = self.committed_with_a_map(inherited)
        self.take_over()

    def committed_with_a_map(self, wanted: set[int]) -> set[int]:
        """Let an at-least-once owner commit the first offset, with a map of some events behind it; what it names."""
        finished = {offset for number, offset in enumerate(self.log) if number in wanted and number > 0}
        if not finished:
            return set()
        ledger = make_ledger(position=self.log[0])
        events = [self.event(ledger, offset) for offset in self.log]
        for event in events:
            ledger.deliver(event)
        for event in events:
            if event.offset in finished:
                ledger.complete(event)
        self.group.commit = ledger.due
        assert self.group.commit is not None
        assert self.group.commit.metadata
        return finished

    @staticmethod
    def event(ledger: Ledger, offset: int) -> Event:
        event = make_event(ledger, offset)
        event.timestamp = 1000 + offset
        return event

    @rule()
    def take_over(self) -> None:
        ledger = Ledger("inference-requests", 0, 1)
        self.answers = Answers(ledger)
        assert self.answers.portion(10, 10) is None, "nothing can be committed before there is a position"
        commit = self.group.commit
        ledger.place(self.log[0] if commit is None else commit.offset, commit)
        self.unfinished, self.in_hand = [], {}

    @rule(count=st.integers(1, 5))
    def deliver(self, count: int) -> None:
        ledger = self.answers.ledger
        assert ledger.next_offset is not None
        for offset in [offset for offset in self.log if offset >= ledger.next_offset][:count]:
            event = self.event(ledger, offset)
            if ledger.deliver(event):
                self.unfinished.append(event)
            else:
                assert offset in self.mapped

    @precondition(lambda self: bool(self.unfinished))
    @rule(data=st.data(), size=st.integers(0, 5), dead=st.booleans())
    def add(self, data: st.DataObject, size: int, dead: bool) -> None:
        event = data.draw(st.sampled_from(self.unfinished))
        outgoing = answer(event, size, Reason.TOO_LARGE if dead else None)
        self.answers.add(outgoing)
        self.in_hand[event.offset] = outgoing

    @precondition(lambda self: bool(self.unfinished))
    @rule(count=st.integers(1, 10), size=st.integers(0, 5))
    def add_the_oldest(self, count: int, size: int) -> None:
        for event in self.unfinished[:count]:
            self.answers.add(answer(event, size))
            self.in_hand[event.offset] = answer(event, size)

    @precondition(lambda self: bool(self.in_hand))
    @rule(data=st.data(), replaced=st.booleans())
    def take_back(self, data: st.DataObject, replaced: bool) -> None:
        held = {outgoing.event.offset: outgoing for outgoing in self.held()}
        offset = data.draw(st.sampled_from(sorted(held)))
        if replaced:
            self.answers.add(answer(held[offset].event, 2, Reason.TOO_LARGE))
        else:
            del self.in_hand[offset]
        self.answers.take_back(held[offset])

    def held(self) -> list[Outgoing]:
        """The very answers that are kept."""
        return list(self.answers._by_offset.values())

    @rule(most=st.integers(1, 6), most_bytes=st.integers(0, 12), heard=st.sampled_from([True, True, False]))
    def transact(self, most: int, most_bytes: int, heard: bool) -> None:
        portion = self.answers.portion(most, most_bytes)
        self.check(portion, most, most_bytes)
        if portion is None or not heard:
            return
        ledger = self.answers.ledger
        for outgoing in portion.outgoings:
            offset = outgoing.event.offset
            self.group.published[offset] = self.group.published.get(offset, 0) + 1
            self.in_hand.pop(offset)
        self.group.commit = ledger.committed = portion.commit
        settled = self.answers.settle(portion.commit.offset)
        assert settled == portion.outgoings
        for outgoing in settled:
            ledger.complete(outgoing.event)
            self.unfinished.remove(outgoing.event)

    def check(self, portion: Portion | None, most: int, most_bytes: int) -> None:
        """Compare a portion with what the words say."""
        ledger = self.answers.ledger
        if ledger.committed is None:
            assert portion == Portion([], Commit(self.log[0]))
            return
        prefix: list[int] = []
        for event in self.unfinished:
            if event.offset not in self.in_hand or len(prefix) == most:
                break
            prefix.append(event.offset)
        if portion is None:
            assert not prefix
            assert ledger.due is None
            return
        taken = [outgoing.event.offset for outgoing in portion.outgoings]
        assert taken == prefix[: len(taken)]
        assert bool(taken) is bool(prefix)
        sizes = [len(outgoing.value or b"") for outgoing in portion.outgoings]
        assert len(taken) == 1 or sum(sizes) <= most_bytes or not taken
        if len(taken) < len(prefix):
            following = next(one for one in self.held() if one.event.offset == prefix[len(taken)])
            assert sum(sizes) + len(following.value or b"") > most_bytes, "an answer was left out that fits"
        rest = self.unfinished[len(taken) :]
        assert portion.commit.offset == (rest[0].offset if rest else ledger.next_offset)

    @invariant()
    def nothing_below_the_commit_is_without_its_answer_and_nothing_has_two(self) -> None:
        below = [offset for offset in self.log if self.group.commit is not None and offset < self.group.commit.offset]
        assert set(below) - self.mapped == set(self.group.published) - self.mapped
        assert all(count == 1 for count in self.group.published.values())
        assert not self.mapped & set(self.group.published)

    @invariant()
    def it_keeps_what_is_in_hand(self) -> None:
        assert len(self.answers) == len(self.in_hand)


TestAnswering = Answering.TestCase
TestAnswering.settings = settings(max_examples=150, stateful_step_count=50)


def test_a_replaced_answer_is_not_taken_back_in_the_place_of_the_other() -> None:
    ledger = make_ledger()
    event = make_event(ledger, 0)
    answers, result, letter = Answers(ledger), answer(event), answer(event, reason=Reason.TOO_LARGE)
    answers.add(result)
    answers.add(letter)
    answers.take_back(result)
    assert answers.settle(1) == [letter]


@pytest.mark.parametrize("finished", [False, True])
def test_an_ended_epoch_has_nothing_to_commit(finished: bool) -> None:
    ledger = make_ledger()
    event = make_event(ledger, 0)
    ledger.deliver(event)
    answers = Answers(ledger)
    ledger.committed = Commit(0) if finished else None
    answers.add(answer(event))
    ledger.drop()
    assert answers.portion(10, 10) is None
