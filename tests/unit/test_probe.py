"""ProbeSchedule: intervals that double, and one probe at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.probe import ProbeSchedule


def test_no_probe_is_due_before_the_schedule_begins() -> None:
    assert not ProbeSchedule(1, 60).due(1e9)


def test_intervals_double_up_to_the_maximum() -> None:
    schedule = ProbeSchedule(1, 10)
    schedule.begin(100)
    now, intervals = 100.0, []
    for _ in range(6):
        assert schedule.next_at is not None
        intervals.append(schedule.next_at - now)
        now = schedule.next_at
        schedule.started()
        schedule.failed(now)
    assert intervals == [1, 2, 4, 8, 10, 10]


def test_a_probe_is_due_from_its_moment_on() -> None:
    schedule = ProbeSchedule(1, 60)
    schedule.begin(100)
    assert [schedule.due(now) for now in (100, 100.999, 101, 5000)] == [False, False, True, True]


def test_no_second_probe_is_due_while_one_is_out() -> None:
    schedule = ProbeSchedule(1, 60)
    schedule.begin(0)
    schedule.started()
    assert not schedule.due(1e9)


def test_a_probe_that_was_abandoned_is_due_again_after_the_same_interval() -> None:
    schedule = ProbeSchedule(1, 60)
    schedule.begin(0)
    schedule.started()
    schedule.failed(1)
    schedule.started()
    schedule.abandoned(10)
    assert schedule.next_at == 12


@pytest.mark.parametrize("verb", ["failed", "abandoned"])
def test_a_probe_that_ends_after_the_schedule_did_makes_none_due(verb: str) -> None:
    schedule = ProbeSchedule(1, 60)
    schedule.begin(0)
    schedule.started()
    schedule.end()
    getattr(schedule, verb)(5)
    assert not schedule.due(1e9)


@given(st.integers(min_value=0, max_value=100))
def test_a_schedule_that_begins_again_starts_with_the_first_interval(failures: int) -> None:
    schedule = ProbeSchedule(1, 60)
    schedule.begin(0)
    for _ in range(failures):
        schedule.failed(0)
    schedule.end()
    schedule.begin(1000)
    assert schedule.next_at == 1001


@pytest.mark.parametrize(("first", "maximum"), [(0, 60), (-1, 60), (61, 60)])
def test_intervals_that_cannot_work_are_refused(first: float, maximum: float) -> None:
    with pytest.raises(ValueError, match="first interval"):
        ProbeSchedule(first, maximum)
