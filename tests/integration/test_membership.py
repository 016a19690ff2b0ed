"""Joining, leaving and being cut off: who is ready, and what becomes of the calls in flight."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING

import pytest

from connector.local.endpoint.faults import Fault
from connector.local.kafka.cluster import LocalKafka
from tests.integration.rig import make_rig, source, until
from tests.integration.test_end_to_end import assert_in_order, keyed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.rig import Process, Rig, Settings

pytestmark = pytest.mark.integration

FEW: Settings = {"concurrency": {"max_in_flight": 8}, "batch": {"max_events": 4}}


async def statuses(process: Process, until_set: asyncio.Event) -> set[tuple[int, str]]:
    """Everything that /health/ready says meanwhile."""
    seen = set()
    while not until_set.is_set():
        seen.add(await process.get("/health/ready"))
        await asyncio.sleep(0.02)
    return seen


async def test_a_joiner_is_not_ready_before_the_others_have_drained_and_they_stay_ready(rig: Rig) -> None:
    # The drain of a call that hangs, so the joiner has to wait for all of it; called again, it is answered.
    rig.endpoint.faults = [Fault("hang", payload=b"hang", times=1)]
    first = await rig.connector({"kafka": {"revoke_drain": "3s"}})
    places = await rig.produce([(b"stuck", b"hang,1")], partition=0)

    async def call_is_out() -> bool:
        return rig.endpoint.stats.in_flight == 1

    await until(call_is_out, "the call to be out")
    joined = asyncio.Event()
    watching = asyncio.create_task(statuses(first, joined))
    second = await rig.connector({"kafka": {"revoke_drain": "3s"}}, wait=False)
    await second.unready("waiting for the first assignment")
    assert '"partitions_assigned"' not in second.lines()
    await second.ready()
    joined.set()
    assert await watching == {(200, "ready\n")}, "a rebalance flapped it"
    places += await rig.produce(keyed(40))
    assert sorted(map(source, await rig.results(41))) == sorted(places)


async def test_a_process_that_leaves_hands_over_without_loss_or_repetition(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("delay", seconds=0.2), Fault("delay", rate=0.3, seconds=0.3)]
    processes = await asyncio.gather(rig.connector(FEW), rig.connector(FEW))
    places: list[str] = []

    async def calls_are_out() -> bool:
        # Calls are in flight whenever it is that a process leaves.
        start = len(places)
        places.extend(await rig.produce(keyed(start + 20)[start:]))
        return rig.endpoint.stats.in_flight >= 6

    for leaver in processes:
        await until(calls_are_out, "calls to be in flight")
        await leaver.stop()
    await rig.connector(FEW)
    ends = await rig.ends()

    async def all_committed() -> bool:
        return await rig.committed() == ends

    await until(all_committed, "everything to be committed")
    results = await rig.settled(rig.output, 0.3)
    assert sorted(map(source, results)) == sorted(places), "an answered event was answered again, or one was lost"
    assert_in_order(results)


@pytest.mark.parametrize("kind", ["access_denied", "model_error"])
async def test_a_halted_or_guarded_process_ends_soon_and_gives_nothing_up(rig: Rig, kind: str) -> None:
    rig.endpoint.faults = [Fault(kind, status=400)]
    settings: Settings = {"dead_letter": {"window": 10}, "correlation": {"mode": "batch"}}
    process = await rig.connector(settings)
    places = await rig.produce(keyed(100))
    await process.unready("halted" if kind == "access_denied" else "guarded")
    started = time.monotonic()
    await process.stop()
    assert time.monotonic() - started < 6, "the drain has 8 s"
    rig.endpoint.faults = []
    given_up = await rig.settled(rig.letters, 0.3)
    assert len(given_up) <= (0 if kind == "access_denied" else 10)
    await rig.connector(settings)
    results = await rig.results(100 - len(given_up))
    assert {source(record) for record in [*results, *given_up]} == set(places)


async def test_a_silent_kafka_is_noticed_and_waited_for_and_holds_up_no_exit(tmp_path: Path) -> None:
    with LocalKafka() as kafka:
        async with make_rig(kafka.bootstrap_servers, tmp_path) as rig:
            await rig.make_topics()
            rig.endpoint.faults = [Fault("delay", seconds=0.5)]
            settings: Settings = {
                "kafka": {"session_timeout": "6s", "request_timeout": "3s", "revoke_drain": "500ms"},
                "shutdown": {"drain": "6s"},
            }
            leaver, stays = await asyncio.gather(rig.connector(settings), rig.connector(settings))
            places = await rig.produce(keyed(100, keys=50))

            async def calls_are_out() -> bool:
                return rig.endpoint.stats.in_flight >= 10

            await until(calls_are_out, "the calls to be out")
            kafka.pause()
            try:
                started = time.monotonic()
                leaver.signal(signal.SIGTERM)
                assert await leaver.ended() == 0, leaver.lines()[-3000:]
                assert time.monotonic() - started < 6 + 2
                await stays.unready("")  # cut off, or results that it cannot publish
            finally:
                kafka.resume()
            await stays.ready()
            await rig.results(1)

            async def all_there() -> bool:
                return {source(record) for record in await rig.so_far(rig.output)} == set(places)

            await until(all_there, "every event to have a result")
            assert "Traceback" not in leaver.lines() + stays.lines()
