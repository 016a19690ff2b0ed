"""Health: the reason why the process is not ready, the most telling one first."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import structlog

from connector.core.calls.limiter import FixedLimiter
from connector.settings import parse
from connector.telemetry.metrics import Metrics
from connector.worker.health import Health
from tests.unit.virtual_time import in_virtual_time


def parts(**changes: Any) -> SimpleNamespace:
    """A connector that is ready, with the source's, sink's and pipeline's state as told."""
    state = {"source": None, "pipeline": None, "sink": None, "joined": True, "cut_off": False, **changes}
    return SimpleNamespace(
        settings=parse({}),
        stopping=False,
        source=SimpleNamespace(
            problem=state["source"],
            joined=state["joined"],
            cut_off=state["cut_off"],
            epochs=SimpleNamespace(owe=False),
            state=lambda: {"lag": {0: 1}},
        ),
        pipeline=SimpleNamespace(problem=state["pipeline"], progress=0, state=lambda: {"ready": 1}),
        sink=SimpleNamespace(problem=state["sink"], pending=0),
        limiter=FixedLimiter(1, 1),
        metrics=Metrics(lambda: 0.0),
    )


def health_of(connector: SimpleNamespace) -> Health:
    return Health(cast("Any", connector))


def test_a_process_is_ready_when_nothing_is_wrong_with_partitions_or_without() -> None:
    assert health_of(parts()).look() is None


def test_the_reason_is_the_first_of_these_that_holds() -> None:
    connector = parts(source="no Kafka", pipeline="halted", sink="no topic", joined=False, cut_off=True)
    health = health_of(connector)
    connector.stopping = True
    source = connector.source
    connector.source = None
    reasons = [health.look()]
    connector.stopping = False
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


@in_virtual_time
async def test_work_that_does_not_move_is_logged_with_the_state_of_every_part_counted_and_not_ready() -> None:
    connector = parts()
    connector.source.epochs.owe = True
    health = health_of(connector)
    with structlog.testing.capture_logs() as log:
        watch = asyncio.create_task(health.watch())
        try:
            await asyncio.sleep(120)  # a call may take 75 s, and the watchdog waits for 60 s more
            reasons = [health.reason]
            await asyncio.sleep(20)
            reasons.append(health.reason)
            connector.pipeline.progress += 1
            await asyncio.sleep(1)
            reasons.append(health.reason)
        finally:
            watch.cancel()
    first, found, last = reasons
    assert first is last is None
    assert "nothing has moved for 135s" in (found or "")
    (line,) = [line for line in log if line["event"] == "stuck"]
    assert line["source"] == {"lag": {0: 1}}
    assert line["pipeline"] == {"ready": 1}
    assert connector.metrics.registry.get_sample_value("connector_stuck_total") == 1


@in_virtual_time
async def test_what_is_held_up_by_something_known_is_not_stuck() -> None:
    for change in ("pipeline", "source", "sink", "slot", "nothing to do"):
        connector = parts(**{change: "away"} if change in ("pipeline", "source", "sink") else {})
        connector.source.epochs.owe = change != "nothing to do"
        if change == "slot":
            connector.limiter.start(1, 0.0)
        health = health_of(connector)
        watch = asyncio.create_task(health.watch())
        await asyncio.sleep(1000)
        watch.cancel()
        assert "stuck" not in (health.reason or ""), change
