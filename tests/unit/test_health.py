"""Health: the reason why the process is not ready, the most telling one first."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import structlog

from connector.web.health import Health
from tests.unit.virtual_time import in_virtual_time


def parts(**changes: Any) -> SimpleNamespace:
    """A connector that is ready, with the source's, sink's and pipeline's state as told."""
    state = {"source": None, "pipeline": None, "sink": None, "joined": True, "cut_off": False, **changes}
    return SimpleNamespace(
        source=SimpleNamespace(problem=state["source"], joined=state["joined"], cut_off=state["cut_off"]),
        pipeline=SimpleNamespace(problem=state["pipeline"]),
        sink=SimpleNamespace(problem=state["sink"]),
    )


def health_of(connector: SimpleNamespace) -> Health:
    return Health(cast("Any", connector))


def test_a_process_is_ready_when_nothing_is_wrong_with_partitions_or_without() -> None:
    assert health_of(parts()).look() is None


def test_the_reason_is_the_first_of_these_that_holds() -> None:
    connector = parts(source="no Kafka", pipeline="halted", sink="no topic", joined=False, cut_off=True)
    health = health_of(connector)
    health.stopping = True
    source = connector.source
    connector.source = None
    reasons = [health.look()]
    health.stopping = False
    reasons.append(health.look())
    connector.source = source
    for part in (connector.source, connector.pipeline, connector.sink):
        reasons.append(health.look())
        part.problem = None
    reasons.append(health.look())
    source.joined = True
    reasons.append(health.look())
    source.cut_off = False
    assert reasons == [
        "stopping",
        "starting",
        "no Kafka",
        "halted",
        "no topic",
        "waiting for the first assignment of partitions",
        "cut off from Kafka: the group coordinator does not answer",
    ]
    assert health.look() is None


def test_without_a_sink_it_is_still_starting() -> None:
    connector = parts()
    connector.sink = None
    assert health_of(connector).look() == "starting"
    assert health_of(connector).reason == "starting", "before anybody looked"


@in_virtual_time
async def test_a_change_of_the_reason_is_logged_once_and_kept() -> None:
    connector = parts()
    health = health_of(connector)
    with structlog.testing.capture_logs() as log:
        watch = asyncio.create_task(health.watch())
        try:
            for problem in (None, None, "halted, a", "halted, a", "halted, b", None):
                connector.pipeline.problem = problem
                await asyncio.sleep(1)
                assert health.reason == problem
        finally:
            watch.cancel()
    assert [(line["event"], line.get("problem")) for line in log] == [
        ("ready", None),
        ("not_ready", "halted, a"),
        ("not_ready", "halted, b"),
        ("ready", None),
    ]
