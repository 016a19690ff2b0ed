"""Limiter: never more calls or bytes in flight than allowed, and never none at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.limiter import FixedLimiter, Limiter, Slot
from connector.core.reason import Reason

# A step takes a slot of so many bytes, or gives back the slot of this place among those taken.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 150)),
        st.tuples(st.just("finish"), st.integers(0, 20)),
    ),
    max_size=80,
)


@given(st.integers(1, 8), st.integers(0, 100), steps)
def test_the_bounds_hold_and_what_is_in_flight_is_exact(
    max_in_flight: int, max_bytes: int, plan: list[tuple[str, int]]
) -> None:
    limiter: Limiter = FixedLimiter(max_in_flight, max_bytes)
    taken: list[Slot] = []
    for now, (verb, number) in enumerate(plan):
        if verb == "start":
            bytes_after = sum(slot.size for slot in taken) + number
            expected = not taken or (len(taken) < max_in_flight and bytes_after <= max_bytes)
            assert limiter.free(number) == expected
            if expected:
                taken.append(limiter.start(number, now))
            else:
                with pytest.raises(RuntimeError, match="No slot is free"):
                    limiter.start(number, now)
        elif taken:
            limiter.finish(taken.pop(number % len(taken)), Reason.OK, now)
        assert limiter.in_flight == len(taken) <= limiter.limit
        assert limiter.bytes_in_flight == sum(slot.size for slot in taken)
        assert limiter.bytes_in_flight <= max_bytes or len(taken) == 1


def test_a_call_over_the_whole_byte_budget_starts_when_it_is_alone() -> None:
    limiter = FixedLimiter(4, 100)
    small = limiter.start(1, 0.0)
    assert not limiter.free(101)
    limiter.finish(small, Reason.OK, 1.0)
    large = limiter.start(101, 1.0)
    assert not limiter.free(0)
    limiter.finish(large, None, 2.0)
    assert (limiter.in_flight, limiter.bytes_in_flight) == (0, 0)


def test_the_byte_budget_can_be_used_to_the_last_byte() -> None:
    limiter = FixedLimiter(4, 100)
    limiter.start(40, 0.0)
    assert not limiter.free(61)
    assert limiter.free(60)


def test_a_slot_is_given_back_once() -> None:
    limiter = FixedLimiter(4, 100)
    slot = limiter.start(10, 0.0)
    limiter.start(10, 0.0)
    limiter.finish(slot, Reason.THROTTLED, 1.0)
    with pytest.raises(ValueError, match="not taken"):
        limiter.finish(slot, Reason.OK, 2.0)
    assert (limiter.in_flight, limiter.bytes_in_flight) == (1, 10)


def test_a_slot_of_another_limiter_is_refused() -> None:
    slot = FixedLimiter(4, 100).start(10, 0.0)
    with pytest.raises(ValueError, match="not taken"):
        FixedLimiter(4, 100).finish(slot, Reason.OK, 0.0)


@given(st.lists(st.sampled_from(Reason), max_size=20))
def test_a_fixed_limit_does_not_move_and_says_why(reasons: list[Reason]) -> None:
    limiter = FixedLimiter(4, 100)
    for now, reason in enumerate(reasons):
        limiter.finish(limiter.start(1, now), reason, now)
    assert limiter.limit == 4
    assert "concurrency.max_in_flight" in limiter.why


def test_a_limit_that_allows_no_call_is_refused() -> None:
    with pytest.raises(ValueError, match="At least 1 call"):
        FixedLimiter(0, 100)
