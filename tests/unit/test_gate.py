"""The gate: what may be called while consuming is stopped, and what opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.batches.batcher import Batcher, BatchPolicy
from connector.core.calls.gate import Gate
from connector.core.calls.guard import Guard
from connector.core.calls.halt import Halt
from connector.core.calls.outcome import OK, Kind, Outcome
from connector.core.reason import Reason
from tests.unit.factories import make_events, make_ledger

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.core.batches.batch import Batch

RETRY = Outcome(Kind.RETRY, Reason.THROTTLED)
SPLIT = Outcome(Kind.SPLIT, Reason.REJECTED_BY_MODEL)
REJECTED = Outcome(Kind.DEAD_LETTER, Reason.REJECTED_BY_MODEL)
DENIED = Outcome(Kind.HALT, Reason.ACCESS_DENIED, "not authorized")


def make_gate() -> Gate:
    return Gate(Guard(window=1, max_ratio=0.5), Halt())


def batcher_of(keys: str, *, max_events: int = 1) -> Batcher:
    batcher = Batcher(BatchPolicy(max_events=max_events, max_bytes=1000, linger=0.0, one_id=False))
    batcher.add(make_events(make_ledger(), keys))
    return batcher


def halted() -> Gate:
    gate = make_gate()
    gate.halt.begin("access_denied", "not authorized", 0.0)
    return gate


def guarded() -> Gate:
    gate = make_gate()
    assert gate.guard.dead_lettered(Reason.REJECTED_BY_MODEL, 1, 0.0)
    return gate


def probe(gate: Gate, batcher: Batcher, now: float) -> Batch:
    """The probe that is due."""
    batch = gate.choose(batcher, now)
    assert batch is not None
    return gate.take(batcher, batch)


def keys_of(batch: Batch) -> bytes:
    return b"".join(event.key or b"." for event in batch.events)


def test_an_open_gate_gives_what_the_batcher_gives() -> None:
    gate, batcher = make_gate(), batcher_of("abc")
    for key in (b"a", b"b", b"c"):
        batch = gate.choose(batcher, 0.0)
        assert batch is not None
        assert batch is batcher.peek(0.0)
        assert gate.take(batcher, batch) is batch
        assert keys_of(batch) == key
        assert not gate.probing
        assert not gate.is_probe(batch)
        assert not gate.concluded(batch, OK, 0.0)
    assert gate.choose(batcher, 0.0) is None
    assert (gate.closed, gate.wake_at()) == (False, None)


@pytest.mark.parametrize("make", [halted, guarded])
def test_a_closed_gate_gives_one_batch_when_a_probe_is_due(make: Callable[[], Gate]) -> None:
    gate, batcher = make(), batcher_of("ab")
    assert gate.closed
    assert gate.wake_at() == 1.0
    assert gate.choose(batcher, 0.99) is None
    batch = probe(gate, batcher, 1.0)
    assert gate.is_probe(batch)
    assert gate.probing
    assert gate.wake_at() is None
    assert gate.choose(batcher, 100.0) is None, "one probe at a time"
    assert gate.concluded(batch, OK, 100.0)
    assert (gate.closed, gate.probing) == (False, False)


@pytest.mark.parametrize("make", [make_gate, halted, guarded])
def test_to_ask_what_may_be_called_starts_nothing(make: Callable[[], Gate]) -> None:
    gate, batcher = make(), batcher_of("abc", max_events=3)
    before = gate.wake_at(), batcher.state()
    batch = gate.choose(batcher, 1.0)
    assert batch is not None
    assert gate.choose(batcher, 1.0) is batch, "a slot that is not free changes nothing either"
    assert (gate.wake_at(), batcher.state(), gate.probing) == (*before, False)


@pytest.mark.parametrize("make", [halted, guarded])
def test_a_probe_that_has_nothing_to_call_stays_due(make: Callable[[], Gate]) -> None:
    gate = make()
    assert gate.choose(batcher_of(""), 1.0) is None
    assert not gate.probing
    assert probe(gate, batcher_of("a"), 1.0).events


def test_a_halts_probe_is_a_whole_batch_and_the_guards_a_single_event() -> None:
    assert keys_of(probe(halted(), batcher_of("abc", max_events=3), 1.0)) == b"abc"
    batcher = batcher_of("abc", max_events=3)
    assert keys_of(probe(guarded(), batcher, 1.0)) == b"a"
    rest = batcher.peek(1.0)
    assert rest is not None
    assert keys_of(rest) == b"bc"


def test_halted_and_guarded_the_halt_goes_first_and_its_probe_may_end_both() -> None:
    gate, batcher = guarded(), batcher_of("abc", max_events=3)
    gate.halt.begin("access_denied", "not authorized", 0.0)
    batch = probe(gate, batcher, 1.0)
    assert len(batch.events) == 3
    assert gate.concluded(batch, OK, 1.0)
    assert not gate.closed


def test_a_halt_puts_the_guards_probes_off_until_its_own_are_due() -> None:
    gate, batcher = guarded(), batcher_of("ab")
    gate.halt.begin("access_denied", "not authorized", 5.0)
    assert gate.wake_at() == 6.0
    assert gate.choose(batcher, 5.9) is None
    assert gate.choose(batcher, 6.0) is not None


def test_a_halt_waits_for_the_guards_probe_that_is_out() -> None:
    gate, batcher = guarded(), batcher_of("ab")
    batch = probe(gate, batcher, 1.0)
    gate.halt.begin("access_denied", "not authorized", 1.0)
    assert gate.choose(batcher, 10.0) is None
    assert gate.concluded(batch, OK, 10.0)


def test_a_rejected_probe_ends_the_halt_but_not_the_guard() -> None:
    gate = guarded()
    gate.halt.begin("access_denied", "not authorized", 0.0)
    batch = probe(gate, batcher_of("a"), 1.0)
    assert not gate.concluded(batch, REJECTED, 5.0)
    assert not gate.halt.halted
    assert gate.guard.tripped
    assert gate.wake_at() == 7.0, "two seconds later"


@pytest.mark.parametrize("outcome", [OK, SPLIT, REJECTED])
def test_any_outcome_but_halt_and_retry_ends_a_halt(outcome: Outcome) -> None:
    gate = halted()
    assert gate.concluded(probe(gate, batcher_of("a"), 1.0), outcome, 1.0)
    assert not gate.closed


@pytest.mark.parametrize(("outcome", "next_at"), [(DENIED, 7.0), (RETRY, 6.0)])
def test_a_halt_whose_probe_fails_goes_on_and_only_the_same_failure_doubles_its_interval(
    outcome: Outcome, next_at: float
) -> None:
    gate = halted()
    assert not gate.concluded(probe(gate, batcher_of("a"), 1.0), outcome, 5.0)
    assert gate.closed
    assert gate.wake_at() == next_at


@pytest.mark.parametrize(("outcome", "next_at"), [(REJECTED, 7.0), (RETRY, 6.0)])
def test_the_guard_stays_closed_after_a_probe_that_was_not_answered(outcome: Outcome, next_at: float) -> None:
    gate = guarded()
    assert not gate.concluded(probe(gate, batcher_of("a"), 1.0), outcome, 5.0)
    assert gate.closed
    assert gate.wake_at() == next_at


@pytest.mark.parametrize("outcome", [OK, RETRY, SPLIT, REJECTED, DENIED])
@pytest.mark.parametrize("make", [halted, guarded])
def test_a_call_that_is_no_probe_neither_opens_the_gate_nor_moves_its_probe(
    make: Callable[[], Gate], outcome: Outcome
) -> None:
    gate, batcher = make(), batcher_of("ab")
    other = batcher.peek(0.0)
    assert other is not None
    batcher.take(other)
    assert not gate.concluded(other, outcome, 0.5)
    assert gate.wake_at() == 1.0
    batch = probe(gate, batcher, 1.0)
    assert not gate.concluded(other, outcome, 1.5)
    assert gate.is_probe(batch)
    assert gate.wake_at() is None


def test_another_lane_is_probed_each_time_where_there_is_one() -> None:
    gate, batcher = guarded(), batcher_of("aab")
    seen = []
    now = 0.0
    for _ in range(4):
        now = gate.wake_at() or now
        batcher.ripen(now)
        batch = probe(gate, batcher, now)
        seen.append(keys_of(batch))
        gate.concluded(batch, RETRY, now)
        batcher.retry(batch, now)
    assert seen == [b"a", b"b", b"a", b"b"]


@pytest.mark.parametrize("make", [halted, guarded])
def test_an_abandoned_probe_is_followed_by_another_after_the_same_interval(make: Callable[[], Gate]) -> None:
    gate = make()
    batch = probe(gate, batcher_of("a"), 1.0)
    gate.abandoned(3.0)
    assert not gate.probing
    assert gate.wake_at() == 4.0
    assert not gate.concluded(batch, OK, 3.5), "its answer is one of an earlier era"
    assert gate.closed


@given(st.lists(st.tuples(st.sampled_from(["trip", "probe", "end", "stray", "abandon", "wait"]), st.integers(0, 4))))
def test_a_closed_gate_always_has_a_probe_out_or_to_come(steps: list[tuple[str, int]]) -> None:
    gate, batcher, now = make_gate(), batcher_of("abcdefgh" * 50), 0.0
    out: Batch | None = None
    others: list[Batch] = []

    def conclude(batch: Batch, outcome: Outcome) -> None:
        gate.concluded(batch, outcome, now)
        if outcome.kind is Kind.HALT:
            gate.halt.begin(outcome.reason, outcome.message, now)
        elif outcome.kind is Kind.DEAD_LETTER:
            gate.guard.dead_lettered(outcome.reason, 1, now)

    for step, number in steps:
        outcome = (OK, RETRY, SPLIT, REJECTED, DENIED)[number]
        if step == "trip":
            gate.guard.dead_lettered(Reason.EMPTY, 1, now)
        elif step == "probe":
            now = max(now, gate.wake_at() or now)
            batch = gate.choose(batcher, now)
            if batch is not None:
                batch = gate.take(batcher, batch)
                if gate.is_probe(batch):
                    out = batch
                else:
                    others.append(batch)
        elif step == "end" and out is not None:
            conclude(out, outcome)
            out = None
        elif step == "stray" and others:
            conclude(others.pop(), outcome)
        elif step == "abandon":
            gate.abandoned(now)
            out = None
        else:
            now += number
        assert gate.closed or gate.wake_at() is None
        assert not gate.closed or gate.probing or gate.wake_at() is not None
        assert gate.probing is (out is not None)
