"""The pipeline while consuming is stopped: halts, the guard, their probes, and no spinning meanwhile."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from connector.core.calls.call import Failure, Response, Transport
from tests.unit.pipeline_bench import (
    BAD_INPUT,
    DENIED,
    NEVER,
    THROTTLED,
    UNAVAILABLE,
    UNKNOWN_ENDPOINT,
    Bench,
    Play,
    Script,
    ok,
    simulated,
)
from tests.unit.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from connector.core.calls.call import Call, Reply

ONE_BY_ONE = {"max_events": 1}
NO_CREDENTIALS = Failure(transport=Transport.NO_CREDENTIALS, message="AWS_WEB_IDENTITY_TOKEN_FILE: cannot be read")
NINE_INTERVALS = [1, 2, 4, 8, 16, 32, 60, 60, 60]


def echo(call: Call) -> Play:
    return Play(ok(call))


def always(reply: Reply | Exception, delay: float = 0.0) -> Script:
    return lambda call: Play(reply, delay)


def by_payload(plays: Mapping[bytes, Play]) -> Script:
    """The play of the payload that a call holds; an answer for any other."""
    return lambda call: next((play for payload, play in plays.items() if payload in call.body), Play(ok(call)))


def ok_of(value: bytes) -> Reply:
    return Response(value + b"!")


def differences(times: Iterable[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]


def about(log: list[Any], *events: str) -> list[str]:
    return [line["event"] for line in log if line["event"] in events]


# -- halt ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "reason"), [(DENIED, "access_denied"), (UNKNOWN_ENDPOINT, "misconfigured")], ids=["denied", "unknown"]
)
@in_virtual_time
async def test_a_halt_stops_consuming_says_so_once_and_ends_by_itself(failure: Failure, reason: str) -> None:
    with simulated() as log:
        bench = Bench(always(failure))
        bench.deliver(*[b"%d" % number for number in range(40)])
        await bench.wait(0.5)
        assert not bench.consuming()
        assert bench.rooms, "the source is told"
        assert bench.problem() == f"halted: {reason}: {failure.code}: {failure.message}"
        await bench.wait(10_000)
        assert [line["event"] for line in log] == ["halted"]
        assert (log[0]["reason"], log[0]["problem"]) == (reason, f"{failure.code}: {failure.message}")
        assert not bench.dead_letters.appended

        bench.endpoint.script = echo
        rooms = bench.rooms
        await bench.complete()
        assert [line["event"] for line in log] == ["halted", "resumed"]
        assert bench.consuming()
        assert not bench.problem()
        assert bench.rooms > rooms
        assert len(bench.results.appended) == 40


@in_virtual_time
async def test_the_source_is_told_when_consuming_stops_and_when_it_goes_on() -> None:
    with simulated():
        bench = Bench(always(DENIED), acknowledge=NEVER, dead_letter={"window": 2, "max_ratio": 0.6})
        bench.deliver(b"1")
        assert bench.rooms == 0
        await bench.wait(0.1)
        assert bench.rooms == 1
        bench.endpoint.script = echo
        await bench.wait(1)
        assert bench.consuming()
        assert bench.rooms == 2
        bench.deliver(b"2\n", b"3\n")
        assert not bench.problem().startswith("halted")
        assert bench.problem()
        assert bench.rooms == 3


@in_virtual_time
async def test_a_halted_endpoint_is_probed_at_growing_intervals_with_one_batch() -> None:
    with simulated():
        bench = Bench(always(DENIED), batch={"max_events": 3})
        bench.deliver(*[b"%d" % number for number in range(30)])
        await bench.settle()
        first = len(bench.endpoint.seen)
        assert first == 4, "those that were in flight together"
        turns = bench.loop.turns
        await bench.wait(sum(NINE_INTERVALS) + 0.5)
        times = [seen.started for seen in bench.endpoint.seen[first - 1 :]]
        assert differences(times) == pytest.approx(NINE_INTERVALS)
        assert bench.loop.turns - turns < 100


@pytest.mark.parametrize(("failure", "renewals"), [(DENIED, 4), (NO_CREDENTIALS, 4), (UNKNOWN_ENDPOINT, 0)])
@in_virtual_time
async def test_denied_access_may_be_mended_by_other_credentials_which_each_probe_looks_for(
    failure: Failure, renewals: int
) -> None:
    with simulated():
        bench = Bench(always(failure))
        bench.deliver(b"1")
        await bench.wait(1 + 2 + 4 + 0.5)
        assert len(bench.endpoint.seen) == 4
        assert bench.endpoint.renewals == renewals


@in_virtual_time
async def test_calls_in_flight_that_end_like_the_first_do_not_put_the_probe_off() -> None:
    with simulated() as log:
        bench = Bench(by_payload({b"late": Play(DENIED, 0.9), b"soon": Play(DENIED)}), batch=ONE_BY_ONE)
        bench.deliver(b"soon", b"late", b"late too")
        await bench.wait(1.05)
        assert len(bench.endpoint.seen) == 4
        assert about(log, "halted") == ["halted"]


@in_virtual_time
async def test_a_halt_with_another_reason_is_another_line() -> None:
    with simulated() as log:
        bench = Bench(always(DENIED))
        bench.deliver(b"1")
        await bench.settle()
        bench.endpoint.script = always(UNKNOWN_ENDPOINT)
        await bench.wait(100)
        assert [line["reason"] for line in log] == ["access_denied", "misconfigured"]
        assert "misconfigured" in bench.problem()


@in_virtual_time
async def test_a_probe_that_is_throttled_keeps_the_halt_and_its_interval() -> None:
    with simulated(chance=0.0):
        bench = Bench(always(DENIED))
        bench.deliver(b"1")
        await bench.settle()
        bench.endpoint.script = always(THROTTLED)
        await bench.wait(5.5)
        assert not bench.consuming()
        assert differences(seen.started for seen in bench.endpoint.seen) == pytest.approx([1] * 5)


@in_virtual_time
async def test_a_halted_process_without_events_fetches_some_to_probe_with() -> None:
    with simulated():
        bench = Bench(always(DENIED))
        bench.deliver(b"1")
        await bench.settle()
        bench.end_epochs()
        await bench.settle()
        assert bench.consuming()
        bench.endpoint.script = always(ok_of(b"1"), 5.0)
        bench.deliver(b"1")
        assert not bench.consuming()
        await bench.wait(1.5)
        assert len(bench.endpoint.seen) == 2
        assert not bench.consuming(), "the probe is out"
        await bench.complete()
        assert bench.consuming()


# -- guard -----------------------------------------------------------------------------------------------------------

GUARD: dict[str, Any] = {"window": 10, "max_ratio": 0.5}


@in_virtual_time
async def test_the_guard_trips_when_its_window_is_full_and_holds_every_dead_letter_from_then_on() -> None:
    with simulated() as log:
        bench = Bench(always(BAD_INPUT, 0.1), dead_letter=GUARD, batch=ONE_BY_ONE)
        bench.deliver(*[b"%d" % number for number in range(50)])
        await bench.wait(0.9)
        assert len(bench.dead_letters.appended) == 9, "the one that trips it is held too"
        assert not bench.consuming()
        assert bench.problem().startswith("guarded: 10 of the last 10 events could not be answered")
        assert about(log, "guard_tripped", "halted", "resumed") == ["guard_tripped"]
        assert bench.rooms, "the source is told"
        assert 10 <= len(bench.endpoint.seen) <= 13, "no call after those that were in flight"


@in_virtual_time
async def test_a_few_dead_letters_among_many_results_trip_nothing() -> None:
    with simulated():
        bench = Bench(by_payload({b"bad": Play(BAD_INPUT)}), dead_letter=GUARD, batch=ONE_BY_ONE)
        bench.deliver(*[b"bad%d" % number if number % 2 else b"%d" % number for number in range(100)])
        await bench.complete()
        assert bench.consuming()
        assert len(bench.dead_letters.appended) == 50


@in_virtual_time
async def test_each_rejected_probe_publishes_one_dead_letter_at_growing_intervals() -> None:
    with simulated() as log:
        bench = Bench(always(BAD_INPUT), dead_letter=GUARD, batch={"max_events": 16})
        bench.deliver(*[b"%02d" % number for number in range(96)], keys=[b"%d" % (n % 7) for n in range(96)])
        await bench.wait(0.1)
        before, calls, turns = len(bench.dead_letters.appended), len(bench.endpoint.seen), bench.loop.turns
        assert before == 9
        start = bench.loop.time() - 0.1
        await bench.wait(sum(NINE_INTERVALS) + 0.5)
        times = [start, *bench.dead_letters.times[before:]]
        assert differences(times) == pytest.approx(NINE_INTERVALS)
        probes = bench.endpoint.seen[calls:]
        assert [len(probe.rows) for probe in probes] == [1] * 9, "one event, however large its batch"
        assert about(log, "guard_tripped", "resumed") == ["guard_tripped"]
        assert bench.loop.turns - turns < 200


@in_virtual_time
async def test_probes_take_another_lane_each_time() -> None:
    with simulated():
        bench = Bench(
            by_payload({b"bad": Play(BAD_INPUT), b"throttled": Play(THROTTLED)}),
            dead_letter={"window": 1},
            batch=ONE_BY_ONE,
            concurrency={"max_in_flight": 1},
            retry={"initial": "10ms", "max": "10ms"},
        )
        bench.deliver(b"bad", b"throttled", b"good", keys=b"abc")
        await bench.wait(3.5)
        assert bench.endpoint.rows[:3] == [[b"bad"], [b"throttled"], [b"good"]]
        assert bench.consuming()


@in_virtual_time
async def test_an_answered_probe_publishes_what_was_held_in_order_and_consuming_goes_on() -> None:
    with simulated() as log:
        bench = Bench(always(BAD_INPUT), dead_letter=GUARD, batch={"max_events": 4, "linger": "1ms"})
        bench.deliver(*[b"%02d" % number for number in range(40)])
        await bench.wait(0.5)
        published, held = (
            len(bench.dead_letters.appended),
            [letter.outgoing.event.offset for letter in bench.pipeline._held._letters],
        )
        assert held, "calls that were in flight when the guard tripped"
        bench.endpoint.script = echo
        await bench.complete()
        assert bench.consuming()
        released = [letter.event.offset for letter in bench.dead_letters.appended[published:]]
        assert released == held
        logged = [line["offset"] for line in log if line["event"] == "dead_lettered"]
        assert logged == [letter.event.offset for letter in bench.dead_letters.appended], "each one, when it goes"
        assert about(log, "guard_tripped", "resumed") == ["guard_tripped", "resumed"]
        assert len(bench.results.appended) + len(bench.dead_letters.appended) == 40


@in_virtual_time
async def test_a_model_that_comes_back_drains_its_topic_into_results() -> None:
    with simulated():
        bench = Bench(always(BAD_INPUT, 0.01), dead_letter=GUARD, batch={"max_events": 8})
        bench.deliver(*[b"%03d" % number for number in range(300)])
        await bench.wait(100)
        bench.endpoint.script = echo
        await bench.complete()
        # 9 before it tripped, the held ones of the calls in flight, and one a probe at 1, 3, 7, 15, 31, 63 seconds.
        assert len(bench.dead_letters.appended) <= 9 + 4 + 6
        assert bench.endpoint.seen[-1].ended is not None


@in_virtual_time
async def test_events_refused_without_a_call_leave_one_by_one_when_they_are_all_there_is() -> None:
    with simulated() as log:
        bench = Bench(echo, dead_letter=GUARD)
        bench.deliver(*[b"%d\n" % number for number in range(30)])
        assert not bench.endpoint.seen
        assert len(bench.dead_letters.appended) == 9
        assert bench.consuming(), "there is nothing to probe with"
        turns, start = bench.loop.turns, bench.loop.time()
        await bench.wait(sum(NINE_INTERVALS) + 0.5)
        assert differences([start, *bench.dead_letters.times[9:]]) == pytest.approx(NINE_INTERVALS)
        assert [letter.event.offset for letter in bench.dead_letters.appended] == list(range(18)), "oldest first"
        assert len(about(log, "dead_lettered")) == 18
        assert bench.loop.turns - turns < 100
        bench.deliver(b"good")
        assert not bench.consuming()
        await bench.complete()
        assert len(bench.dead_letters.appended) == 30


@in_virtual_time
async def test_what_is_held_leaves_one_by_one_while_halted_too_when_it_is_all_there_is() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(DENIED if len(bench.endpoint.seen) < 2 else UNAVAILABLE),
            dead_letter={"window": 1},
            retry={"max_age": "1h"},
        )
        bench.deliver(b"old", age=1e6)
        bench.deliver(b"1\n", b"2\n", b"3\n", b"4\n")
        await bench.idle(within=300)
        assert bench.problem().startswith("halted"), "its probe had nothing to tell"
        assert len(bench.dead_letters.appended) == 5


@in_virtual_time
async def test_what_is_held_stays_while_there_is_something_to_probe_with() -> None:
    with simulated(chance=0.5):
        throttled = {b"good": Play(THROTTLED)}
        bench = Bench(
            lambda call: throttled.get(call.body, Play(ok(call))),
            dead_letter=GUARD,
            retry={"initial": "1m", "max": "1m"},
        )
        bench.deliver(b"good")
        await bench.settle()
        throttled.clear()
        bench.deliver(*[b"%d\n" % number for number in range(15)])
        await bench.wait(29)
        assert len(bench.dead_letters.appended) == 9
        await bench.wait(1.5)
        assert len(bench.dead_letters.appended) == 15
        await bench.complete()


@in_virtual_time
async def test_a_call_that_outlives_the_next_probe_does_not_stop_what_is_held_from_leaving() -> None:
    with simulated():
        bench = Bench(echo, dead_letter=GUARD)
        bench.endpoint.script = lambda call: Play(ok(call), 30.0)
        bench.deliver(b"slow")
        await bench.settle()
        bench.deliver(*[b"%d\n" % number for number in range(15)])
        start = bench.loop.time()
        await bench.wait(100)
        # It was called before the guard tripped, so its answer does not open the gate.
        assert bench.results.payloads == [b"slow"]
        assert [at - start for at in bench.dead_letters.times[9:]] == pytest.approx([30, 32, 36, 44, 60, 92])


@in_virtual_time
async def test_results_that_are_all_too_large_do_not_block_for_ever() -> None:
    with simulated():
        bench = Bench(echo, acknowledge=NEVER, dead_letter=GUARD)
        bench.dead_letters.delay = 0.0
        bench.deliver(*[b"%02d" % number for number in range(40)])
        await bench.settle()
        for result in bench.results.appended:
            bench.results.pending.remove(result)
            bench.pipeline.result_too_large(result, 2_000_000)
        assert len(bench.dead_letters.appended) == 5, "the sixth among the last ten trips the guard"
        await bench.wait(2000)
        assert len(bench.dead_letters.appended) == 40


@pytest.mark.parametrize("acknowledged", [0.0, 5.0])
@in_virtual_time
async def test_a_result_too_large_while_the_guard_has_tripped_leaves_too(acknowledged: float) -> None:
    with simulated():
        bench = Bench(echo, acknowledge=NEVER, dead_letter=GUARD)
        bench.dead_letters.delay = acknowledged
        bench.deliver(b"large")
        await bench.settle()
        bench.deliver(*[b"%d\n" % number for number in range(10)])
        (large,) = bench.results.appended
        await bench.wait(500)
        assert len(bench.dead_letters.appended) == 10
        bench.results.pending.remove(large)
        bench.pipeline.result_too_large(large, 2_000_000)
        await bench.wait(200)
        assert len(bench.dead_letters.appended) == 11


# -- no spinning, no lost probe --------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_due_probe_that_waits_for_a_slot_does_not_spin() -> None:
    with simulated():
        bench = Bench(
            by_payload({b"slow": Play(DENIED, 60.0)}),
            dead_letter=GUARD,
            batch={"max_events": 8},
            concurrency={"max_in_flight": 1},
        )
        bench.deliver(b"slow")
        await bench.settle()
        bench.deliver(b"waits", *[b"%d\n" % number for number in range(10)])
        turns = bench.loop.turns
        await bench.wait(59)
        assert bench.loop.turns - turns < 50
        assert bench.endpoint.rows == [[b"slow"]]
        bench.endpoint.script = echo
        await bench.complete()


@in_virtual_time
async def test_a_halt_while_the_guards_probe_is_out_does_not_spin() -> None:
    with simulated():
        bench = Bench(
            by_payload({b"late": Play(DENIED, 5.0), b"probe": Play(BAD_INPUT, 60.0)}),
            dead_letter=GUARD,
            batch=ONE_BY_ONE,
        )
        bench.deliver(b"late")
        await bench.settle()
        bench.deliver(b"probe", *[b"%d\n" % number for number in range(10)])
        bench.deliver(*[b"%d" % number for number in range(5)])
        await bench.wait(4.5)
        assert bench.endpoint.rows == [[b"late"], [b"probe"]]
        turns = bench.loop.turns
        await bench.wait(50)
        assert bench.problem().startswith("halted")
        assert bench.loop.turns - turns < 50
        bench.endpoint.script = echo
        await bench.complete()


@in_virtual_time
async def test_a_call_that_breaks_beside_the_probe_does_not_make_the_probes_answer_void() -> None:
    with simulated():
        bench = Bench(
            by_payload({b"breaks": Play(RuntimeError("a fault of ours"), 2.0), b"probe": Play(ok_of(b"probe"), 5.0)}),
            dead_letter=GUARD,
            batch=ONE_BY_ONE,
            retry={"initial": "100s", "max": "100s"},
        )
        bench.deliver(b"breaks")
        await bench.settle()
        bench.deliver(b"probe", *[b"%d\n" % number for number in range(10)])
        await bench.wait(4)
        assert bench.endpoint.rows == [[b"breaks"], [b"probe"]]
        await bench.wait(2.5)
        assert not bench.problem()
        assert len(bench.dead_letters.appended) == 10


@in_virtual_time
async def test_a_probe_that_breaks_is_followed_by_another() -> None:
    with simulated(chance=0.5):
        bench = Bench(always(DENIED))
        bench.deliver(b"1")
        await bench.settle()
        bench.endpoint.script = always(RuntimeError("a fault of ours"))
        await bench.wait(3.5)
        assert len(bench.endpoint.seen) >= 3
        bench.endpoint.script = echo
        await bench.complete()
        assert bench.consuming()


@in_virtual_time
async def test_a_probe_that_forgetting_has_ended_is_followed_by_another() -> None:
    with simulated():
        bench = Bench(always(DENIED))
        bench.deliver(b"1")
        await bench.settle()
        bench.endpoint.script = always(DENIED, NEVER)
        await bench.wait(2)
        assert len(bench.endpoint.seen) == 2
        bench.end_epochs()
        bench.deliver(b"1")
        bench.endpoint.script = echo
        await bench.complete()
        assert bench.consuming()
