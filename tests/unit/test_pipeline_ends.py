"""The pipeline at the end of epochs: what a drain still does, and what comes too late to change anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.unit.pipeline_bench import (
    BAD_INPUT,
    DENIED,
    EXPIRED_TOKEN,
    NEVER,
    THROTTLED,
    UNAVAILABLE,
    Bench,
    Play,
    ok,
    rows_of,
    simulated,
)
from tests.unit.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from connector.core.calls.call import Call, Reply

SINGLES = {"max_events": 1}
LONG_BACKOFF = {"initial": "1h", "max": "1h"}


def echo(call: Call) -> Play:
    return Play(ok(call))


async def drained(bench: Bench, calls: float = 5.0, published: float = 6.0) -> float:
    """Drain; the seconds that it took."""
    start = bench.loop.time()
    await bench.pipeline.drain(start + calls, start + published)
    return bench.loop.time() - start


# -- drain -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_drain_calls_what_stands_before_finished_events_and_nothing_else() -> None:
    with simulated(chance=0.9):
        slow = {b"1": Play(THROTTLED), b"3": Play(THROTTLED)}
        bench = Bench(
            lambda call: slow.get(call.body, Play(ok(call))),
            batch=SINGLES,
            retry=LONG_BACKOFF,
            kafka={"ordering": "none"},
        )
        bench.deliver(b"0", b"1", b"2", b"3")
        await bench.wait(1)
        assert bench.ledgers[0].committable == 1
        slow.clear()
        called = len(bench.endpoint.seen)
        took = await drained(bench)
        assert bench.endpoint.rows[called:] == [[b"1"]], "3 is read again by the next owner"
        assert bench.ledgers[0].committable == 3
        assert took < 1


@in_virtual_time
async def test_a_drain_calls_what_stands_before_a_dead_letter_that_needed_no_call() -> None:
    with simulated(chance=0.9):
        slow = {b"0": Play(THROTTLED)}
        bench = Bench(lambda call: slow.get(call.body, Play(ok(call))), retry=LONG_BACKOFF)
        bench.deliver(b"0", b"1\n")
        await bench.settle()
        slow.clear()
        await drained(bench)
        assert bench.ledgers[0].committable == 2


@in_virtual_time
async def test_a_drain_makes_no_call_for_what_only_waits() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 1.0), batch=SINGLES, concurrency={"max_in_flight": 2})
        bench.deliver(*[b"%d" % number for number in range(10)])
        await bench.settle()
        took = await drained(bench)
        assert bench.endpoint.rows == [[b"0"], [b"1"]]
        assert took == pytest.approx(1.0), "no longer than the calls in flight"
        assert bench.ledgers[0].committable == 2
        assert not bench.consuming()


@in_virtual_time
async def test_a_call_in_flight_that_fails_during_a_drain_is_left_to_the_next_owner() -> None:
    with simulated():
        failures = {b"0": UNAVAILABLE, b"1": DENIED, b"2": THROTTLED}
        bench = Bench(lambda call: Play(failures[call.body], 1.0), batch=SINGLES)
        bench.deliver(b"0", b"1", b"2")
        await bench.settle()
        took = await drained(bench)
        assert took == pytest.approx(1.0)
        assert len(bench.endpoint.seen) == 3
        assert not bench.problem(), "a halt of an epoch that ends"
        assert bench.limiter.in_flight == 0


@in_virtual_time
async def test_halves_before_a_finished_event_are_called_during_a_drain() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(BAD_INPUT if b"1" in rows_of(call) else ok(call), 1.0),
            batch={"max_events": 4},
            dead_letter={"max_ratio": 1.0},
        )
        bench.deliver(b"0", b"1", b"2", b"3")
        bench.deliver(b"4")
        await bench.wait(0.5)
        await drained(bench)
        assert bench.ledgers[0].committable == 5
        assert bench.dead_letters.payloads == [b"1"]


@in_virtual_time
async def test_calls_that_hang_are_cancelled_at_the_deadline_and_give_their_slots_back() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(ok(call), NEVER if b"hang" in call.body else 1.0),
            batch={"max_events": 1},
            kafka={"ordering": "none"},
        )
        bench.deliver(b"0", b"hang", b"2", b"hang too")
        await bench.settle()
        took = await drained(bench)
        assert took == pytest.approx(5.0)
        assert [seen.rows for seen in bench.endpoint.seen if seen.cancelled] == [[b"hang"], [b"hang too"]]
        assert (bench.limiter.in_flight, bench.limiter.bytes_in_flight) == (0, 0)
        assert bench.results.payloads == [b"0", b"2"]
        assert bench.ledgers[0].committable == 1


@in_virtual_time
async def test_a_call_that_ignores_its_cancellation_holds_a_drain_up_for_a_second_and_answers_nobody() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 60.0, stubborn=True))
        bench.deliver(b"1")
        await bench.settle()
        assert await drained(bench) == pytest.approx(6.0)
        await bench.wait(100)
        assert bench.limiter.in_flight == 0
        assert not bench.results.appended


@in_virtual_time
async def test_a_drain_waits_until_the_results_of_finished_calls_are_acknowledged() -> None:
    with simulated() as log:
        bench = Bench(lambda call: Play(ok(call), 2.0), acknowledge=0.7)
        bench.deliver(b"1", b"2")
        await bench.settle()
        assert await drained(bench) == pytest.approx(2.7)
        assert bench.ledgers[0].committable == 2
        assert not log


@in_virtual_time
async def test_a_drain_ends_at_its_time_when_the_broker_is_silent_and_says_so() -> None:
    with simulated() as log:
        bench = Bench(echo, acknowledge=NEVER)
        bench.deliver(b"1")
        await bench.settle()
        assert await drained(bench) == pytest.approx(6.0)
        assert [(line["event"], line["pending"]) for line in log] == [("drain_incomplete", 1)]
        assert bench.ledgers[0].committable == 0


@in_virtual_time
async def test_a_drain_without_anything_in_flight_takes_no_time() -> None:
    with simulated(chance=0.5) as log:
        bench = Bench(lambda call: Play(THROTTLED), retry=LONG_BACKOFF)
        bench.deliver(b"1")
        await bench.settle()
        assert await drained(bench) == 0.0
        assert [line["event"] for line in log] == ["call_failed"]


@in_virtual_time
async def test_a_drain_without_any_time_is_complete_when_nothing_was_pending() -> None:
    with simulated() as log:
        bench = Bench(echo)
        bench.deliver(b"1")
        await bench.complete()
        assert await drained(bench, calls=0.0, published=0.0) == 0.0
        assert not log


@in_virtual_time
async def test_a_drain_without_any_time_says_what_is_left_unpublished() -> None:
    with simulated() as log:
        bench = Bench(echo, acknowledge=1.0)
        bench.deliver(b"1")
        await bench.settle()
        assert await drained(bench, calls=0.0, published=0.0) == 0.0
        assert [line["event"] for line in log] == ["drain_incomplete"]


@in_virtual_time
async def test_a_drain_that_is_cancelled_as_the_broker_answers_ends_as_cancelled() -> None:
    with simulated():
        bench = Bench(echo, acknowledge=NEVER)
        bench.deliver(b"1")
        await bench.settle()
        drain = asyncio.create_task(bench.pipeline.drain(bench.loop.time(), bench.loop.time() + 60))
        await bench.wait(1)
        bench.results.acknowledge(bench.results.appended)
        drain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drain


@in_virtual_time
async def test_a_drain_without_time_for_calls_leaks_no_slot_of_those_it_would_have_made() -> None:
    with simulated(chance=0.9):
        slow = {b"0": Play(THROTTLED)}
        bench = Bench(
            lambda call: slow.get(call.body, Play(ok(call))),
            batch=SINGLES,
            retry=LONG_BACKOFF,
            kafka={"ordering": "none"},
        )
        bench.deliver(b"0", b"1")
        await bench.settle()
        await drained(bench, calls=0.0)
        assert len(bench.endpoint.seen) == 2
        assert (bench.limiter.in_flight, bench.limiter.bytes_in_flight) == (0, 0)


@in_virtual_time
async def test_nothing_is_called_after_the_drains_deadline_whatever_ends_then() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(ok(call), 8.0 if call.body == b"1" else NEVER, stubborn=call.body == b"1"),
            batch=SINGLES,
            concurrency={"max_in_flight": 1},
            kafka={"ordering": "none"},
        )
        bench.deliver(b"0\n", b"1", b"2", b"3\n")
        await bench.settle()
        await drained(bench)
        await bench.wait(100)
        bench.pipeline.result_too_large(bench.dead_letters.appended[0], 2_000_000)
        await bench.wait(100)
        assert bench.endpoint.rows == [[b"1"]], "2 stands before a dead letter, but its time is over"
        assert bench.limiter.in_flight == 0


@in_virtual_time
async def test_a_drain_lets_no_further_call_begin_while_halted() -> None:
    with simulated():
        bench = Bench(lambda call: Play(DENIED))
        bench.deliver(b"1", b"2\n")
        await bench.settle()
        assert await drained(bench) == 0.0
        assert len(bench.endpoint.seen) == 1


# -- forget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [None, BAD_INPUT, DENIED, UNAVAILABLE, EXPIRED_TOKEN, RuntimeError("a fault of ours")])
@in_virtual_time
async def test_a_reply_to_an_earlier_era_changes_nothing(late: Reply | Exception | None) -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(late or ok(call), 10.0, stubborn=True),
            batch={"max_events": 4},
            dead_letter={"window": 1},
        )
        bench.deliver(b"0", b"1", b"2", b"3", keys=b"abcd")
        await bench.settle()
        bench.end_epochs()
        ended, turns = bench.endpoint.seen[0], bench.loop.turns
        await bench.wait(20)
        assert ended.ended is not None
        assert not bench.results.appended
        assert not bench.dead_letters.appended
        assert bench.calls_by_outcome() == {}
        assert bench.endpoint.renewals == 0
        assert bench.consuming()
        assert bench.loop.turns - turns < 30
        bench.check_that_nothing_is_left()


@in_virtual_time
async def test_the_events_of_the_next_era_are_answered_once_and_in_order() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 5.0), acknowledge=1.0, batch={"max_events": 2})
        bench.deliver(b"0", b"1", b"2", b"3", keys=b"aabb")
        await bench.wait(2)
        bench.end_epochs()
        bench.deliver(b"0", b"1", b"2", b"3", keys=b"aabb")
        await bench.complete()
        assert sorted(bench.results.payloads, key=str) == [b"0", b"1", b"2", b"3"]
        assert all(not result.event.ledger.dropped for result in bench.results.appended)


@in_virtual_time
async def test_calls_of_an_earlier_era_that_hold_all_slots_are_followed_by_those_of_the_next() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 10.0, stubborn=True), batch=SINGLES, kafka={"ordering": "none"})
        bench.deliver(b"0", b"1", b"2", b"3", b"4")
        await bench.settle()
        bench.end_epochs()
        bench.deliver(b"0", b"1", b"2", b"3", b"4")
        await bench.complete(within=60)
        assert sorted(bench.results.payloads, key=str) == [b"0", b"1", b"2", b"3", b"4"]


@in_virtual_time
async def test_forgetting_before_a_call_has_begun_leaks_no_slot() -> None:
    with simulated():
        bench = Bench(echo, batch=SINGLES)
        for _ in range(3):
            bench.deliver(b"0", b"1", b"2", b"3")
            assert bench.limiter.in_flight == 4
            bench.end_epochs()
        await bench.settle()
        assert not bench.endpoint.seen
        bench.check_that_nothing_is_left()
        bench.deliver(b"0")
        await bench.complete()


@in_virtual_time
async def test_forgetting_drops_what_waits_backs_off_is_held_or_is_not_acknowledged() -> None:
    with simulated(chance=0.9):
        plays = {b"throttled": Play(THROTTLED), b"slow": Play(BAD_INPUT, NEVER)}
        bench = Bench(
            lambda call: plays.get(call.body, Play(ok(call))),
            acknowledge=NEVER,
            batch=SINGLES,
            dead_letter={"window": 4},
            retry=LONG_BACKOFF,
        )
        bench.deliver(b"throttled", b"slow", b"answered", b"slow too", b"behind", keys=b"abcdb")
        await bench.settle()
        bench.deliver(b"a\n", b"b\n", b"c\n", b"d\n")
        await bench.settle()
        assert bench.pipeline._held
        bench.end_epochs()
        await bench.settle()
        assert not bench.results.pending
        assert not bench.dead_letters.pending
        appended = len(bench.dead_letters.appended)
        await bench.wait(10_000)
        bench.check_that_nothing_is_left()
        assert len(bench.dead_letters.appended) == appended


@in_virtual_time
async def test_after_a_drain_and_the_next_assignment_events_are_consumed_as_before() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 1.0), batch=SINGLES, concurrency={"max_in_flight": 1})
        bench.deliver(b"0", b"1", b"2")
        await bench.settle()
        await drained(bench)
        bench.end_epochs()
        assert bench.consuming()
        bench.deliver(b"1", b"2")
        await bench.complete()
        assert bench.results.payloads == [b"0", b"1", b"2"]


@in_virtual_time
async def test_a_renewal_of_credentials_that_hangs_ends_with_the_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated():
        bench = Bench(lambda call: Play(EXPIRED_TOKEN), retry=LONG_BACKOFF)

        async def hang() -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(bench.endpoint, "renew_credentials", hang)
        bench.deliver(b"1")
        await bench.settle()
        assert await drained(bench) == pytest.approx(5.0)
        assert not bench.pipeline._calls
