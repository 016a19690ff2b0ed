"""Lease: when a process may take itself for the owner of its partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.core.epochs.lease import Lease

moments = st.floats(min_value=0, max_value=1000)


def test_nobody_is_an_owner_before_the_coordinator_has_said_so() -> None:
    assert not Lease(10.0).holds(0.0)


@given(st.lists(moments, min_size=1), moments)
def test_it_holds_for_its_duration_from_the_latest_moment_at_which_the_coordinator_was_asked(
    asked: list[float], now: float
) -> None:
    lease = Lease(10.0)
    for moment in asked:
        lease.renew(moment)
    assert lease.holds(now) is (now < max(asked) + 10.0)


def test_an_answer_that_waited_while_the_process_was_stopped_is_no_evidence() -> None:
    lease = Lease(10.0)
    asked, woken = 100.0, 130.0
    lease.renew(asked)  # read at `woken`
    assert not lease.holds(woken)


def test_it_ends_when_the_group_says_that_we_are_no_member() -> None:
    lease = Lease(10.0)
    lease.renew(0.0)
    lease.end()
    assert not lease.holds(1.0)
