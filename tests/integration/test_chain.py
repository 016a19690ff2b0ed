"""Nothing is lost: processes that join, leave and die while events flow."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from connector.local.endpoint.faults import Fault
from tests.integration.rig import Process, Rig, Settings, source, until
from tests.integration.test_end_to_end import assert_in_order, keyed

pytestmark = pytest.mark.integration


async def test_a_rebalance_with_calls_in_flight_loses_nothing_and_repeats_nothing_that_was_answered(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("delay", seconds=0.4)]
    settings: Settings = {"concurrency": {"max_in_flight": 8}, "batch": {"max_events": 4}}
    first = await rig.connector(settings)
    places = await rig.produce(keyed(100))
    await rig.results(20)
    second = await rig.connector(settings, wait=False)

    async def both_work() -> bool:
        # Calls are in flight whenever it is that the second one joins.
        start = len(places)
        places.extend(await rig.produce(keyed(start + 20)[start:]))
        return await second.metric("connector_results_total") > 0

    await until(both_work, "the second one to have results")
    results = await rig.results(len(places))
    assert {source(record) for record in results} == set(places)
    results = await rig.settled(rig.output)
    assert len(results) == len(places), "an answered event was answered again"
    assert_in_order(results)
    await first.stop()
    await second.stop()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_ten_kills_over_two_thousand_events_lose_nothing(rig: Rig, delivery: str) -> None:
    dice = random.Random(20260101)
    rig.endpoint.faults = [
        Fault("delay", rate=0.5, seconds=0.05),
        Fault("delay", rate=0.1, seconds=0.3),
        Fault("throttle", rate=0.05),
    ]
    settings: Settings = {
        "concurrency": {"max_in_flight": 8},
        "batch": {"max_events": 4, "linger": "2ms"},
        "kafka": {"delivery": delivery, "session_timeout": "6s", "request_timeout": "5s", "revoke_drain": "2s"},
    }
    processes: list[Process] = [await rig.connector(settings), await rig.connector(settings)]
    feeding = asyncio.create_task(feed(rig, 2000))
    for _ in range(10):
        # A kill while nothing was answered since the last one would prove little.
        before = len(await rig.results(0))
        await rig.results(min(2000, before + dice.randrange(20, 120)), limit=60)
        victim = processes.pop(dice.randrange(2))
        await victim.kill()
        processes.append(await rig.connector(settings, wait=False))
    places = await feeding

    async def all_there() -> bool:
        return {source(record) for record in await rig.so_far(rig.output)} >= set(places)

    await until(all_there, "every event to have a result", limit=90)
    results = await rig.settled(rig.output)
    assert {source(record) for record in results} == set(places)
    assert_in_order(results)
    assert await rig.settled(rig.letters, 0.2) == []
    repeated = sum(count > 1 for count in Counter(map(source, results)).values())
    print(f"{delivery}: {len(results)} results of {len(places)} events, {repeated} events repeated")
    if delivery == "exactly_once":
        assert repeated == 0


async def feed(rig: Rig, count: int) -> list[str]:
    """Produce steadily, so that every kill meets events on their way."""
    places: list[str] = []
    events = keyed(count, keys=100)
    for start in range(0, count, 50):
        places += await rig.produce(events[start : start + 50])
        await asyncio.sleep(0.3)
    return places
