"""Backoff: full jitter under a bound that doubles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.retry import full_jitter


def test_the_bound_doubles_up_to_the_maximum() -> None:
    waits = [full_jitter(attempt, 0.1, 1.0, 0.5) for attempt in range(6)]
    assert waits == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.5, 0.5])


@given(
    st.integers(min_value=0, max_value=10**18),
    st.floats(min_value=0, max_value=1e300),
    st.floats(min_value=0, max_value=1e300),
    st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_a_wait_is_finite_and_within_its_bounds_at_any_attempt(
    attempt: int, initial: float, maximum: float, random: float
) -> None:
    wait = full_jitter(attempt, initial, maximum, random)
    assert math.isfinite(wait)
    assert 0 <= wait <= maximum


@given(st.integers(min_value=0, max_value=2000), st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_later_attempt_never_waits_less_for_the_same_luck(attempt: int, random: float) -> None:
    assert full_jitter(attempt, 0.1, 20.0, random) <= full_jitter(attempt + 1, 0.1, 20.0, random)
