"""The fixed limiter beyond what every limiter keeps to: its limit is what the settings say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.limiter import FixedLimiter
from connector.core.reason import Reason


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
