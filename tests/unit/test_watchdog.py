"""Watchdog: what is stuck, and what only waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.worker.watchdog import Watchdog

looks = st.lists(st.tuples(st.floats(0.01, 40.0), st.booleans(), st.integers(0, 1)), min_size=1, max_size=60)


@given(looks)
def test_it_is_stuck_exactly_when_there_was_work_and_nothing_moved_for_longer_than_the_limit(
    looks: list[tuple[float, bool, int]],
) -> None:
    watchdog = Watchdog(60.0)
    now, progress, since = 0.0, 0, None
    for step, work, moved in looks:
        now += step
        progress += moved
        since = None if not work else now if moved or since is None else since
        before = watchdog.stuck
        barked = watchdog.look(now, work=work, progress=progress)
        assert watchdog.stuck is (since is not None and now - since > 60.0)
        assert barked is (watchdog.stuck and not before)


def test_it_barks_once_and_is_quiet_when_something_moves() -> None:
    watchdog = Watchdog(60.0)
    barks = [watchdog.look(float(second), work=True, progress=0) for second in range(0, 300, 10)]
    assert barks.count(True) == 1
    assert watchdog.stuck
    assert not watchdog.look(300.0, work=True, progress=1)
    assert not watchdog.stuck
