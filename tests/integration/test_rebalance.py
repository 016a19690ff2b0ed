"""Rebalances: what comes early, what goes out late, and who is still a member (items 4, 5, 6, 14, 16, 18).

Each protection of the source is taken away once, to show that the failure that it prevents is real.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import GroupLoadInProgressError, KafkaError

from connector.kafka import repairs
from connector.kafka.source.epochs import Epochs
from connector.kafka.source.source import KafkaSource
from connector.telemetry.log_events import LogEvent
from tests.integration.clients import started
from tests.integration.stage import Gate, Stage, committed_is, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create(partitions=2)
        yield stage


# -- 4: events that come before the assignment listener has ended ------------------------------------------------------


@pytest.mark.parametrize(
    ("paused", "positioning"),
    [(True, True), (False, True), (False, False)],
    ids=["protected", "protected by the ledger alone", "unprotected"],
)
async def test_nothing_is_delivered_before_the_position_is_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, paused: bool, positioning: bool
) -> None:
    await stage.produce(20)
    await stage.commit(10)
    gate, begin = Gate(monkeypatch), Epochs.begin

    def begin_epochs(self: Epochs, partitions: Iterable[TopicPartition]) -> None:
        partitions = list(partitions)
        begin(self, partitions)
        for tp in partitions:
            if not paused:
                self.resume(tp)
            if not positioning:
                self.ledgers[tp].place(0, None)

    monkeypatch.setattr(Epochs, "begin", begin_epochs)
    working = stage.work()
    await until(lambda: working.joined)
    if not positioning:
        # From the placeholder position: the group stands at 10.
        await until(lambda: working.recorder.offsets() == list(range(20)))
        return
    if paused:
        await asyncio.sleep(0.7)
    else:
        # All of them have been fetched, and discarded.
        await until(lambda: repairs.position(working.consumer, TopicPartition(stage.topic, 0)) == 20)
    assert working.recorder.events == []
    gate.open.set()
    await until(lambda: working.recorder.offsets() == list(range(10, 20)))
    await until(lambda: working.partitions == {0, 1})
    assert working.recorder.offsets() == list(range(10, 20))


async def test_aiokafka_itself_gives_out_events_while_the_listener_still_runs(stage: Stage) -> None:
    await stage.produce(20)
    seen: list[int] = []

    class Slow(ConsumerRebalanceListener):
        running = True

        async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
            pass

        async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
            try:
                await until(lambda: len(seen) == 20)
            finally:
                self.running = False

    listener = Slow()
    member = AIOKafkaConsumer(bootstrap_servers=stage.servers, group_id=stage.group, auto_offset_reset="earliest")
    async with started(member) as consumer:
        consumer.subscribe([stage.topic], listener=listener)
        while listener.running:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                seen += [record.offset for record in records if listener.running]
    assert seen == list(range(20))


@both
async def test_events_of_a_partition_without_ledger_are_sought_back_and_not_dropped(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        deliver = KafkaSource._deliver

        def dropping(self: KafkaSource, consumer: AIOKafkaConsumer, fetched: Mapping[TopicPartition, Any]) -> None:
            deliver(self, consumer, {tp: records for tp, records in fetched.items() if tp in self.epochs.ledgers})

        monkeypatch.setattr(KafkaSource, "_deliver", dropping)
    working = await stage.worker(stage.settings(auto_offset_reset="earliest"))
    tp = TopicPartition(stage.topic, 0)
    ledger = working.source.epochs.ledgers.pop(tp)
    await stage.produce(5)
    if protected:
        await until(lambda: tp in working.consumer.paused())
        assert await working.consumer.position(tp) == 0
    else:
        await until(lambda: repairs.position(working.consumer, tp) == 5)
    assert working.recorder.events == []
    working.source.epochs.ledgers[tp] = ledger
    working.consumer.resume(tp)
    await stage.produce(5)
    await until(lambda: working.recorder.offsets()[-1:] == [9])
    assert working.recorder.offsets() == list(range(0 if protected else 5, 10))
    await until(lambda: committed_is(stage, 10))


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


@pytest.mark.parametrize("refused", [True, False])
async def test_a_stop_says_how_many_events_it_leaves_uncommitted(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, *, refused: bool
) -> None:
    working = await stage.worker(stage.settings(auto_offset_reset="earliest"))
    await stage.produce(3)
    await until(lambda: committed_is(stage, 3))
    _, may_pass = await failing_commits(working.coordinator, monkeypatch)
    await stage.produce(4)
    await stage.produce(2, 1)
    await until(lambda: len(working.recorder.events) == 9)
    if not refused:
        may_pass.set()
    with structlog.testing.capture_logs() as log:
        await working.stop()
    left = [line["events"] for line in log if line["event"] == LogEvent.LEFT_UNCOMMITTED]
    assert left == ([6] if refused else [])
    assert await stage.committed() == (3 if refused else 7)


@both
async def test_a_late_commit_never_moves_a_revoked_partition(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    # A commit is given up after a request's time, which must not end before the second member has committed.
    patient = stage.settings(auto_offset_reset="earliest", session_timeout="40s", request_timeout="30s")
    if not protected:
        end = KafkaSource._end_epochs

        async def end_epochs(self: KafkaSource, drain: float, *, lost: bool = False) -> None:
            self._commits._committing = None
            await end(self, drain, lost=lost)

        monkeypatch.setattr(KafkaSource, "_end_epochs", end_epochs)
    first = await stage.worker(patient)
    await until(lambda: all(ledger.due is None for ledger in first.source.epochs.ledgers.values()))
    sent, may_pass = await failing_commits(first.coordinator, monkeypatch)
    # Complete at once, so that the commit is about both partitions, whichever will move.
    first.recorder.hold = True
    for partition in (0, 1):
        await stage.produce(5, partition)
    await until(lambda: len(first.recorder.events) == 10)
    first.recorder.hold = False
    first.recorder.complete(first.recorder.events)
    await until(lambda: (task := first.source._commits._committing) is not None and not task.done())
    late = first.source._commits._committing
    assert late is not None
    generation = repairs.generation(first.consumer)
    second = stage.work(patient)
    # The final commit of the drain is refused as well, and given up with it.
    await until(lambda: len(first.partitions) == len(second.partitions) == 1, limit=30)
    (moved,) = second.partitions
    await stage.produce(5, moved)
    await until(lambda: second.recorder.offsets(moved) == list(range(10)))
    await until(lambda: committed_is(stage, 10, moved))
    assert late.done() is protected
    may_pass.set()
    # Whatever goes out belongs to the generation of the moment; only a late one says anything about what has moved.
    await until(lambda: committed_is(stage, 5, 1 - moved))
    await until(lambda: late.done())
    assert sent
    assert all(one > generation for one in sent)
    assert await stage.committed(moved) == (10 if protected else 5)


async def test_aiokafka_itself_sends_a_retried_commit_with_the_next_generation(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = AIOKafkaConsumer(
        stage.topic, bootstrap_servers=stage.servers, group_id=stage.group, enable_auto_commit=False
    )
    async with started(member) as consumer:
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


@both
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


@both
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
    await until(lambda: raised == 1 and working.problem is None)
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


@both
async def test_offsets_that_cannot_be_read_for_long_cost_no_membership(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    gate, assigned_listener = Gate(monkeypatch), KafkaSource.on_partitions_assigned

    async def waiting_for_positions(self: KafkaSource, assigned: Iterable[TopicPartition]) -> None:
        await assigned_listener(self, assigned)
        if self._positions._finding is not None:
            await asyncio.wait([self._positions._finding])

    if not protected:
        monkeypatch.setattr(KafkaSource, "on_partitions_assigned", waiting_for_positions)
    with structlog.testing.capture_logs() as lines:
        working = stage.work(stage.settings(auto_offset_reset="earliest"))
        await until(lambda: working.joined)
        generation = repairs.generation(working.consumer)
        session = working.source._kafka.session_timeout
        assert await stage.members() == 1
        if protected:
            await asyncio.sleep(session + 2)
            assert await stage.members() == 1
        else:
            await until(lambda: has_members(stage, 0), limit=session + 10)
        gate.open.set()
        await stage.produce(3)
        await until(lambda: working.recorder.offsets()[-1:] == [2])
        if not protected:
            # What it asks the group next is answered with "unknown member".
            await until(lambda: LogEvent.PARTITIONS_LOST in [line["event"] for line in lines])
    lost = [line for line in lines if line["event"] in (LogEvent.PARTITIONS_LOST, LogEvent.PARTITIONS_REVOKED)]
    assert (lost == []) is protected
    assert (repairs.generation(working.consumer) == generation) is protected


async def has_members(stage: Stage, count: int) -> bool:
    return await stage.members() == count


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
    await until(lambda: second.source.epochs.consumer is not None and second.consumer._coordinator is not None)
    coordinator_dead = second.coordinator.coordinator_dead

    def count() -> None:
        nonlocal dead
        dead += 1
        coordinator_dead()

    second.coordinator.coordinator_dead = count
    await until(lambda: len(first.partitions) == len(second.partitions) == 1, limit=40)
    assert (dead == 0) is waits_in_peace
