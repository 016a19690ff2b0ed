"""Order within lanes, ids and offsets where it is hard: failures of every kind at once, odd keys, markers at the end."""

from __future__ import annotations

from collections import Counter
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from connector.local.endpoint.faults import Fault
from tests.integration.clients import started
from tests.integration.rig import source, until
from tests.integration.test_end_to_end import assert_in_order, keyed

if TYPE_CHECKING:
    from tests.integration.rig import Event, Rig, Settings

pytestmark = pytest.mark.integration

LATENCIES = [Fault("delay", rate=0.4, seconds=0.03), Fault("delay", rate=0.2, seconds=0.1)]
POISON = Fault("model_error", payload=b"poison", status=400)
TRANSIENT = [
    *(Fault(kind, rate=0.15) for kind in ("throttle", "throttle_untyped", "too_many_requests", "model_not_ready")),
    *(Fault(kind, rate=0.15) for kind in ("service_unavailable", "internal_failure", "internal_dependency", "reset")),
    *(Fault("model_error", rate=0.1, status=status) for status in (0, 429, 503, 504)),
]


async def test_key_mode_keeps_the_order_of_each_key_and_dead_letters_poison_only(rig: Rig) -> None:
    rig.endpoint.faults = [*LATENCIES, POISON, Fault("throttle", rate=0.2)]
    await rig.connector({"batch": {"max_events": 8}, "concurrency": {"max_in_flight": 16}})
    events = keyed(400, keys=10)
    poison = range(13, 400, 40)
    for number in poison:
        events[number] = (events[number][0], b"%d,poison" % number)
    places = await rig.produce(events, headers=[("twice", b"\x00"), ("twice", b"\xff")])
    results, letters = await rig.results(390), await rig.dead_letters(10)
    assert_in_order(results)
    assert sorted(map(source, results)) == sorted(set(places) - {places[number] for number in poison})
    assert sorted(map(source, letters)) == sorted(places[number] for number in poison)
    for letter in letters:
        assert (letter.key, letter.value) == events[places.index(source(letter))]
        assert letter.headers[:2] == (("twice", b"\x00"), ("twice", b"\xff"))


async def test_every_kind_of_transient_failure_at_once_loses_no_event_and_no_order(rig: Rig) -> None:
    rig.endpoint.faults = [*LATENCIES, *TRANSIENT]
    await rig.connector({"batch": {"max_events": 16}, "correlation": {"mode": "batch"}})
    places = await rig.produce(keyed(400))
    results = await rig.results(400)
    assert sorted(map(source, results)) == sorted(places)
    assert_in_order(results)
    assert await rig.settled(rig.letters, 0.2) == []
    assert len(rig.endpoint.stats.by_status) >= 5, "the faults did not happen"


@pytest.mark.parametrize("mode", ["key", "batch"])
async def test_ordering_by_partition_answers_a_partition_in_its_order(bare_rig: Rig, mode: str) -> None:
    rig = bare_rig
    rig.partitions = 1
    rig.endpoint.faults = [*LATENCIES, POISON, Fault("throttle", rate=0.2)]
    await rig.make_topics()
    settings: Settings = {"batch": {"max_events": 8}, "kafka": {"ordering": "partition"}, "correlation": {"mode": mode}}
    await rig.connector(settings)
    events: list[Event] = [(b"k%d" % (number // 5), b"%d,1" % number) for number in range(80)]
    events[33] = (b"k", b"33,poison")
    places = await rig.produce(events)
    assert [source(record) for record in await rig.results(79)] == [*places[:33], *places[34:]]
    assert [source(record) for record in await rig.dead_letters(1)] == [places[33]]


async def test_without_ordering_every_event_is_answered_once(rig: Rig) -> None:
    rig.endpoint.faults = [*LATENCIES, Fault("throttle", rate=0.2)]
    settings: Settings = {"batch": {"max_events": 8}, "kafka": {"ordering": "none"}, "correlation": {"mode": "batch"}}
    await rig.connector(settings)
    places = await rig.produce(keyed(300, keys=1))
    assert sorted(map(source, await rig.results(300))) == sorted(places)


async def test_keys_that_could_be_taken_for_ids_of_ours_are_hashed_and_equal_keys_have_equal_ids(rig: Rig) -> None:
    await rig.connector()
    ours = [sha256(b"device").hexdigest().encode(), b"in-topic-0-17", b"blank "]
    legal = [b"x" * 64, b"device 7", b"order-2024-0007", b"~!@#$%^&*()"]
    places = await rig.produce([(key, b"1,2") for key in (*ours, *legal)] * 2)
    (keyless,) = await rig.produce([(b"", b"1,2")])
    results = await rig.results(2 * len(ours) + 2 * len(legal) + 1)
    ids = Counter((record.key, dict(record.headers)["inference-id"].decode()) for record in results)
    expected = {(key, sha256(key).hexdigest()): 2 for key in ours} | {(key, key.decode()): 2 for key in legal}
    assert ids == Counter({**expected, (b"", keyless.replace("/", "-")): 1})
    assert len(set(places)) == len(places)


async def test_an_aborted_end_of_a_partition_leaves_no_lag_and_stalls_nothing(bare_rig: Rig) -> None:
    rig = bare_rig
    rig.partitions = 1
    await rig.make_topics()
    process = await rig.connector()
    async with started(
        AIOKafkaProducer(bootstrap_servers=rig.bootstrap_servers, transactional_id=rig.group)
    ) as producer:
        for values, commit in (([b"1", b"2"], True), ([b"3", b"4", b"5"], False)):
            await producer.begin_transaction()
            for value in values:
                await producer.send_and_wait(rig.input, value, key=b"k")
            await (producer.commit_transaction() if commit else producer.abort_transaction())

        async def no_lag() -> bool:
            # Two events, a marker, three aborted events, a marker.
            committed, lag = await rig.committed(), await process.metric("connector_lag")
            return committed.get(0, 0) >= 2 and lag == 0 and await process.metric("connector_results_total") == 2

        await until(no_lag, "the lag to be 0")
        await producer.begin_transaction()
        await producer.send_and_wait(rig.input, b"6", key=b"k")
        await producer.commit_transaction()
    assert [record.value for record in await rig.results(3)] == [b"1", b"2", b"6"]

    async def all_committed() -> bool:
        return await rig.committed() == {0: 8}

    await until(all_committed, "the event behind the aborted ones to be committed")
