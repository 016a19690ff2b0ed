"""Retry: which events are too old to be called again, and full jitter under a bound that doubles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batches.batch import Batch
from connector.core.calls.retry import RetryPolicy, full_jitter
from connector.core.reason import Reason
from tests.unit.factories import ROUTE, make_event, make_ledger


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


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.none() | st.floats(0.001, 5.0), st.integers(0, 10_000)
)
def test_an_event_is_too_old_by_its_own_timestamp_alone(
    timestamps: list[int], max_age: float | None, now_ms: int
) -> None:
    batch, ledger = Batch(1, ROUTE, ROUTE, 0.0), make_ledger()
    for offset, timestamp in enumerate(timestamps):
        event = make_event(ledger, offset)
        event.timestamp = timestamp
        batch.events.append(event)
    expired, rest = RetryPolicy(0.1, 1.0, max_age).by_age(batch, now_ms)
    assert sorted([*expired, *rest], key=lambda event: event.offset) == batch.events
    assert [expired, rest] == [sorted(part, key=lambda event: event.offset) for part in (expired, rest)]
    for event in batch.events:
        assert (event in expired) is (max_age is not None and now_ms - event.timestamp > max_age * 1000)


def test_a_wait_counts_the_failures_of_its_own_reason() -> None:
    batch, policy = Batch(1, ROUTE, ROUTE, 0.0), RetryPolicy(0.1, 1.0)
    batch.attempts.update({Reason.THROTTLED: 3, Reason.TIMEOUT: 1})
    assert [policy.wait(batch, reason, 0.5) for reason in (Reason.THROTTLED, Reason.TIMEOUT, Reason.CREDENTIALS)] == [
        pytest.approx(0.2),
        pytest.approx(0.05),
        pytest.approx(0.05),
    ]
