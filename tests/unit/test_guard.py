"""Guard: trips exactly when a full window holds too many dead letters, and resumes on an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.guard import Guard
from connector.core.reason import Reason

REJECTED = Reason.REJECTED_BY_MODEL

finished = st.lists(st.tuples(st.sampled_from([None, REJECTED, Reason.EMPTY]), st.integers(0, 30)), max_size=40)


def count(guard: Guard, reason: Reason | None, events: int, now: float = 0.0) -> bool:
    return guard.answered(events, now) if reason is None else guard.dead_lettered(reason, events, now)


def tripped(window: int = 4, max_ratio: float = 0.5, first_probe: float = 1.0, max_probe: float = 60.0) -> Guard:
    guard = Guard(window, max_ratio, first_probe, max_probe)
    assert guard.dead_lettered(REJECTED, window, 0.0)
    return guard


@given(st.integers(1, 50), st.floats(0, 1), finished)
def test_the_guard_trips_exactly_when_a_full_window_holds_more_than_its_share_of_dead_letters(
    window: int, max_ratio: float, history: list[tuple[Reason | None, int]]
) -> None:
    guard = Guard(window, max_ratio)
    events: list[bool] = []
    for reason, length in history:
        before = len(events)
        events += [reason is not None] * length
        # One event at a time, as the definition says it: the last `window` events after each of them.
        expected = any(
            sum(events[end - window : end]) / window > max_ratio
            for end in range(before + 1, len(events) + 1)
            if end >= window
        )
        assert count(guard, reason, length) == expected
        assert guard.tripped == expected
        assert bool(guard.hint) == expected
        if expected:
            break


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1, exclude_max=True))
def test_a_model_that_rejects_everything_trips_the_guard_after_exactly_one_window(
    window: int, batch: int, max_ratio: float
) -> None:
    guard = Guard(window, max_ratio)
    calls = 1
    while not guard.dead_lettered(REJECTED, batch, 0.0):
        calls += 1
    assert (calls - 1) * batch < window <= calls * batch


@given(finished)
def test_a_ratio_of_one_never_trips(history: list[tuple[Reason | None, int]]) -> None:
    guard = Guard(10, 1.0)
    for reason, events in history:
        assert not count(guard, reason, events)


def test_the_share_that_is_allowed_does_not_trip() -> None:
    guard = Guard(100, 0.29)
    guard.answered(71, 0.0)
    assert not guard.dead_lettered(REJECTED, 29, 0.0)
    assert guard.dead_lettered(REJECTED, 1, 0.0)


def test_results_that_fill_the_window_can_trip_it() -> None:
    guard = Guard(200, 0.5)
    assert not guard.dead_lettered(REJECTED, 150, 0.0)
    assert guard.answered(250, 0.0)
    assert "150 of the last 200 events" in guard.hint


def test_the_hint_names_the_ratio_the_most_frequent_reason_and_what_to_do() -> None:
    guard = Guard(10, 0.5)
    guard.answered(3, 0.0)
    guard.dead_lettered(Reason.EMPTY, 2, 0.0)
    guard.dead_lettered(REJECTED, 5, 0.0)
    assert "7 of the last 10 events" in guard.hint
    assert f"{REJECTED}: {REJECTED.meaning}" in guard.hint
    assert "container's log" in guard.hint


def test_events_that_never_reach_the_model_get_a_hint_of_their_own() -> None:
    guard = Guard(10, 0.5)
    guard.dead_lettered(Reason.UNDECODABLE, 10, 0.0)
    assert "request.format" in guard.hint
    assert "model" not in guard.hint


def test_the_hint_speaks_of_the_window_and_not_of_what_left_it() -> None:
    guard = Guard(10, 0.9)
    for _ in range(20):
        guard.dead_lettered(Reason.EMPTY, 5, 0.0)
        guard.answered(5, 0.0)
    assert guard.dead_lettered(REJECTED, 10, 0.0)
    assert "10 of the last 10 events could not be answered, most often rejected_by_model" in guard.hint


def test_a_tripped_guard_trips_once_and_counts_nothing() -> None:
    guard = tripped()
    hint = guard.hint
    assert not guard.dead_lettered(Reason.EMPTY, 100, 5.0)
    assert not guard.answered(100, 5.0)
    assert guard.tripped
    assert guard.hint == hint
    assert guard.next_probe_at == 1.0


def test_an_answered_probe_empties_the_window() -> None:
    guard = tripped(window=4)
    guard.probe_started()
    guard.probe_succeeded()
    assert (guard.tripped, guard.hint, guard.ratio, guard.next_probe_at) == (False, "", 0.0, None)
    assert not guard.dead_lettered(REJECTED, 3, 10.0)
    assert guard.dead_lettered(REJECTED, 1, 10.0)
    assert guard.next_probe_at == 11.0


def test_the_hint_after_a_resume_forgets_what_was_before() -> None:
    guard = Guard(10, 0.5)
    guard.dead_lettered(Reason.EMPTY, 10, 0.0)
    guard.probe_succeeded()
    guard.answered(4, 0.0)
    guard.dead_lettered(REJECTED, 6, 0.0)
    assert "6 of the last 10 events could not be answered, most often rejected_by_model" in guard.hint


def test_rejected_probes_come_at_growing_intervals() -> None:
    guard = tripped(first_probe=1.0, max_probe=3.0)
    intervals, now = [], 0.0
    for _ in range(4):
        assert guard.next_probe_at is not None
        intervals.append(guard.next_probe_at - now)
        now = guard.next_probe_at
        assert guard.probe_due(now)
        guard.probe_started()
        assert not guard.probe_due(now + 1000)
        guard.probe_rejected(now)
    assert intervals == [1, 2, 3, 3]


def test_a_probe_that_was_abandoned_is_due_again() -> None:
    guard = tripped()
    guard.probe_started()
    guard.probe_abandoned(7.0)
    assert guard.next_probe_at == 8.0


def test_no_probe_is_due_while_the_guard_is_not_tripped() -> None:
    assert not Guard(10, 0.5).probe_due(1e9)


@given(st.lists(st.tuples(st.sampled_from([None, REJECTED]), st.integers(0, 300)), max_size=30))
def test_the_ratio_is_that_of_the_last_events(history: list[tuple[Reason | None, int]]) -> None:
    guard = Guard(50, 1.0)
    events: list[bool] = []
    for reason, length in history:
        count(guard, reason, length)
        events = (events + [reason is not None] * length)[-50:]
    assert guard.ratio == (sum(events) / len(events) if events else 0.0)


def test_a_window_without_events_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 event"):
        Guard(0, 0.5)
