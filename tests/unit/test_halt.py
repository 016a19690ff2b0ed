"""Halt: says its cause once, and probes until it is mended."""

from __future__ import annotations

from connector.core.calls.halt import Halt
from connector.core.reason import Reason


def test_a_halt_is_worth_a_log_line_once_per_reason() -> None:
    halt = Halt()
    assert halt.begin(Reason.MISCONFIGURED, "Endpoint a not found.", 0.0)
    assert not halt.begin(Reason.MISCONFIGURED, "Endpoint a not found.", 1.0)
    assert halt.begin(Reason.ACCESS_DENIED, "Not allowed.", 2.0)
    assert (halt.halted, halt.reason, halt.message) == (True, "access_denied", "Not allowed.")


def test_calls_that_end_while_halted_do_not_put_off_the_probe() -> None:
    halt = Halt(first_probe=1.0)
    halt.begin("misconfigured", "", 0.0)
    halt.begin("misconfigured", "", 0.9)
    halt.begin("access_denied", "", 0.95)
    assert halt.next_probe_at == 1.0


def test_failed_probes_come_at_growing_intervals() -> None:
    halt = Halt(first_probe=1.0, max_probe=3.0)
    halt.begin("misconfigured", "", 0.0)
    intervals, now = [], 0.0
    for _ in range(4):
        assert halt.next_probe_at is not None
        intervals.append(halt.next_probe_at - now)
        now = halt.next_probe_at
        assert halt.probe_due(now)
        halt.probe_started()
        assert not halt.probe_due(now + 1000)
        halt.probe_failed(now)
    assert intervals == [1, 2, 3, 3]


def test_a_probe_that_was_abandoned_is_due_again() -> None:
    halt = Halt(first_probe=1.0)
    halt.begin("misconfigured", "", 0.0)
    halt.probe_started()
    halt.probe_abandoned(7.0)
    assert halt.next_probe_at == 8.0


def test_a_halt_that_ended_is_silent_and_the_next_one_is_said_again() -> None:
    halt = Halt()
    halt.begin("misconfigured", "Endpoint a not found.", 0.0)
    halt.end()
    assert (halt.halted, halt.reason, halt.message) == (False, "", "")
    assert not halt.probe_due(1e9)
    assert halt.begin("misconfigured", "Endpoint a not found.", 100.0)
    assert halt.next_probe_at == 101.0


def test_nothing_is_halted_at_first() -> None:
    halt = Halt()
    assert not halt.halted
    assert not halt.probe_due(1e9)
