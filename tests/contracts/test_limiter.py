"""What every Limiter keeps to, whatever its limit does: never too many calls or bytes in flight, and never none at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from connector.core.calls.limiter import FixedLimiter, Limiter, Slot
from connector.core.reason import Reason

MakeLimiter = Callable[[int, int], Limiter]
"""Makes one for the most calls and bytes that the settings allow."""
LIMITERS: dict[str, MakeLimiter] = {"fixed": FixedLimiter}

every_limiter = pytest.mark.parametrize("make", LIMITERS.values(), ids=LIMITERS)
sizes = st.integers(0, 150)
ends = st.none() | st.sampled_from(Reason)


class Calls(RuleBasedStateMachine):
    """Calls that start and end in any order, for any reason, beside the sum of what they hold."""

    def __init__(self, make: MakeLimiter) -> None:
        super().__init__()
        self._make = make
        self._taken: list[Slot] = []
        self._given_back: list[Slot] = []
        self._now = 0.0

    @initialize(max_in_flight=st.integers(1, 8), max_bytes=st.integers(0, 100))
    def begin(self, max_in_flight: int, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._limiter = self._make(max_in_flight, max_bytes)
        self._stranger = self._make(max_in_flight, max_bytes).start(1, 0.0)

    @property
    def _bytes(self) -> int:
        return sum(slot.size for slot in self._taken)

    @rule(seconds=st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self._now += seconds

    @rule(size=sizes)
    def start(self, size: int) -> None:
        limiter = self._limiter
        within = len(self._taken) < limiter.limit and self._bytes + size <= self._max_bytes
        # What is larger than all that may be in flight could otherwise never start.
        assert limiter.free(size) is (within or not self._taken)
        if limiter.free(size):
            slot = limiter.start(size, self._now)
            assert (slot.size, slot.started) == (size, self._now)
            self._taken.append(slot)
            assert len(self._taken) <= limiter.limit
            assert self._bytes <= self._max_bytes or len(self._taken) == 1
        else:
            with pytest.raises(RuntimeError, match="No slot is free"):
                limiter.start(size, self._now)

    @precondition(lambda self: len(self._taken) < self._limiter.limit and self._bytes <= self._max_bytes)
    @rule()
    def start_what_just_fits(self) -> None:
        left = self._max_bytes - self._bytes
        assert self._limiter.free(left + 1) is not bool(self._taken)
        self.start(left)

    @precondition(lambda self: self._taken)
    @rule(place=st.integers(0, 20), reason=ends)
    def finish(self, place: int, reason: Reason | None) -> None:
        slot = self._taken.pop(place % len(self._taken))
        self._limiter.finish(slot, reason, self._now)
        self._given_back.append(slot)

    @precondition(lambda self: self._given_back)
    @rule(place=st.integers(0, 20), reason=ends)
    def finish_again(self, place: int, reason: Reason | None) -> None:
        with pytest.raises(ValueError, match="not taken"):
            self._limiter.finish(self._given_back[place % len(self._given_back)], reason, self._now)

    @rule(reason=ends)
    def finish_what_another_gave(self, reason: Reason | None) -> None:
        with pytest.raises(ValueError, match="not taken"):
            self._limiter.finish(self._stranger, reason, self._now)

    @invariant()
    def it_adds_up(self) -> None:
        assert self._limiter.in_flight == len(self._taken)
        assert self._limiter.bytes_in_flight == self._bytes

    @invariant()
    def it_never_stops_everything(self) -> None:
        assert self._limiter.limit >= 1

    @invariant()
    def it_says_why_in_a_sentence(self) -> None:
        why = self._limiter.why
        assert why[:1].isupper()
        assert why.endswith(".")
        assert "\n" not in why


@every_limiter
def test_the_bounds_hold_and_what_is_in_flight_is_exact_however_calls_end(make: MakeLimiter) -> None:
    plan = settings(max_examples=100, stateful_step_count=40)
    run_state_machine_as_test(lambda: Calls(make), settings=plan)  # type: ignore[arg-type] # anything that makes one
