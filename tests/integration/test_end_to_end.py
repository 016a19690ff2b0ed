"""The main job, with real processes: results belong to their events, in order, and only bad events are dead-lettered."""

from __future__ import annotations

import random
from collections import defaultdict
from hashlib import sha256
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from connector.local.endpoint import captures
from connector.local.endpoint.faults import Fault
from tests.integration.clients import started
from tests.integration.rig import Rig, source, until

if TYPE_CHECKING:
    from tests.integration.rig import Event

pytestmark = pytest.mark.integration


def keyed(count: int, keys: int = 20) -> list[Event]:
    """Events whose values are their numbers."""
    return [(b"key-%02d" % (number % keys), b"%d,7" % number) for number in range(count)]


def assert_in_order(results: list[Any]) -> None:
    """Check that the first results of each key come in the order of their events."""
    by_key: dict[tuple[bytes, str], list[int]] = defaultdict(list)
    seen: set[str] = set()
    for record in results:
        if source(record) not in seen:
            seen.add(source(record))
            by_key[record.key, record.topic].append(int(record.value.split(b",")[0]))
    for numbers in by_key.values():
        assert all(first < second for first, second in pairwise(numbers)), numbers


async def test_results_belong_to_their_events_and_say_which_row_of_which_call_they_were(rig: Rig) -> None:
    await rig.connector()
    events = keyed(300)
    places = await rig.produce(events, headers=[("trace", b"t-1"), ("inference-id", b"theirs"), ("odd", b"\xff")])
    by_place = dict(zip(places, events, strict=True))
    results = await rig.results(300)
    assert {source(record) for record in results} == set(places)
    lines = {sha256(line.input or b"").hexdigest()[:16]: line for line in captures.read(rig.captures)}
    for record in results:
        key, value = by_place[source(record)]
        assert (record.key, record.value) == (key, value)
        headers = dict(record.headers)
        assert len(headers) == len(record.headers), "a header occurs twice"
        assert headers["trace"] == b"t-1"
        assert headers["odd"] == b"\xff"
        assert headers["inference-id"] == key
        assert headers["inference-variant"] == b"blue"
        assert headers["content-type"].startswith(b"text/csv")
        line = lines[headers["inference-call"].decode()]
        rows = (line.input or b"").split(b"\n")
        assert rows[int(headers["inference-batch-index"])] == value
        assert len(rows) == int(headers["inference-batch-size"])
        assert line.inference_id == (key or b"").decode()
    assert_in_order(results)


async def test_batch_mode_mixes_keys_under_an_id_that_stays_the_same_when_the_batch_is_sent_again(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("throttle", every=2)]
    await rig.connector({"correlation": {"mode": "batch"}, "kafka": {"compression": "zstd"}})
    await rig.produce(keyed(200))
    results = await rig.results(200)
    ids = {dict(record.headers)["inference-id"] for record in results}
    assert all(len(one) == 42 and one.startswith(b"b-") for one in ids)
    assert len(ids) < 100
    by_body: dict[str, set[str | None]] = defaultdict(set)
    for call in rig.endpoint.calls:
        by_body[call.body_sha256].add(call.inference_id)
    assert all(len(ids_of_body) == 1 for ids_of_body in by_body.values())
    assert len(rig.endpoint.calls) > len(by_body), "nothing was sent again"


async def test_order_holds_through_retries_and_poison_and_only_poison_is_dead_lettered(rig: Rig) -> None:
    rig.endpoint.faults = [
        Fault("delay", rate=0.3, seconds=0.05),
        Fault("model_error", payload=b"poison", status=400, message="bad row"),
        Fault("throttle", rate=0.2),
    ]
    await rig.connector({"correlation": {"mode": "batch"}, "batch": {"max_events": 16}})
    events = keyed(600)
    bad = {number: (b"key-%02d" % (number % 20), b"%d,poison" % number) for number in (7, 8, 250, 599)}
    for number, event in bad.items():
        events[number] = event
    places = await rig.produce(events, headers=[("h", b"\x00\xff")])
    results, letters = await rig.results(596), await rig.dead_letters(4)
    assert_in_order(results)
    assert {source(record) for record in results} | {source(record) for record in letters} == set(places)
    for record in letters:
        number = int(record.value.split(b",")[0])
        assert (record.key, record.value) == bad[number]
        assert record.headers[0] == ("h", b"\x00\xff")
        headers = dict(record.headers)
        assert headers["inference-error"] == b"rejected_by_model"
        assert headers["inference-error-status"] == b"400"
        assert b"bad row" in headers["inference-error-message"]
        assert source(record) == places[number]


@pytest.mark.parametrize("kind", ["throttle", "throttle_untyped", "service_unavailable", "reset", "truncate"])
async def test_a_busy_endpoint_dead_letters_nothing_and_loses_nothing(rig: Rig, kind: str) -> None:
    rig.endpoint.faults = [Fault(kind, rate=0.5)]
    await rig.connector()
    places = await rig.produce(keyed(300))
    results = await rig.results(300)
    assert {source(record) for record in results} == set(places)
    assert await rig.settled(rig.letters, 0.3) == []


