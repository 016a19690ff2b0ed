"""Rebalances: what comes early, what goes out late, and who is still a member (items 4, 5, 6, 14, 16, 18)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import GroupLoadInProgressError, KafkaError

from connector.kafka import repairs
from connector.kafka.source import Source
from tests.integration.stage import Stage, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

pytestmark = pytest.mark.integration


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=2)
        yield stage


# -- 4: events that come before the assignment listener has ended ------------------------------------------------------


async def test_what_comes_before_the_position_is_known_is_read_again_and_delivered_once(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.produce(20)
    place, may_place = Source._place, asyncio.Event()

    async def late(self: Source, waiting: set[TopicPartition]) -> None:
        # aiokafka has fetched by then: the pause is undone to let it.
        for tp in waiting:
            assert self._consumer is not None
            self._consumer.resume(tp)
        await may_place.wait()
        await place(self, waiting)

    monkeypatch.setattr(Source, "_place", late)
    working = stage.work()
    await until(lambda: working.source.joined)
    await asyncio.sleep(0.7)
    assert working.recorder.events == []
    may_place.set()
    await until(lambda: working.recorder.offsets() == list(range(20)))
    await until(lambda: working.partitions == {0, 1})
    assert working.recorder.offsets() == list(range(20))


async def test_aiokafka_itself_gives_out_events_while_the_listener_still_runs(stage: Stage) -> None:
    await stage.produce(20)
    seen: list[int] = []

    class Slow(ConsumerRebalanceListener):
        running = True

        async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
            pass

        async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
            await asyncio.sleep(1.5)
            self.running = False

    listener = Slow()
    consumer = AIOKafkaConsumer(bootstrap_servers=stage.servers, group_id=stage.group, auto_offset_reset="earliest")
    async with consumer:
        consumer.subscribe([stage.topic], listener=listener)
        while listener.running:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                seen += [record.offset for record in records if listener.running]
    assert seen == list(range(20))


async def test_events_of_a_partition_without_ledger_are_sought_back_and_not_dropped(stage: Stage) -> None:
    working = await stage.worker()
    tp = TopicPartition(stage.topic, 0)
    ledger = working.source._ledgers.pop(tp)
    await stage.produce(5)
    await until(lambda: tp in working.consumer.paused())
    assert working.recorder.events == []
    assert await working.consumer.position(tp) == 0
    working.source._ledgers[tp] = ledger
    working.consumer.resume(tp)
    await until(lambda: working.recorder.offsets() == list(range(5)))


# -- 5: a commit that is retried across a rebalance --------------------------------------------------------------------


async def failing_commits(coordinator: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], asyncio.Event]:
    """Refuse commits, as while the group loads, until the event is set; the generation of each one that goes out."""
    sent: list[int] = []
    may_pass = asyncio.Event()
    commit = coordinator._do_commit_offsets

    async def refuse(assignment: Any, offsets: Any) -> None:
        if not may_pass.is_set():
            raise GroupLoadInProgressError
        sent.append(coordinator.generation)
        await commit(assignment, offsets)

    monkeypatch.setattr(coordinator, "_do_commit_offsets", refuse)
    return sent, may_pass


async def test_no_retry_of_a_commit_outlives_the_revoke(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    working = await stage.worker(stage.settings(auto_offset_reset="earliest"))
    await until(lambda: all(ledger.due is None for ledger in working.source.ledgers))
    sent, may_pass = await failing_commits(working.coordinator, monkeypatch)
    await stage.produce(3)
    await until(lambda: working.source._committing is not None and not working.source._committing.done())
    retried = working.source._committing
    assert retried is not None
    generation = repairs.generation(working.consumer)
    # The final commit of the drain is refused as well, and given up with it.
    working.coordinator.request_rejoin()
    await until(lambda: repairs.generation(working.consumer) > generation and working.source.joined)
    assert retried.done()
    may_pass.set()
    await until(lambda: working.partitions == {0, 1})
    # Whatever goes out now belongs to epochs that began after the rebalance, and is due to them.
    assert working.recorder.forgotten == 1
    await until(lambda: working.recorder.offsets() == [0, 1, 2, 0, 1, 2])
    assert all(one > generation for one in sent)


async def test_aiokafka_itself_sends_a_retried_commit_with_the_next_generation(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = AIOKafkaConsumer(
        stage.topic, bootstrap_servers=stage.servers, group_id=stage.group, enable_auto_commit=False
    )
    async with consumer:
        await stage.produce(3)
        sent, may_pass = await failing_commits(consumer._coordinator, monkeypatch)
        generation = repairs.generation(consumer)
        late = asyncio.create_task(consumer.commit({TopicPartition(stage.topic, 0): 3}))
        consumer._coordinator.request_rejoin()
        await until(lambda: repairs.generation(consumer) > generation)
        may_pass.set()
        await asyncio.wait_for(late, 10)
        assert sent == [repairs.generation(consumer)]
        assert await stage.committed() == 3


# -- 6: a member that was kicked out -----------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False])
async def test_a_member_that_was_kicked_out_drains_and_commits_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    working = await stage.worker(stage.settings(commit_interval="1m"))
    await stage.produce(5)
    await until(lambda: working.recorder.offsets() == list(range(5)))
    if not protected:
        monkeypatch.setattr(repairs, "generation", lambda consumer: 1)
    # What a heartbeat does that is answered with "unknown member"; the group is empty by then.
    await working.coordinator._maybe_leave_group()
    await until(lambda: working.recorder.forgotten > 0)
    assert working.recorder.drains == (0 if protected else 1)
    committed = await stage.committed()
    assert committed is None if protected else committed == 5


# -- 14: getmany that raised -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False])
async def test_a_loop_that_dies_after_an_error_is_noticed_by_the_group(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "keep_poll_detection", lambda consumer: None)
    working = await stage.worker()
    consumer, fetcher = working.consumer, working.consumer._fetcher
    fetched_records = fetcher.fetched_records
    raised = 0

    async def failing(*arguments: Any, **options: Any) -> Any:
        nonlocal raised
        if raised:
            return await fetched_records(*arguments, **options)
        raised += 1
        raise KafkaError("injected")

    monkeypatch.setattr(fetcher, "fetched_records", failing)
    await until(lambda: raised == 1 and working.source.problem is None)
    await stage.produce(1)
    await until(lambda: working.recorder.offsets() == [0])
    counts = set()
    started = time.monotonic()
    while time.monotonic() - started < 1:
        counts.add(consumer._subscription._fetch_count)
        await asyncio.sleep(0.01)
    # One too many for ever, and the consumer looks busy although nobody polls.
    assert max(counts) == (1 if protected else 2)


# -- 16: the listener and the session ----------------------------------------------------------------------------------


async def test_heartbeats_begin_although_the_offsets_cannot_be_read(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed, readable = repairs.committed, asyncio.Event()

    async def hanging(*arguments: Any) -> Any:
        await readable.wait()
        return await committed(*arguments)

    monkeypatch.setattr(repairs, "committed", hanging)
    working = stage.work()
    await until(lambda: working.source.joined)
    joined = time.monotonic()
    await until(lambda: working.coordinator._heartbeat_task is not None, limit=4)
    session = working.source._kafka.session_timeout
    assert time.monotonic() - joined < session / 2
    generation = repairs.generation(working.consumer)
    await asyncio.sleep(session + 1)
    assert repairs.generation(working.consumer) == generation, "the group has kicked it out"
    readable.set()
    await stage.produce(3)
    await until(lambda: working.recorder.offsets() == [0, 1, 2])


# -- 18: a joiner that waits for a drain -------------------------------------------------------------------------------


@pytest.mark.parametrize(("drain", "waits_in_peace"), [(1.0, True), (6.0, False)])
async def test_a_joiner_waits_in_peace_for_a_drain_that_is_shorter_than_its_requests(
    stage: Stage, drain: float, waits_in_peace: bool
) -> None:
    first = await stage.worker()
    # A drain of 6 s is what the settings refuse, because a request may take 4 s here.
    first.recorder.draining = lambda: asyncio.sleep(drain)
    second = stage.work()
    dead = 0
    await until(lambda: second.source._consumer is not None and second.consumer._coordinator is not None)
    coordinator_dead = second.coordinator.coordinator_dead

    def count() -> None:
        nonlocal dead
        dead += 1
        coordinator_dead()

    second.coordinator.coordinator_dead = count
    await until(lambda: len(first.partitions) == len(second.partitions) == 1, limit=40)
    assert (dead == 0) is waits_in_peace
