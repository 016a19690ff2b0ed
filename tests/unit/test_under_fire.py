"""Guard and bisection under fire: faults of the service and of the way to it cost time, and never a good event."""

from __future__ import annotations

from collections import Counter
from math import ceil, log2
from random import Random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core.calls.call import Failure, Transport
from tests.unit.pipeline_bench import BAD_INPUT, THROTTLED, TIMED_OUT, UNAVAILABLE, Bench, Play, ok, simulated
from tests.unit.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from connector.core.calls.call import Call
    from tests.unit.pipeline_bench import Script

FAULTS = {
    "throttled as SageMaker does": THROTTLED,
    "throttled with a code": Failure(code="ThrottlingException", status=400, message="Rate exceeded"),
    "throttled by a proxy": Failure(status=429),
    "503": UNAVAILABLE,
    "503 of the container": Failure(code="ModelError", status=424, original_status=503),
    "530": Failure(code="InternalDependencyException", status=530),
    "530 without a code": Failure(status=530),
    "reset": Failure(transport=Transport.RESET),
    "reset of a large body": Failure(transport=Transport.RESET, body_size=2 << 20),
    "refused": Failure(transport=Transport.CONNECT),
    "timed out": TIMED_OUT,
}
POISON = b"poison"
TRIPS_AT_THE_FIRST = {"window": 1}


def model(call: Call) -> Play:
    """A good model that cannot read poison."""
    return Play(BAD_INPUT if POISON in call.body else ok(call), 0.05)


class UnderFire:
    """A model behind faults: each takes `share` of the calls that the ones before it left alone."""

    def __init__(self, dice: Random, *faults: Failure, share: float = 0.3) -> None:
        self._dice = dice
        self._faults = faults
        self._share = share
        self.struck = 0

    def __call__(self, call: Call) -> Play:
        for fault in self._faults:
            if self._dice.random() < self._share:
                self.struck += 1
                return Play(fault, 0.05)
        return model(call)


def values(count: int) -> list[bytes]:
    return [b"%04d" % number for number in range(count)]


def poisoned(batches: int, size: int, dice: Random) -> tuple[list[bytes], list[bytes]]:
    """The values of full batches with one poison event in each, and the poison."""
    all_values, poison = values(batches * size), []
    for first in range(0, len(all_values), size):
        place = first + dice.randrange(size)
        all_values[place] += POISON
        poison.append(all_values[place])
    return all_values, poison


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", range(3))
@in_virtual_time
async def test_a_fault_that_strikes_a_third_of_the_calls_dead_letters_nothing(fault: str, seed: int) -> None:
    with simulated(seed=seed) as log:
        script = UnderFire(Random(seed), FAULTS[fault])
        bench = Bench(script, batch={"max_events": 8}, dead_letter=TRIPS_AT_THE_FIRST)
        bench.deliver(*values(400), keys=[None, b"a", b"b", b"c"] * 100)
        await bench.complete(within=100_000)
        assert script.struck > 10
        assert not bench.dead_letters.appended
        assert Counter(bench.results.payloads) == Counter(values(400))
        assert {line["event"] for line in log} == {"call_failed"}


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), mode=st.sampled_from(["key", "batch"]))
@in_virtual_time
async def test_all_faults_at_once_dead_letter_the_poison_alone(seed: int, mode: str) -> None:
    dice = Random(seed)
    with simulated(seed=seed):
        script = UnderFire(dice, *FAULTS.values(), share=0.1)
        bench = Bench(script, batch={"max_events": 8}, correlation={"mode": mode})
        given_values, poison = poisoned(20, 8, dice)
        bench.deliver(*given_values, keys=[dice.choice([None, b"a", b"b"]) for _ in given_values])
        await bench.complete(within=1e6)
        assert bench.reasons == [(value, "rejected_by_model") for value in sorted(poison)]
        assert Counter(bench.results.payloads) == Counter(set(given_values) - set(poison))


@pytest.mark.parametrize("fault", [None, "throttled with a code", "503", "530", "reset"])
@pytest.mark.parametrize("size", [4, 16, 64])
@in_virtual_time
async def test_poison_in_every_batch_lets_every_good_event_through_within_the_bound_of_calls(
    fault: str | None, size: int
) -> None:
    dice = Random(size)
    batches = 500 // size
    with simulated():
        script = UnderFire(dice, *([FAULTS[fault]] if fault else []))
        bench = Bench(script, batch={"max_events": size, "linger": "1s"})
        given_values, poison = poisoned(batches, size, dice)
        bench.deliver(*given_values)
        await bench.complete(within=100_000)
        assert bench.reasons == [(value, "rejected_by_model") for value in sorted(poison)]
        assert Counter(bench.results.payloads) == Counter(set(given_values) - set(poison))
        assert len(bench.endpoint.seen) - script.struck <= batches * (2 * ceil(log2(size)) + 2)


def broken_until(mended: list[bool]) -> Script:
    return lambda call: Play(ok(call) if mended else BAD_INPUT, 0.05)


@pytest.mark.parametrize("window", [10, 200])
@in_virtual_time
async def test_a_model_that_rejects_everything_costs_a_window_of_events_and_is_found_when_it_is_mended(
    window: int,
) -> None:
    mended: list[bool] = []
    with simulated() as log:
        bench = Bench(broken_until(mended), batch={"max_events": 8}, dead_letter={"window": window})
        coming = values(3000)

        async def feed(seconds: float) -> None:
            """Deliver as a source does: a few events at a time, while they may be fetched."""
            until = bench.loop.time() + seconds
            while bench.loop.time() < until and coming:
                if bench.consuming() and len(bench.events) - len(bench.results.appended) < 500 + window:
                    bench.deliver(*[coming.pop(0) for _ in range(min(50, len(coming)))])
                await bench.wait(0.1)

        await feed(3600)
        lost = len(bench.dead_letters.appended)
        probes_in_an_hour = 6 + 3600 // 60
        assert window - 1 <= lost <= window - 1 + probes_in_an_hour
        assert len(coming) > 1500, "the topic keeps the rest"
        assert bench.problem().startswith(f"guarded: {window} of the last {window} events")

        mended.append(True)
        await feed(3600)
        await bench.complete()
        assert not coming
        assert bench.consuming()
        held = 4 * 8
        assert len(bench.dead_letters.appended) <= lost + held, "those of the calls in flight when it tripped"
        answered = Counter([*bench.results.payloads, *bench.dead_letters.payloads])
        assert answered == Counter(values(3000))
        said = [line["event"] for line in log if line["event"] in ("guard_tripped", "resumed")]
        assert said == ["guard_tripped", "resumed"]
