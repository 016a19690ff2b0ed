"""What the connector does when its surroundings are wrong: it stays up, says why, and goes on by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from connector.local.endpoint.faults import Fault
from tests.integration.rig import Rig, source, until
from tests.ports import free_port

if TYPE_CHECKING:
    from tests.integration.rig import Event

pytestmark = pytest.mark.integration


def events(count: int) -> list[Event]:
    return [(b"k%d" % (number % 7), b"%d,secret-payload" % number) for number in range(count)]


async def test_a_missing_topic_is_said_once_and_work_begins_when_it_is_created(bare_rig: Rig) -> None:
    rig = bare_rig
    await rig.make_topics(rig.input, rig.letters)
    process = await rig.connector(wait=False)
    reason = await process.unready("does not exist")
    assert rig.output in reason
    assert rig.input not in reason
    await rig.produce(events(10))
    await rig.make_topics(rig.output)
    await process.ready()
    await rig.results(10)
    assert process.lines().count(f"{rig.output} does not exist") <= 2  # the problem, and that it is not ready for it
    assert "Traceback" not in process.lines()


@pytest.mark.parametrize(
    ("kind", "reason"), [("endpoint_not_found", "misconfigured"), ("access_denied", "access_denied")]
)
async def test_wrong_settings_or_access_halt_until_they_are_mended(rig: Rig, kind: str, reason: str) -> None:
    rig.endpoint.faults = [Fault(kind)]
    process = await rig.connector()
    places = await rig.produce(events(50))
    await process.unready(reason)
    assert (await process.get("/health/live"))[0] == 200
    calls = len(rig.endpoint.calls)
    assert calls <= 16, "a halt calls on"
    rig.endpoint.faults = []
    await process.ready()
    results = await rig.results(50)
    assert {source(record) for record in results} == set(places)
    assert await rig.settled(rig.letters, 0.2) == []
    assert process.lines().count('"event": "halted"') == 1
    assert "Traceback" not in process.lines()


async def test_a_model_that_rejects_everything_trips_the_guard_and_goes_on_when_it_is_mended(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("model_error", status=400)]
    process = await rig.connector({"dead_letter": {"window": 20}, "correlation": {"mode": "batch"}})
    places = await rig.produce(events(400))
    reason = await process.unready("guarded")
    assert "rejected_by_model" in reason
    assert len(await rig.settled(rig.letters, 1.5)) <= 20 + 3
    rig.endpoint.faults = []
    await process.ready(limit=40)
    letters = await rig.settled(rig.letters)
    results = await rig.results(400 - len(letters))
    assert {source(record) for record in results} | {source(record) for record in letters} == set(places)
    assert len(results) > 200


async def test_kafka_that_cannot_be_reached_is_said_in_a_sentence(rig: Rig) -> None:
    process = await rig.connector({"kafka": {"bootstrap_servers": f"127.0.0.1:{free_port()}"}}, wait=False)
    await process.unready("cannot be reached")
    assert process.running
    assert "Traceback" not in process.lines()
    await process.stop()


async def test_ready_means_joined_and_a_standby_without_partitions_is_ready(bare_rig: Rig) -> None:
    rig = bare_rig
    rig.partitions = 1
    await rig.make_topics()
    first = await rig.connector()
    second = await rig.connector()
    assert {await first.metric("connector_partitions"), await second.metric("connector_partitions")} == {0.0, 1.0}
    assert first.lines().count('"not_ready"') == second.lines().count('"not_ready"') == 1, "a rebalance flapped it"


async def test_metrics_agree_with_what_happened_and_carry_no_payload(rig: Rig) -> None:
    rig.endpoint.faults = [Fault("throttle", calls=frozenset({1}))]
    process = await rig.connector({"log": {"level": "DEBUG"}})
    await rig.produce([*events(100), (b"k", b"bad\nsecret-payload")])
    await rig.results(100)
    await rig.dead_letters(1)

    async def committed() -> bool:
        return await process.metric("connector_buffered_events") == 0

    await until(committed, "the buffer to be empty")
    assert await process.metric("connector_events_total") == 101
    assert await process.metric("connector_results_total") == 100
    assert await process.metric("connector_dead_letters_total", reason="undecodable") == 1
    assert await process.metric("connector_calls_total", outcome="retry", reason="throttled") == 1
    assert await process.metric("connector_calls_total") == len(rig.endpoint.calls)
    assert await process.metric("connector_batch_events_count") == len(rig.endpoint.calls)
    assert await process.metric("connector_end_to_end_seconds_count") == 100
    text = (await process.get("/metrics"))[1]
    families = {family.name for family in text_string_to_metric_families(text)}
    assert families >= {
        f"connector_{name}"
        for name in (
            *("events", "results", "dead_letters", "calls", "batch_events", "call_seconds", "queue_seconds", "lag"),
            *("end_to_end_seconds", "calls_in_flight", "buffered_events", "buffered_bytes", "limit", "loop_seconds"),
            *("commit_age_seconds", "oldest_unfinished_seconds"),
        )
    }
    assert "secret-payload" not in text + process.lines()
