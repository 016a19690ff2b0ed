"""Bisection, by way of a batcher: which calls a model with a taste for bad events gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log2
from random import Random
from typing import TYPE_CHECKING

from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.core.batches.batcher import Batcher, BatchPolicy, Ordering
from tests.unit.factories import make_event, make_events, make_ledger, take

if TYPE_CHECKING:
    from connector.core.batches.batch import Batch
    from connector.core.event import Event


@dataclass
class Endpoint:
    """A model that fails exactly when a bad event is present, behind as many slots as anyone wants."""

    events: list[Event]
    bad: set[int]
    max_calls: int = 10_000
    ordering: Ordering = Ordering.KEY
    random: Random = field(default_factory=lambda: Random(0))
    calls: list[list[int]] = field(default_factory=list)
    answered: list[Event] = field(default_factory=list)
    dead: list[Event] = field(default_factory=list)

    def serve(self) -> None:
        """Answer one batch of all events, calls ending in any order."""
        policy = BatchPolicy(
            len(self.events), 10**9, 0.0, one_id=False, ordering=self.ordering, max_calls=self.max_calls
        )
        batcher = Batcher(policy)
        batcher.add(self.events)
        in_flight: list[Batch] = []
        while not batcher.empty or in_flight:
            while (batch := batcher.peek(0.0)) is not None:
                batcher.take(batch)
                self.calls.append([event.offset for event in batch.events])
                in_flight.append(batch)
            self.conclude(batcher, in_flight.pop(self.random.randrange(len(in_flight))))

    def conclude(self, batcher: Batcher, batch: Batch) -> None:
        """Say what one call comes to."""
        if self.bad.isdisjoint(event.offset for event in batch.events):
            self.answered += batch.events
            batcher.answered(batch)
        elif len(batch.events) > 1:
            batcher.split(batch)
        else:
            self.answered += batch.events
            self.dead += batch.events
            batcher.answered(batch)


@st.composite
def endpoints(draw: st.DrawFn, max_calls: st.SearchStrategy[int]) -> Endpoint:
    n = draw(st.integers(1, 200))
    bad = draw(st.sets(st.integers(0, n - 1), max_size=draw(st.sampled_from([1, 3, 200]))))
    keys = draw(st.sampled_from([1, 3, 1000]))
    random = draw(st.randoms(use_true_random=True))
    ledger = make_ledger()
    return Endpoint(
        [make_event(ledger, offset, b"%d" % random.randrange(keys)) for offset in range(n)],
        bad,
        draw(max_calls),
        draw(st.sampled_from(Ordering)),
        random,
    )


def bound(n: int, k: int) -> int:
    return 2 * k * ceil(log2(n)) + k + 1


@settings(max_examples=150)
@given(endpoints(st.just(10_000)))
def test_it_finds_exactly_the_bad_events_within_the_logarithmic_bound(endpoint: Endpoint) -> None:
    endpoint.serve()
    assert {event.offset for event in endpoint.dead} == endpoint.bad
    assert sorted(event.offset for event in endpoint.answered) == list(range(len(endpoint.events)))
    assert len(endpoint.calls) <= bound(len(endpoint.events), len(endpoint.bad))


@settings(max_examples=150)
@given(endpoints(st.integers(0, 30)))
def test_with_few_calls_it_still_finds_exactly_the_bad_events_and_keeps_to_them(endpoint: Endpoint) -> None:
    endpoint.serve()
    assert {event.offset for event in endpoint.dead} == endpoint.bad
    assert sorted(event.offset for event in endpoint.answered) == list(range(len(endpoint.events)))
    _, *parts = endpoint.calls
    assert len(parts) <= endpoint.max_calls + len(endpoint.events)
    assert sum(len(part) > 1 for part in parts) <= endpoint.max_calls


@settings(max_examples=100)
@given(endpoints(st.sampled_from([0, 5, 10_000])))
def test_the_outcomes_of_a_lane_come_in_order_whatever_order_calls_end_in(endpoint: Endpoint) -> None:
    endpoint.serve()
    lanes: dict[object, list[int]] = {}
    for event in endpoint.answered:
        if endpoint.ordering is not Ordering.NONE:
            lanes.setdefault(endpoint.ordering is Ordering.KEY and event.key, []).append(event.offset)
    for offsets in lanes.values():
        assert offsets == sorted(offsets)


@settings(max_examples=100)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
@example((256, 255))
def test_one_bad_event_costs_two_calls_for_each_halving(case: tuple[int, int]) -> None:
    n, bad = case
    endpoint = Endpoint(make_events(make_ledger(), "." * n), {bad})
    endpoint.serve()
    assert len(endpoint.calls) <= 2 * ceil(log2(n)) + 1


def batcher(max_events: int, max_calls: int = 64) -> Batcher:
    return Batcher(BatchPolicy(max_events, 10**9, 0.0, one_id=False, max_calls=max_calls))


def test_halves_with_a_common_lane_are_called_one_after_the_other_and_others_side_by_side() -> None:
    b = batcher(4)
    b.add(make_events(make_ledger(), "abca"))
    b.split(take(b))
    left = take(b)
    assert [event.key for event in left.events] == [b"a", b"b"]
    assert b.peek(0.0) is None
    b.split(left)
    singles = [take(b), take(b)]
    assert {event.key for single in singles for event in single.events} == {b"a", b"b"}
    b.answered(singles[0])
    assert b.peek(0.0) is None
    b.answered(singles[1])
    assert [event.key for event in take(b).events] == [b"c", b"a"]


def test_lanes_stay_held_until_every_part_is_answered() -> None:
    b, ledger = batcher(2), make_ledger()
    b.add(make_events(ledger, "ab"))
    batch = take(b)
    b.split(batch)
    b.add(make_events(ledger, "a", first=2))
    for _ in range(2):
        part = take(b)
        assert part.parent is batch
        b.answered(part)
    assert [event.offset for event in take(b).events] == [2]


def test_calls_that_only_repeat_a_part_do_not_use_up_the_calls_of_its_bisection() -> None:
    b = batcher(4, max_calls=3)
    b.add(make_events(make_ledger(), "...."))
    b.split(take(b))
    for _ in range(10):
        part = take(b)
        assert len(part.events) == 2
        b.retry(part, 0.0)


def test_a_part_knows_how_often_its_events_were_called_in_any_company() -> None:
    b = batcher(2)
    b.add(make_events(make_ledger(), ".."))
    for _ in range(2):
        b.retry(take(b), 0.0)
    b.split(take(b))
    assert take(b).tries == 4
