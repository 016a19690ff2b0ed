"""Problems of the source: each is over when what it says is over, and not when something else is well again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from aiokafka.errors import KafkaError

from connector.telemetry.log_events import LogEvent
from tests.integration.stage import Stage, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.stage import Working

pytestmark = pytest.mark.integration


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        yield stage


async def fail_one_turn(working: Working, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one `getmany` raise, and wait until another one has not."""
    fetcher, turns = working.consumer._fetcher, 0
    fetched_records = fetcher.fetched_records

    async def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise KafkaError("injected")
        return await fetched_records(*arguments, **options)

    monkeypatch.setattr(fetcher, "fetched_records", failing)
    await until(lambda: turns > 2)


async def said_meanwhile(working: Working, seconds: float) -> set[str | None]:
    """Everything that a person is told in these seconds."""
    said, loop = set(), asyncio.get_running_loop()
    end = loop.time() + seconds
    while loop.time() < end:
        said.add(working.problem)
        await asyncio.sleep(0.01)
    return said


async def test_a_poll_that_goes_well_again_does_not_find_a_position(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.create()
    working = stage.work(stage.settings(auto_offset_reset="fail"))
    await until(lambda: "auto_offset_reset is fail" in (working.problem or ""))
    await fail_one_turn(working, monkeypatch)
    said = await said_meanwhile(working, 2)
    assert all("auto_offset_reset is fail" in (problem or "") for problem in said), said


async def test_a_poll_that_goes_well_again_does_not_create_a_topic(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.create()
    working = await stage.worker(stage.settings(metadata_max_age="3s"))
    await stage.admin.delete_topics([stage.topic])
    await until(lambda: "does not exist any more" in (working.problem or ""))
    await fail_one_turn(working, monkeypatch)
    said = await said_meanwhile(working, 2)
    assert all("does not exist any more" in (problem or "") for problem in said), said


async def test_every_partition_without_a_position_is_said_once(stage: Stage) -> None:
    await stage.create(partitions=3)
    with structlog.testing.capture_logs() as lines:
        working = stage.work(stage.settings(auto_offset_reset="fail"))
        await until(lambda: "auto_offset_reset is fail" in (working.problem or ""))
        await asyncio.sleep(2)  # several looks
    said = sorted(line["problem"] for line in lines if line["event"] == LogEvent.SOURCE_PROBLEM)
    assert len(said) == 3, said
    assert all(f"{stage.topic}/{number}" in sentence for number, sentence in enumerate(said))
