"""Health: the reason why the process is not ready, the gravest first."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import structlog

from connector.core.calls.limiter import FixedLimiter
from connector.settings import parse
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problem, Problems
from connector.worker.health import Health
from tests.unit.virtual_time import in_virtual_time


def parts() -> SimpleNamespace:
    """A connector that is ready, and has nothing to do."""
    return SimpleNamespace(
        settings=parse({}),
        problems=Problems(),
        source=SimpleNamespace(owes=False, state=lambda: {"lag": {0: 1}}),
        pipeline=SimpleNamespace(progress=0, state=lambda: {"ready": 1}),
        sink=SimpleNamespace(pending=0),
        limiter=FixedLimiter(1, 1),
        metrics=Metrics(lambda: 0.0),
    )


def health_of(connector: SimpleNamespace) -> Health:
    return Health(cast("Any", connector))


def test_a_process_is_ready_while_nothing_is_said() -> None:
    connector = parts()
    health = health_of(connector)
    assert health.look() is None
    assert connector.metrics.registry.get_sample_value("connector_ready") == 1
    connector.problems.set(Problem.NOT_JOINED)
    assert health.look() == "not_joined: waiting for the first assignment of partitions"
    assert connector.metrics.registry.get_sample_value("connector_ready") == 0


def test_the_reason_is_the_gravest_problem_and_the_others_follow() -> None:
    connector = parts()
    health, problems = health_of(connector), connector.problems
    problems.set(Problem.CUT_OFF)
    for partition in range(2):
        problems.set(Problem.NO_COMMIT, f"in/{partition}", group="fraud", partition=f"in/{partition}")
    lines = (health.look() or "").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["no_commit", "no_commit", "cut_off"]
    assert "for in/0, and " in lines[0]
    assert lines[0].endswith(" (2 more)")
    assert "for in/1, and " in lines[1]
    assert lines[2] == "cut_off: cut off from Kafka: the group coordinator does not answer"
    problems.set(Problem.STOPPING)
    assert (health.look() or "").splitlines() == [
        "stopping: the process drains, and ends (3 more)",
        lines[0].removesuffix(" (2 more)"),
        *lines[1:],
    ]


@in_virtual_time
async def test_another_reason_is_logged_once_and_less_grave_problems_are_no_other_reason() -> None:
    connector = parts()
    problems = connector.problems
    problems.set(Problem.STARTING)
    health = health_of(connector)
    with structlog.testing.capture_logs() as log:
        watch = asyncio.create_task(health.watch())
        try:
            await asyncio.sleep(1)
            problems.clear(Problem.STARTING)
            for message in ("a", "a", "b"):
                problems.set(Problem.HALTED, reason="access_denied", message=message)
                await asyncio.sleep(1)
            problems.set(Problem.NOT_JOINED)
            await asyncio.sleep(1)
            problems.clear(Problem.HALTED)
            problems.clear(Problem.NOT_JOINED)
            await asyncio.sleep(1)
        finally:
            watch.cancel()
    assert [(line["event"], line.get("reason"), line.get("problem")) for line in log] == [
        ("not_ready", "halted", "access_denied: a"),
        ("not_ready", "halted", "access_denied: b"),
        ("ready", None, None),
    ]


@in_virtual_time
async def test_work_that_does_not_move_is_logged_with_the_state_of_every_part_counted_and_not_ready() -> None:
    connector = parts()
    connector.source.owes = True
    health = health_of(connector)
    with structlog.testing.capture_logs() as log:
        watch = asyncio.create_task(health.watch())
        try:
            await asyncio.sleep(120)  # a call may take 75 s, and the watchdog waits for 60 s more
            reasons = [health.look()]
            await asyncio.sleep(20)
            reasons.append(health.look())
            connector.pipeline.progress += 1
            await asyncio.sleep(1)
            reasons.append(health.look())
        finally:
            watch.cancel()
    first, found, last = reasons
    assert first is last is None
    assert "stuck: nothing has moved for 135s" in (found or "")
    (line,) = [line for line in log if line["event"] == "stuck"]
    assert line["source"] == {"lag": {0: 1}}
    assert line["pipeline"] == {"ready": 1}
    assert connector.metrics.registry.get_sample_value("connector_stuck_total") == 1


@in_virtual_time
async def test_what_is_held_up_by_something_known_is_not_stuck() -> None:
    for change in ("a problem", "slot", "nothing to do"):
        connector = parts()
        connector.source.owes = change != "nothing to do"
        if change == "a problem":
            connector.problems.set(Problem.CUT_OFF)
        if change == "slot":
            connector.limiter.start(1, 0.0)
        health = health_of(connector)
        watch = asyncio.create_task(health.watch())
        await asyncio.sleep(1000)
        watch.cancel()
        assert "stuck" not in (health.look() or ""), change
