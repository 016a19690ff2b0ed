"""The batcher under a simulated owner, with any policy, load and luck."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core.batches.batcher import BatchPolicy, Ordering
from connector.core.event import Route
from tests.unit.simulated_owner import SimulatedOwner, Spec


@st.composite
def owners(draw: st.DrawFn) -> SimulatedOwner:
    """An owner with any policy, any load and any luck."""
    policy = BatchPolicy(
        max_events=draw(st.sampled_from([1, 2, 3, 5, 8, 64])),
        max_bytes=draw(st.sampled_from([1, 20, 60, 10_000])),
        linger=float(draw(st.sampled_from([0, 0, 1, 4]))),
        one_id=draw(st.booleans()),
        ordering=draw(st.sampled_from(Ordering)),
        overhead=draw(st.sampled_from([0, 2])),
        row_overhead=draw(st.sampled_from([0, 1])),
        max_calls=draw(st.sampled_from([0, 1, 3, 64])),
    )
    keys = [None, b"", b"a", b"b", b"c", b"d"][: draw(st.integers(1, 6))]
    routes = [Route("one"), Route("two")][: draw(st.integers(1, 2))]
    partitions, bad = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 0.05, 0.3, 1.0]))
    random = draw(st.randoms(use_true_random=True))
    specs = [
        Spec(
            partition=random.randrange(partitions),
            key=random.choice(keys),
            route=random.choice(routes),
            payload=b"x" * random.randint(1, 12),
            bad=random.random() < bad,
        )
        for _ in range(draw(st.integers(1, 80)))
    ]
    return SimulatedOwner(policy, draw(st.integers(1, 8)), specs, random)


@settings(max_examples=400)
@given(owners())
def test_every_event_leaves_exactly_once_in_order_and_within_all_bounds(owner: SimulatedOwner) -> None:
    owner.run()
    owner.check_that_nothing_is_left()


@settings(max_examples=250)
@given(owners())
def test_probes_change_none_of_that(owner: SimulatedOwner) -> None:
    owner.run(probe=True)
    owner.check_that_nothing_is_left()


@settings(max_examples=400)
@given(owners(), st.integers(0, 40))
def test_a_drain_calls_what_stands_before_answered_events_and_nothing_else(owner: SimulatedOwner, steps: int) -> None:
    for _ in range(steps):
        if owner.busy:
            owner.step()
    owner.drain()
    owner.check_that_answers_stand_in_no_gap()
