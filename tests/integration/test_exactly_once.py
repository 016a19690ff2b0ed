"""Exactly-once: results, dead letters and offsets in one transaction, whatever happens to the processes."""

from __future__ import annotations

import pytest

from connector.core.epochs.ledger import Commit
from connector.core.epochs.offset_map import decode
from connector.local.endpoint.faults import Fault
from tests.integration.rig import Rig, Settings, source, until
from tests.integration.test_end_to_end import assert_in_order, keyed

pytestmark = pytest.mark.integration


def exactly_once(**kafka: object) -> Settings:
    return {
        "kafka": {"delivery": "exactly_once", "transaction_timeout": "30s", **kafka},
        "concurrency": {"max_in_flight": 8},
        "batch": {"max_events": 4, "linger": "2ms"},
    }


async def test_results_and_dead_letters_come_once_and_the_offsets_with_them(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("model_error", payload=b"poison", status=400)]
    await rig.connector(exactly_once())
    places = await rig.produce([*keyed(60), (b"k", b"poison"), *keyed(100)[60:]])
    results = await rig.results(100)
    (letter,) = await rig.dead_letters(1)
    assert letter.value == b"poison"
    assert sorted([*map(source, results), source(letter)]) == sorted(places)
    assert_in_order(results)
    ends = await rig.ends()

    async def all_committed() -> bool:
        return await rig.committed() == {number: end for number, end in ends.items() if end}

    await until(all_committed, "the offsets")


async def test_delivery_can_be_changed_while_the_group_is_stopped_and_nothing_is_repeated(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("delay", payload=b"0,7", seconds=60.0, times=1)]
    careful = exactly_once()
    careless: Settings = {**careful, "kafka": {"delivery": "at_least_once"}}
    # What is complete behind a slow event is in the metadata of the commits alone.
    first = await rig.connector(careless)
    places = await rig.produce([(b"key-00", b"0,7")], partition=0)

    async def slow_one_is_out() -> bool:
        return rig.endpoint.stats.in_flight == 1

    await until(slow_one_is_out, "the slow event to be called alone")
    places += await rig.produce([(b"key-%02d" % number, b"%d,7" % number) for number in range(1, 41)], partition=0)
    await rig.results(40)

    async def all_mapped() -> bool:
        commit = (await rig.commits()).get(0, Commit(0))
        known = decode(commit.metadata, commit.offset)
        return known is not None and sum(end - first for first, end in known.runs(commit.offset)) == 40

    await until(all_mapped, "the slow event to be the only one that the group does not know")
    await first.kill()
    second = await rig.connector(careful)
    results = await rig.results(41)
    assert sorted(map(source, results)) == sorted(places)
    assert sorted(map(source, await rig.settled(rig.output))) == sorted(places)
    assert await second.metric("connector_skipped_total") == 40
    await second.stop()
    await rig.connector(careless)
    places += await rig.produce([(b"key", b"%d,7" % number) for number in range(41, 61)], partition=0)
    await rig.results(61)
    assert sorted(map(source, await rig.settled(rig.output))) == sorted(places)
