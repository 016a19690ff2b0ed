"""The pipeline from delivered events to completed ones, in virtual time; its gate and its ends have tests of their own."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core.calls.call import Call, Failure, Response, Transport
from connector.core.formats.body_format import Body
from connector.core.formats.csv import Csv
from tests.unit.pipeline_bench import (
    BAD_INPUT,
    BROKEN_MODEL,
    EXPIRED_TOKEN,
    NEVER,
    THROTTLED,
    TIMED_OUT,
    UNAVAILABLE,
    Bench,
    Play,
    Script,
    ok,
    rows_of,
    simulated,
)
from tests.unit.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from connector.core.calls.call import Reply

UNGUARDED: dict[str, Any] = {"max_ratio": 1.0}
"""A guard that never trips: no ratio is above 1."""


def always(reply: Reply | Exception, delay: float = 0.0) -> Script:
    return lambda call: Play(reply, delay)


def echo(call: Call) -> Play:
    return Play(ok(call))


def first(*replies: Reply | Exception) -> Script:
    """Give these replies, then answers."""
    coming = list(replies)
    return lambda call: Play(coming.pop(0) if coming else ok(call))


def numbered(count: int) -> list[bytes]:
    return [b"%03d" % number for number in range(count)]


# -- every event -----------------------------------------------------------------------------------------------------

POISON = b"poison"
TRANSIENT = (
    THROTTLED,
    UNAVAILABLE,
    EXPIRED_TOKEN,
    TIMED_OUT,
    BROKEN_MODEL,
    Failure(code="ModelNotReadyException", status=429),
    Failure(code="ModelError", status=424, original_status=503),
    Failure(transport=Transport.RESET, body_size=2 << 20),
    Failure(transport=Transport.CONNECT),
    RuntimeError("a fault of ours"),
)


def moody(dice: Random, patience: int) -> Script:
    """An endpoint of any mood for a number of calls, then a good one; poison fails every call that holds it."""
    left = patience

    def script(call: Call) -> Play:
        nonlocal left
        left -= 1
        delay = dice.choice((0.0, 0.01, 0.5, 3.0))
        if left > 0 and dice.random() < 0.5:
            return Play(dice.choice(TRANSIENT), delay)
        return Play(BAD_INPUT if POISON in call.body else ok(call), delay)

    return script


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    ordering=st.sampled_from(["key", "partition", "none"]),
    mode=st.sampled_from(["key", "batch"]),
    linger=st.sampled_from([0, "20ms"]),
    acknowledge=st.sampled_from([0.0, 2.0]),
    max_calls=st.sampled_from([0, 3, 64]),
)
@in_virtual_time
async def test_every_event_is_answered_exactly_once_and_in_its_lanes_order_whatever_the_endpoint_does(
    seed: int, ordering: str, mode: str, linger: Any, acknowledge: float, max_calls: int
) -> None:
    dice = Random(seed)
    with simulated(seed=seed):
        bench = Bench(
            moody(dice, patience=150),
            acknowledge=acknowledge,
            kafka={"ordering": ordering},
            correlation={"mode": mode},
            batch={"max_events": dice.choice((1, 4, 16)), "linger": linger},
            concurrency={"max_in_flight": dice.choice((1, 3, 16))},
            dead_letter=UNGUARDED,
            bisect={"max_calls": max_calls},
        )
        poison, refused = set(), set()
        for number in range(60):
            values = []
            for row in range(dice.randint(1, 5)):
                value = b"%d-%d" % (number, row)
                if dice.random() < 0.05:
                    value += POISON
                    poison.add(value)
                elif dice.random() < 0.05:
                    value += b"\n"
                    refused.add(value)
                values.append(value)
            keys = [dice.choice([None, b"", b"a", b"b", b"c", b"d"]) for _ in values]
            bench.deliver(*values, keys=keys, partition=dice.randrange(3))
            await bench.wait(dice.choice((0.0, 0.0, 0.1)))
        await bench.complete()

        answered = [*bench.results.payloads, *bench.dead_letters.payloads]
        assert sorted(map(bytes, filter(None, answered))) == sorted(bench.events), "each event once"
        assert all(result.value == (result.event.value or b"") + b"!" for result in bench.results.appended)
        reasons = dict(bench.reasons)
        assert {value for value in bench.events if reasons.get(value) == "undecodable"} == refused
        assert poison <= set(reasons)
        # A broken model takes single events along, once it has answered others; nothing else does.
        assert {reason for value, reason in bench.reasons if value not in poison | refused} <= {"model_error"}
        offsets: dict[object, int] = {}
        for result in bench.results.appended:
            lane = bench.lane_of(result.event)
            assert offsets.get(lane, -1) < result.event.offset
            offsets[lane] = result.event.offset
        assert bench.endpoint.most_in_flight <= bench.limiter.limit


@pytest.mark.parametrize(("mode", "inference_ids"), [("key", ["a", "b"]), ("batch", None)])
@in_virtual_time
async def test_a_call_carries_the_id_of_its_mode_and_what_the_format_names(
    mode: str, inference_ids: list[str] | None
) -> None:
    with simulated():
        bench = Bench(echo, correlation={"mode": mode}, endpoint={"name": "fraud", "target_variant": "blue"})
        bench.deliver(b"1", b"2", b"3", b"4", keys=b"aabb")
        await bench.complete()
        calls = [seen.call for seen in bench.endpoint.seen]
        if inference_ids is None:
            coordinates = "\n".join(f"inference-requests/0/{offset}" for offset in range(4))
            inference_ids = ["b-" + sha256(coordinates.encode()).hexdigest()[:40]]
        assert [call.inference_id for call in calls] == inference_ids
        assert b"\n".join(call.body for call in calls) == b"1\n2\n3\n4"
        for call in calls:
            assert (call.route.endpoint, call.route.members) == ("fraud", (("TargetVariant", "blue"),))
            assert (call.content_type, call.accept) == ("text/csv", "text/csv")


@in_virtual_time
async def test_an_event_that_cannot_be_batched_is_dead_lettered_without_a_call() -> None:
    with simulated() as log:
        bench = Bench(echo, dead_letter=UNGUARDED, endpoint={"target_model": {"header": "model"}})
        bench.deliver(b"1,2\n3,4", b"5,6", b"", keys=b"aaa")
        bench.deliver(b"7", headers=[("model", b"\xff")])
        await bench.complete()
        assert bench.reasons == [(b"", "empty"), (b"1,2\n3,4", "undecodable"), (b"7", "invalid_route")]
        assert bench.endpoint.rows == [[b"5,6"]]
        assert [(line["offset"], line["reason"]) for line in log] == [
            (0, "undecodable"),
            (2, "empty"),
            (3, "invalid_route"),
        ]


@in_virtual_time
async def test_calls_take_no_more_slots_and_bytes_than_there_are_and_no_event_waits_while_one_is_free() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 1.0), batch={"max_events": 1})
        start = bench.loop.time()
        bench.deliver(*numbered(10))
        await bench.settle()
        assert (bench.limiter.in_flight, bench.limiter.bytes_in_flight) == (4, 16)
        await bench.complete()
        assert [seen.started - start for seen in bench.endpoint.seen] == [0.0] * 4 + [1.0] * 4 + [2.0] * 2


@in_virtual_time
async def test_one_timer_is_set_however_many_batches_wait_for_their_linger() -> None:
    with simulated():
        bench = Bench(echo, batch={"linger": "10s"}, correlation={"mode": "key"})
        for number in range(20):
            bench.deliver(b"%d" % number, keys=[b"%d" % number])
            await bench.wait(0.1)
        assert bench.loop.timers == 1
        await bench.complete()


@in_virtual_time
async def test_the_bodies_in_flight_have_a_byte_budget() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(ok(call), 1.0),
            batch={"max_events": 1, "max_bytes": "100B"},
            concurrency={"max_bytes": "250B"},
        )
        start = bench.loop.time()
        bench.deliver(*[b"%d" % number * 80 for number in range(4)])
        await bench.settle()
        assert (bench.limiter.in_flight, bench.limiter.bytes_in_flight) == (3, 243)
        await bench.complete()
        assert [seen.started - start for seen in bench.endpoint.seen] == [0.0] * 3 + [1.0]


@in_virtual_time
async def test_a_format_of_one_row_a_body_makes_calls_of_one_event() -> None:
    with simulated():
        bench = Bench(echo, request={"format": "raw"}, batch={"max_events": 4})
        bench.deliver(b"1", b"2", b"3")
        await bench.complete()
        assert bench.endpoint.rows == [[b"1"], [b"2"], [b"3"]]


@in_virtual_time
async def test_results_are_as_the_settings_want_them() -> None:
    with simulated():
        bench = Bench(echo, result={"envelope": True, "timestamp": "event"})
        (event,) = bench.deliver(b"1", age=100)
        await bench.complete()
        (result,) = bench.results.appended
        assert orjson.loads(result.value or b"")["prediction"] == "1!"
        assert result.timestamp == event.timestamp


@in_virtual_time
async def test_a_batch_grows_while_no_slot_is_free_and_goes_after_its_linger_when_one_is() -> None:
    with simulated():
        bench = Bench(lambda call: Play(ok(call), 1.0), batch={"linger": "100ms"}, concurrency={"max_in_flight": 1})
        start = bench.loop.time()
        bench.deliver(b"1")
        for value in (b"2", b"3", b"4"):
            await bench.wait(0.3)
            bench.deliver(value)
        await bench.complete()
        assert bench.endpoint.rows == [[b"1"], [b"2", b"3", b"4"]]
        assert [seen.started - start for seen in bench.endpoint.seen] == pytest.approx([0.1, 1.1])


# -- again -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [THROTTLED, UNAVAILABLE, EXPIRED_TOKEN, RuntimeError("a fault of ours")])
@in_virtual_time
async def test_the_bound_of_the_backoff_doubles_up_to_its_maximum(failure: Reply | Exception) -> None:
    with simulated(chance=0.5):
        bench = Bench(first(*[failure] * 7), retry={"initial": "200ms", "max": "3s"})
        bench.deliver(b"1")
        await bench.complete()
        assert bench.gaps == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.5, 1.5, 1.5])


@in_virtual_time
async def test_the_backoffs_of_batches_that_failed_together_are_spread_over_all_of_their_bound() -> None:
    with simulated():
        bench = Bench(
            first(*[THROTTLED] * 200),
            batch={"max_events": 1},
            concurrency={"max_in_flight": 200},
            retry={"initial": "1s", "max": "1s"},
        )
        bench.deliver(*numbered(200))
        start = bench.loop.time()
        await bench.complete()
        waits = sorted(seen.started - start for seen in bench.endpoint.seen[200:])
        assert 0.0 <= waits[0] < 0.05
        assert 0.4 < waits[100] < 0.6
        assert 0.95 < waits[-1] < 1.0


@in_virtual_time
async def test_a_batch_in_backoff_holds_its_lanes_and_no_slot() -> None:
    with simulated(chance=0.5):
        bench = Bench(first(UNAVAILABLE), concurrency={"max_in_flight": 1}, retry={"initial": "10s", "max": "10s"})
        bench.deliver(b"1", b"2", keys=b"ab")
        await bench.settle()
        assert bench.limiter.in_flight == 0
        bench.deliver(b"3", b"4", b"5", keys=b"acb")
        await bench.complete()
        assert bench.endpoint.rows == [[b"1", b"2"], [b"4"], [b"1", b"2"], [b"3", b"5"]]
        assert bench.endpoint.seen[1].started == bench.endpoint.seen[0].ended


@in_virtual_time
async def test_throttling_dead_letters_nothing_however_long_it_lasts() -> None:
    with simulated():
        bench = Bench(first(*[THROTTLED] * 2000), dead_letter={"window": 1})
        bench.deliver(*numbered(20))
        await bench.complete(within=100_000)
        assert not bench.dead_letters.appended
        assert sorted(map(bytes, filter(None, bench.results.payloads))) == numbered(20)
        assert bench.calls_by_outcome() == {("retry", "throttled"): 2000, ("ok", "ok"): 5}


@in_virtual_time
async def test_refused_credentials_are_renewed_and_the_call_is_made_again() -> None:
    with simulated():
        bench = Bench(first(EXPIRED_TOKEN, EXPIRED_TOKEN, UNAVAILABLE))
        bench.deliver(b"1")
        await bench.complete()
        assert bench.endpoint.renewals == 2
        assert bench.results.payloads == [b"1"]


@in_virtual_time
async def test_an_invoker_that_raises_is_asked_again_and_the_log_has_the_traceback() -> None:
    with simulated() as log:
        bench = Bench(first(RuntimeError("a"), RuntimeError("b")))
        bench.deliver(b"1")
        await bench.complete()
        assert bench.results.payloads == [b"1"]
        assert [line["event"] for line in log] == ["call_broke"] * 2
        for line in log:
            assert "pipeline_bench.py" in line["exception"]
            assert line["exception"].endswith("RuntimeError")


@in_virtual_time
async def test_a_call_that_cannot_even_be_made_gives_its_slot_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulated():
        bench = Bench(echo)
        join, broken = Csv.join, [True] * 3

        def flaky(self: Csv, payloads: list[bytes]) -> Body:
            if broken:
                broken.pop()
                raise MemoryError
            return join(self, payloads)

        monkeypatch.setattr(Csv, "join", flaky)
        bench.deliver(b"1")
        await bench.complete()
        assert bench.results.payloads == [b"1"]


@in_virtual_time
async def test_a_failure_is_logged_once_in_ten_seconds_for_each_outcome_and_reason() -> None:
    with simulated(chance=0.5) as log:
        bench = Bench(first(*[THROTTLED, UNAVAILABLE] * 15), retry={"initial": "1s", "max": "1s"})
        start = bench.loop.time()
        bench.deliver(b"1")
        said: list[tuple[str, float]] = []
        while not bench.results.appended:
            await bench.wait(0.5)
            said += [(line["reason"], bench.loop.time() - start) for line in log[len(said) :]]
        for reason in ("throttled", "service_unavailable"):
            times = [at for about, at in said if about == reason]
            assert len(times) == 2
            assert 10.0 <= times[1] - times[0] <= 11.0
        assert {line["event"] for line in log} == {"call_failed"}


# -- apart -----------------------------------------------------------------------------------------------------------


def poisoned(*poison: bytes, failure: Failure = BAD_INPUT) -> Script:
    return lambda call: Play(failure if set(poison) & set(rows_of(call)) else ok(call))


@in_virtual_time
async def test_poison_is_bisected_out_of_its_batch_and_nothing_else_is_lost() -> None:
    with simulated():
        bench = Bench(poisoned(b"005", b"011"), batch={"max_events": 16})
        bench.deliver(*numbered(16), keys=b"abcdefghijklmnop")
        await bench.complete()
        assert bench.reasons == [(b"005", "rejected_by_model"), (b"011", "rejected_by_model")]
        assert len(bench.results.appended) == 14
        assert len(bench.endpoint.seen) <= 2 * 2 * 4 + 2 + 1
        (attempts,) = {dict(letter.headers)["inference-attempts"] for letter in bench.dead_letters.appended}
        assert attempts == b"5", "in batches of 16, 8, 4, 2 and 1"


@in_virtual_time
async def test_after_max_calls_a_batch_is_taken_apart_one_by_one() -> None:
    with simulated():
        bench = Bench(poisoned(b"000"), batch={"max_events": 8}, bisect={"max_calls": 0})
        bench.deliver(*numbered(8))
        await bench.complete()
        assert [len(rows) for rows in bench.endpoint.rows] == [8] + [1] * 8
        assert bench.reasons == [(b"000", "rejected_by_model")]


@in_virtual_time
async def test_an_event_whose_header_chose_an_unknown_route_is_to_blame_for_it_and_nobody_else_waits() -> None:
    with simulated():
        unknown = Failure(code="ValidationError", status=400, message="Could not find model")
        bench = Bench(
            lambda call: Play(unknown if ("TargetModel", "m2") in call.route.members else ok(call)),
            endpoint={"target_model": {"header": "model"}},
            dead_letter=UNGUARDED,
        )
        bench.deliver(b"1", b"2", headers=[("model", b"m2")])
        bench.deliver(b"3", headers=[("model", b"m1")])
        await bench.complete()
        assert bench.reasons == [(b"1", "rejected_route"), (b"2", "rejected_route")]
        assert bench.results.payloads == [b"3"]


@in_virtual_time
async def test_halves_that_share_a_lane_go_one_after_the_other_and_results_keep_their_order() -> None:
    with simulated():
        bench = Bench(poisoned(b"002"), batch={"max_events": 8})
        bench.deliver(*numbered(8), keys=b"aaaaaaaa")
        await bench.complete()
        assert bench.endpoint.most_in_flight == 1
        assert bench.results.payloads == [value for value in numbered(8) if value != b"002"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda call: Response(b"\n".join([*rows_of(call), b"extra"])),
        lambda call: Response(b"\n" * (len(rows_of(call)) - 1)),
    ],
)
@in_virtual_time
async def test_a_response_that_is_no_prediction_for_each_event_splits_down_to_single_ones(answer: Any) -> None:
    with simulated():
        bench = Bench(lambda call: Play(answer(call)), dead_letter=UNGUARDED)
        bench.deliver(*numbered(4))
        await bench.complete()
        assert bench.reasons == [(value, "response_mismatch") for value in numbered(4)]
        assert [len(rows) for rows in bench.endpoint.rows] == [4, 2, 2, 1, 1, 1, 1]


@in_virtual_time
async def test_a_dead_letter_says_which_call_it_was_what_the_container_said_and_who_answered() -> None:
    with simulated():
        unfit = Response(b"1\n2\n3", variant="green")
        bench = Bench(first(BAD_INPUT, unfit), correlation={"mode": "key"}, dead_letter=UNGUARDED)
        bench.deliver(b"1", b"2", keys=b"ab")
        await bench.complete()
        rejected, unfitting = (dict(letter.headers) for letter in bench.dead_letters.appended)
        assert rejected["inference-id"] == b"a"
        assert rejected["inference-error-message"] == b"bad input"
        assert rejected["inference-error-status"] == b"400"
        assert (unfitting["inference-id"], unfitting["inference-variant"]) == (b"b", b"green")


@in_virtual_time
async def test_a_single_event_that_breaks_the_model_is_given_up_only_once_another_of_its_route_succeeded() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(BROKEN_MODEL if b"bad" in call.body else ok(call)),
            endpoint={"target_model": {"header": "model"}},
            dead_letter=UNGUARDED,
        )
        bench.deliver(b"bad", headers=[("model", b"m1")])
        await bench.wait(600)
        assert len(bench.endpoint.seen) > 20
        bench.deliver(b"elsewhere", headers=[("model", b"m2")])
        await bench.wait(600)
        assert not bench.dead_letters.appended
        bench.deliver(b"good", headers=[("model", b"m1")])
        await bench.complete()
        assert bench.reasons == [(b"bad", "model_error")]
        assert bench.results.payloads == [b"elsewhere", b"good"]


@in_virtual_time
async def test_a_success_before_the_first_failure_proves_nothing() -> None:
    with simulated():
        bench = Bench(lambda call: Play(BROKEN_MODEL if b"bad" in call.body else ok(call)))
        bench.deliver(b"good")
        await bench.settle()
        bench.deliver(b"bad")
        await bench.wait(600)
        assert not bench.dead_letters.appended
        bench.deliver(b"good again")
        await bench.complete()
        assert bench.reasons == [(b"bad", "model_error")]


@in_virtual_time
async def test_a_broken_model_is_called_twice_more_before_its_batch_is_split() -> None:
    with simulated():
        bench = Bench(poisoned(b"000", failure=BROKEN_MODEL), batch={"max_events": 2})
        bench.deliver(b"000", b"001")
        await bench.complete()
        # The half counts on from its batch: it goes as soon as the other one has succeeded.
        assert bench.endpoint.rows[:3] == [[b"000", b"001"]] * 3
        assert bench.endpoint.rows.count([b"001"]) == 1
        assert bench.reasons == [(b"000", "model_error")]


@pytest.mark.parametrize(("final", "given_up"), [(True, [(b"slow", "timeout")]), (False, [])])
@in_virtual_time
async def test_single_timeouts_are_final_only_when_the_settings_say_so(
    final: bool, given_up: list[tuple[bytes, str]]
) -> None:
    with simulated():
        bench = Bench(always(TIMED_OUT), dead_letter={"timeouts": final})
        bench.deliver(b"slow")
        await bench.wait(600)
        assert bench.reasons == given_up
        assert len(bench.endpoint.seen) == 3 or not final


# -- too old, too large ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_older_than_max_age_is_given_up_at_its_next_failure_and_the_rest_goes_on() -> None:
    with simulated(chance=0.5):
        # Calls 5 s apart, of which the last that fails is made after 60 s.
        bench = Bench(first(*[UNAVAILABLE] * 13), retry={"initial": "10s", "max": "10s", "max_age": "58s"})
        start = bench.loop.time()
        old, young, _ = bench.deliver(b"old", b"young", b"old too", keys=b"aba")
        (behind,) = bench.deliver(b"behind", keys=b"a")
        young.timestamp = behind.timestamp = old.timestamp + 1_000_000
        await bench.complete()
        assert bench.reasons == [(b"old", "expired"), (b"old too", "expired")]
        assert bench.dead_letters.times == pytest.approx([start + 60] * 2)
        assert bench.endpoint.rows[13:] == [[b"young"], [b"behind"]]
        headers = dict(bench.dead_letters.appended[0].headers)
        assert b"retry.max_age" in headers["inference-error-message"]
        assert b"service_unavailable" in headers["inference-error-message"]
        assert headers["inference-attempts"] == b"13"
        assert headers["inference-id"].decode() == bench.endpoint.seen[12].call.inference_id, "of the last call"


@in_virtual_time
async def test_a_batch_of_nothing_but_expired_events_is_done_and_frees_its_lanes() -> None:
    with simulated():
        bench = Bench(first(UNAVAILABLE), retry={"max_age": "1m"})
        bench.deliver(b"1", b"2", keys=b"ab", age=100)
        bench.deliver(b"3", keys=b"a")
        await bench.complete()
        assert bench.reasons == [(b"1", "expired"), (b"2", "expired")]
        assert bench.results.payloads == [b"3"]


@in_virtual_time
async def test_without_max_age_nothing_is_ever_too_old() -> None:
    with simulated():
        bench = Bench(first(*[UNAVAILABLE] * 5))
        bench.deliver(b"1", age=1e6)
        await bench.complete()
        assert bench.results.payloads == [b"1"]


@in_virtual_time
async def test_a_result_that_its_topic_can_never_take_makes_a_dead_letter_and_completes_its_event() -> None:
    with simulated() as log:
        bench = Bench(echo, acknowledge=NEVER)
        bench.deliver(b"1", b"2", keys=b"ab")
        await bench.settle()
        large, small = bench.results.appended
        bench.pipeline.result_too_large(large, 2_000_000)
        bench.results.pending.remove(large)
        bench.results.acknowledge([small])
        bench.dead_letters.acknowledge(bench.dead_letters.appended)
        await bench.complete()
        assert bench.reasons == [(b"1", "too_large")]
        headers = dict(bench.dead_letters.appended[0].headers)
        assert b"2000000 bytes" in headers["inference-error-message"]
        assert b"inference-results" in headers["inference-error-message"]
        assert headers["inference-attempts"] == b"1"
        assert headers["inference-id"].decode() == bench.endpoint.seen[0].call.inference_id
        assert headers["inference-variant"] == b"blue"
        assert [line["reason"] for line in log] == ["too_large"]


@in_virtual_time
async def test_a_result_too_large_counts_every_call_that_its_event_was_in() -> None:
    with simulated():
        bench = Bench(first(UNAVAILABLE, BAD_INPUT), batch={"max_events": 2})
        bench.deliver(b"1", b"2")
        await bench.complete()
        bench.pipeline.result_too_large(bench.results.appended[1], 2_000_000)
        headers = dict(bench.dead_letters.appended[0].headers)
        assert headers["inference-attempts"] == b"3", "unavailable, rejected in a batch of two, answered alone"


@in_virtual_time
async def test_headers_of_results_and_dead_letters_are_what_aiokafkas_builder_takes() -> None:
    with simulated():
        bench = Bench(poisoned(b"1"), dead_letter=UNGUARDED)
        bench.deliver(b"1", headers=(("trace", b"a"),))
        bench.deliver(b"2", headers=(("trace", b"a"),))
        bench.deliver(b"3", b"4\n")
        await bench.complete()
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 20)
        for offset, letter in enumerate([*bench.results.appended, *bench.dead_letters.appended]):
            assert builder.append(offset, letter.timestamp, letter.key, letter.value, letter.headers)


# -- what is counted -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_result_takes_room_until_the_broker_has_it() -> None:
    with simulated():
        bench = Bench(lambda call: Play(Response(b"x" * 100)), acknowledge=NEVER, batch={"max_events": 1})
        bench.deliver(b"1", b"22", keys=b"ab")
        ledger = bench.ledgers[0]
        assert ledger.bytes == 5
        await bench.settle()
        assert ledger.bytes == 205
        bench.results.acknowledge(bench.results.appended[:1])
        assert (ledger.bytes, ledger.committable) == (103, 1)
        rooms = bench.rooms
        bench.results.acknowledge(bench.results.appended[1:])
        assert bench.rooms > rooms, "the source is told"
        await bench.complete()


@in_virtual_time
async def test_a_lane_is_freed_by_the_answer_and_an_event_is_complete_by_the_acknowledgement() -> None:
    with simulated():
        bench = Bench(echo, acknowledge=NEVER, batch={"max_events": 1})
        bench.deliver(b"1", b"2", keys=b"aa")
        await bench.settle()
        assert bench.endpoint.rows == [[b"1"], [b"2"]]
        assert bench.ledgers[0].committable == 0


@in_virtual_time
async def test_the_metrics_tell_calls_their_seconds_their_events_and_where_time_went() -> None:
    with simulated():
        bench = Bench(
            lambda call: Play(BAD_INPUT if b"bad" in call.body else ok(call), 2.0),
            acknowledge=1.0,
            batch={"max_events": 2},
            concurrency={"max_in_flight": 1},
            dead_letter=UNGUARDED,
        )
        bench.deliver(b"1", b"2", b"3", b"bad", age=10)
        await bench.complete()
        value = bench.metrics.registry.get_sample_value
        assert bench.calls_by_outcome() == {
            ("ok", "ok"): 2,
            ("split", "rejected_by_model"): 1,
            ("dead_letter", "rejected_by_model"): 1,
        }
        assert value("connector_results_total") == 3
        assert value("connector_dead_letters_total", {"reason": "rejected_by_model"}) == 1
        assert value("connector_batch_events_sum") == 6
        assert value("connector_call_seconds_sum") == pytest.approx(8)
        assert value("connector_queue_seconds_sum") == pytest.approx(2), "the second batch waits for the first"
        assert value("connector_queue_seconds_count") == 2, "first calls of batches, not those of their halves"
        assert value("connector_end_to_end_seconds_sum") == pytest.approx(13 + 13 + 17)
        assert value("connector_loop_seconds_total", {"activity": "calling"}) == pytest.approx(8)
        assert value("connector_loop_seconds_total", {"activity": "waiting_for_slot"}) == pytest.approx(4)


@in_virtual_time
async def test_the_queue_seconds_of_a_batch_end_at_its_first_call() -> None:
    with simulated():
        bench = Bench(first(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE))
        bench.deliver(b"1")
        await bench.complete()
        value = bench.metrics.registry.get_sample_value
        assert value("connector_queue_seconds_count") == 1
        assert value("connector_call_seconds_count") == 4


@pytest.mark.parametrize("shown", [True, False])
@in_virtual_time
async def test_payloads_are_logged_only_when_the_settings_say_so(shown: bool) -> None:
    with simulated() as log:
        bench = Bench(always(BAD_INPUT), log={"payloads": shown}, dead_letter=UNGUARDED)
        bench.deliver(b"secret", keys=b"k")
        await bench.complete()
        (line,) = log
        assert line["event"] == "dead_lettered"
        assert (b"secret" in line.values()) is shown
        assert (line["key"], line["attempt"], line["reason"]) == (b"k", 1, "rejected_by_model")


@in_virtual_time
async def test_it_tells_how_many_bytes_results_take_for_each_byte_of_their_events() -> None:
    with simulated():
        bench = Bench(echo)
        assert bench.pipeline.growth == 0
        for number in range(200):
            bench.deliver(b"%03d" % number)
            await bench.complete()
        assert bench.pipeline.growth == pytest.approx(4 / 3, rel=0.01)