async def test_aborted_events_are_not_answered_and_markers_stall_nothing(rig: Rig) -> None:
    async with started(
        AIOKafkaProducer(bootstrap_servers=rig.bootstrap_servers, transactional_id=rig.group)
    ) as producer:
        for number in range(12):
            await producer.begin_transaction()
            for partition in range(rig.partitions):
                value = b"%d,%s" % (number, b"no" if number % 3 == 1 else b"yes")
                await producer.send_and_wait(rig.input, value, key=b"k%d" % number, partition=partition)
            await (producer.abort_transaction() if number % 3 == 1 else producer.commit_transaction())
    process = await rig.connector()
    results = await rig.results(8 * rig.partitions)
    assert {record.value.split(b",")[1] for record in results} == {b"yes"}
    ends = await rig.ends()

    async def all_committed() -> bool:
        committed = await rig.committed()
        # A transaction's marker stands behind the last delivered event.
        return all(committed.get(partition, 0) >= end - 1 for partition, end in ends.items())

    await until(all_committed, "everything to be committed")

    async def no_lag() -> bool:
        return "connector_lag{" in (await process.get("/metrics"))[1] and await process.metric("connector_lag") == 0

    await until(no_lag, "the lag to be 0")
    assert await rig.settled(rig.letters, 0.2) == []


async def test_bad_events_are_dead_lettered_untouched_without_a_call(rig: Rig) -> None:
    await rig.connector(
        {"endpoint": {"target_variant": {"header": "variant"}}, "batch": {"max_bytes": 1000, "max_events": 8}}
    )
    bad: list[tuple[Event, list[tuple[str, bytes]], str]] = [
        ((b"k", b"1,2\n3,4"), [], "undecodable"),
        ((b"k", b"\xff\xfe"), [], "undecodable"),
        ((b"k", None), [], "empty"),
        ((b"k", b""), [], "empty"),
        ((b"k", b"1," * 600), [], "too_large"),
        ((b"k", b"1,2"), [("variant", b"no such \r\n variant")], "invalid_route"),
        ((None, b"1\n2"), [], "undecodable"),
    ]
    wanted = {}
    for event, headers, reason in bad:
        (place,) = await rig.produce([event], headers=headers)
        wanted[place] = (event, headers, reason)
    await rig.produce([(b"k", b"5,6")], headers=[("variant", b"blue")])
    letters = await rig.dead_letters(len(bad))
    for record in letters:
        (key, value), headers, reason = wanted.pop(source(record))
        assert (record.key, record.value) == (key, value)
        assert list(record.headers[: len(headers)]) == headers
        assert dict(record.headers)["inference-error"] == reason.encode()
    assert wanted == {}
    assert [record.value for record in await rig.results(1)] == [b"5,6"]
    assert sum(call.rows for call in rig.endpoint.calls) == 1


@pytest.mark.parametrize("fmt", ["raw", "json_lines", "json_instances", "json_array"])
async def test_every_body_format_brings_each_prediction_to_its_event(rig: Rig, fmt: str) -> None:
    await rig.connector({"request": {"format": fmt}, "correlation": {"mode": "batch"}})
    events: list[Event] = [(b"k%d" % (number % 5), orjson.dumps({"x": number})) for number in range(60)]
    by_place = dict(zip(await rig.produce(events), events, strict=True))
    results = await rig.results(60)
    for record in results:
        assert orjson.loads(record.value) == orjson.loads(by_place.pop(source(record))[1] or b"")
    assert by_place == {}


async def test_pointer_envelope_event_time_and_constants_do_what_they_say(rig: Rig) -> None:
    await rig.connector(
        {
            "request": {"format": "json_array", "payload": "/features"},
            "result": {"envelope": True, "timestamp": "event"},
            "endpoint": {"custom_attributes": "team=fraud"},
        }
    )
    await rig.produce([(b"k", orjson.dumps({"features": [1, 2.5], "secret": "x"})), (b"k", b'{"other": 1}')])
    (record,) = await rig.results(1)
    value = orjson.loads(record.value)
    assert value["prediction"] == [1, 2.5]
    assert value["inferenceId"] == "k"
    assert value["source"]["topic"] == rig.input
    assert record.timestamp == value["eventTimestamp"]
    assert dict((await rig.dead_letters(1))[0].headers)["inference-error"] == b"undecodable"
    (line,) = captures.read(rig.captures)
    assert line.input == b"[[1,2.5]]"
    assert line.custom_attributes == ("team=fraud",)


async def test_events_without_a_key_go_alone_under_their_coordinates(rig: Rig) -> None:
    await rig.connector()
    places = await rig.produce([(None, b"%d,1" % number) for number in range(20)])
    results = await rig.results(20)
    assert {source(record) for record in results} == set(places)
    for record in results:
        assert dict(record.headers)["inference-id"].decode() == source(record).replace("/", "-")
        assert record.key is None


async def test_a_key_that_is_no_legal_id_is_hashed(rig: Rig) -> None:
    await rig.connector()
    keys = [b"\x00\xff", b"x" * 100, b" blank", random.Random(1).randbytes(40)]
    await rig.produce([(key, b"1,2") for key in keys])
    for record in await rig.results(len(keys)):
        assert dict(record.headers)["inference-id"].decode() == sha256(record.key).hexdigest()
