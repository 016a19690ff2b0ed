"""Where an epoch starts and goes on: offsets that cannot be read, topics created again, retention, first starts.

Each protection of the source is taken away once, to show that the failure that it prevents is real.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import GroupLoadInProgressError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.protocol.commit import OffsetFetchRequest

from connector.core.epochs import offset_map
from connector.core.epochs.ledger import Commit
from connector.core.epochs.position import PositionPolicy
from connector.kafka import clients, repairs, topics
from connector.kafka.source.positions import Positions
from connector.kafka.topic import Topic
from connector.telemetry.log_events import LogEvent
from tests.integration.clients import started
from tests.integration.stage import Gate, Stage, Working, committed_is, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
AFTER_MINUTES = {"metadata_max_age": "5m"}
"""As seldom as aiokafka reads the metadata by itself."""


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        yield stage


def refuse_offsets(monkeypatch: pytest.MonkeyPatch, times: int) -> list[int]:
    """Let the coordinator answer the first OffsetFetch requests as it does while it loads the group."""
    refused: list[int] = []
    send = GroupCoordinator._send_req

    async def send_request(coordinator: GroupCoordinator, request: Any) -> Any:
        response = await send(coordinator, request)
        if isinstance(request, OffsetFetchRequest) and len(refused) < times:
            refused.append(GroupLoadInProgressError.errno)
            response.error_code, response.topics = GroupLoadInProgressError.errno, []
        return response

    monkeypatch.setattr(GroupCoordinator, "_send_req", send_request)
    return refused


async def bare_committed(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Commit | None]:
    """What aiokafka's own method says."""
    offsets = {tp: await consumer.committed(tp) for tp in partitions}
    return {tp: None if offset is None else Commit(offset) for tp, offset in offsets.items()}


def watch_getmany(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Every exception that leaves `getmany`."""
    raised: list[BaseException] = []
    getmany = AIOKafkaConsumer.getmany

    async def watched(consumer: AIOKafkaConsumer, *partitions: TopicPartition, **options: int) -> Any:
        try:
            return await getmany(consumer, *partitions, **options)
        except Exception as error:
            raised.append(error)
            raise

    monkeypatch.setattr(AIOKafkaConsumer, "getmany", watched)
    return raised


@both
async def test_a_refused_read_of_offsets_is_no_missing_commit(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.create()
    await stage.produce(10)
    await stage.commit(7)
    refused = refuse_offsets(monkeypatch, times=2)
    if not protected:
        monkeypatch.setattr(repairs, "committed", bare_committed)
    working = await stage.worker()
    await until(lambda: working.recorder.offsets()[-1:] == [9])
    assert working.recorder.offsets() == (list(range(7, 10)) if protected else list(range(10)))
    assert len(refused) == (2 if protected else 1)


async def test_repairs_raise_where_aiokafka_says_none(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.create()
    await stage.commit(7)
    tp = TopicPartition(stage.topic, 0)
    member = AIOKafkaConsumer(bootstrap_servers=stage.servers, group_id=stage.group, enable_auto_commit=False)
    async with started(member) as consumer:
        consumer.assign([tp])
        consumer.seek(tp, 0)
        refuse_offsets(monkeypatch, times=2)
        assert await consumer.committed(tp) is None
        with pytest.raises(GroupLoadInProgressError):
            await repairs.committed(consumer, [tp])
        assert await repairs.committed(consumer, [tp]) == {tp: Commit(7)}
        other = TopicPartition(stage.topic, 1)
        assert await repairs.committed(consumer, [tp, other]) == {tp: Commit(7), other: None}


@both
async def test_a_topic_created_again_while_paused_is_read_from_its_beginning(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.create()
    await stage.produce(10)
    if not protected:
        monkeypatch.setattr(Positions, "watch", lambda *_: asyncio.sleep(3600))
    working = await stage.worker(stage.settings(**({} if protected else AFTER_MINUTES)))
    await until(lambda: len(working.recorder.events) == 10)
    await working.pause()
    working.recorder.events.clear()
    await stage.create_again()
    await stage.produce(20)
    if protected:
        await until(lambda: working.count("topics_recreated"))
    working.recorder.consuming = True
    await until(lambda: working.recorder.offsets()[-1:] == [19])
    assert working.recorder.offsets() == list(range(0 if protected else 10, 20))
    await until(lambda: committed_is(stage, 20))


@both
async def test_a_topic_created_again_before_an_assignment_is_read_from_its_beginning(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.create()
    await stage.produce(10)
    if not protected:
        describe = topics.describe

        async def without_id(client: Any, names: Iterable[str]) -> dict[str, Topic]:
            found = await describe(client, names)
            return {name: Topic(name, uuid.UUID(int=1), topic.partitions) for name, topic in found.items()}

        monkeypatch.setattr(topics, "describe", without_id)
    working = await stage.worker(stage.settings(**AFTER_MINUTES))
    await until(lambda: len(working.recorder.events) == 10)
    await working.pause()
    working.recorder.events.clear()
    await stage.create_again()
    await stage.produce(20)
    # The broker takes an offset of the earlier topic for the one that has its name.
    await working.consumer.commit({TopicPartition(stage.topic, 0): 10})
    working.recorder.consuming = True
    working.coordinator.request_rejoin()
    await until(lambda: working.recorder.offsets()[-1:] == [19])
    assert working.recorder.offsets() == list(range(0 if protected else 10, 20))


@pytest.mark.parametrize("noticed_by", ["the watch", "the broker's refusal"])
async def test_what_retention_took_is_counted_and_said_and_the_epoch_goes_on(stage: Stage, noticed_by: str) -> None:
    await stage.create()
    await stage.produce(5)
    watched = noticed_by == "the watch"
    working = stage.work(stage.settings(**({} if watched else AFTER_MINUTES)))
    working.recorder.hold = True
    await until(lambda: len(working.recorder.events) == 5)
    await working.pause()
    await stage.produce(15)
    with structlog.testing.capture_logs() as lines:
        await stage.delete_records(before=12)
        if watched:
            await until(lambda: working.count("lost_to_retention"))
        working.recorder.consuming = True
        await until(lambda: working.recorder.offsets()[-1:] == [19])
    assert working.recorder.offsets() == [*range(5), *range(12, 20)]
    assert working.count("lost_to_retention") == 7
    said = [line for line in lines if line["event"] == LogEvent.LOST_TO_RETENTION]
    assert [(line["offset"], line["lost"]) for line in said] == [(5, 7)]
    # What came before the gap is answered like everything else: first it holds the commit, then it is part of it.
    working.recorder.complete(working.recorder.events[1:])
    await until(lambda: committed_is(stage, 0))
    working.recorder.complete(working.recorder.events[:1])
    await until(lambda: committed_is(stage, 20))


@pytest.mark.parametrize("otherwise", [None, "jumps", "raises"], ids=["protected", "jumps", "raises"])
async def test_a_paused_position_that_retention_passes_is_neither_silent_nor_stuck(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, otherwise: str | None
) -> None:
    await stage.create()
    await stage.produce(5)
    raised = watch_getmany(monkeypatch)
    if otherwise is not None:
        # Both ways lead through it: the watch, and the broker's refusal.
        monkeypatch.setattr(Positions, "hold_back", lambda *_: None)
    if otherwise == "jumps":
        monkeypatch.setattr(
            clients,
            "AIOKafkaConsumer",
            lambda **options: AIOKafkaConsumer(**options | {"auto_offset_reset": "earliest"}),
        )
    working = await stage.worker(stage.settings(auto_offset_reset="earliest"))
    await until(lambda: len(working.recorder.events) == 5)
    await working.pause()
    await stage.produce(15)
    with structlog.testing.capture_logs() as lines:
        await stage.delete_records(before=12)
        working.recorder.consuming = True
        if otherwise == "raises":
            await until(lambda: sum(isinstance(error, OffsetOutOfRangeError) for error in raised) >= 3)
            assert working.recorder.offsets() == list(range(5))
        else:
            await until(lambda: working.recorder.offsets() == [*range(5), *range(12, 20)])
    said = [line["lost"] for line in lines if line["event"] == LogEvent.LOST_TO_RETENTION]
    assert said == ([] if otherwise else [7])
    assert working.count("lost_to_retention") == sum(said)


@pytest.mark.parametrize("policy", ["earliest", "none"])
async def test_aiokafka_itself_jumps_in_silence_or_raises(stage: Stage, policy: str) -> None:
    await stage.create()
    await stage.produce(20)
    tp = TopicPartition(stage.topic, 0)
    async with started(AIOKafkaConsumer(bootstrap_servers=stage.servers, auto_offset_reset=policy)) as consumer:
        # Before there is a position: events that were fetched ahead would be given out as if nothing were missing.
        await stage.delete_records(before=12)
        consumer.assign([tp])
        consumer.seek(tp, 5)
        taken = asyncio.create_task(consumer.getmany(timeout_ms=10_000))
        if policy == "earliest":
            assert next(record.offset for record in (await taken)[tp]) == 12
        else:
            with pytest.raises(OffsetOutOfRangeError):
                await taken


async def test_with_policy_fail_a_lost_position_waits_for_a_person(stage: Stage) -> None:
    await stage.create()
    await stage.produce(20)
    await stage.commit(5)
    settings = stage.settings(auto_offset_reset="fail")
    await stage.delete_records(before=12)
    working = stage.work(settings)
    await until(lambda: "has events 12 to 20" in (working.problem or ""))
    assert working.recorder.offsets() == []
    assert await stage.committed() == 5
    await working.consumer.commit({TopicPartition(stage.topic, 0): 15})
    await until(lambda: working.recorder.offsets() == list(range(15, 20)))
    assert working.problem is None


@both
async def test_the_first_start_of_a_group_raises_nothing_from_getmany(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.create()
    await stage.produce(5)
    raised = watch_getmany(monkeypatch)
    gate = Gate(monkeypatch)
    if not protected:
        monkeypatch.setattr(AIOKafkaConsumer, "seek", lambda *_: None)
    working = stage.work()
    await until(lambda: gate.waiting)
    if protected:
        # Time for aiokafka to look for a position of its own.
        await asyncio.sleep(0.5)
        gate.open.set()
        await until(lambda: working.recorder.offsets() == list(range(5)))
        assert raised == []
    else:
        await until(lambda: any(isinstance(error, NoOffsetForPartitionError) for error in raised))


@pytest.mark.parametrize(("policy", "position"), [("earliest", 0), ("latest", 5)])
async def test_the_first_position_of_a_group_is_committed_at_once(stage: Stage, policy: str, position: int) -> None:
    await stage.create()
    await stage.produce(5)
    working = stage.work(stage.settings(auto_offset_reset=policy))
    working.recorder.hold = True
    await until(lambda: committed_is(stage, position))
    await stage.produce(2)
    await until(lambda: working.recorder.offsets() == list(range(position, 7)))


async def test_with_policy_fail_a_group_without_commit_waits_for_one(stage: Stage) -> None:
    await stage.create()
    await stage.produce(5)
    working = stage.work(stage.settings(auto_offset_reset="fail"))
    with structlog.testing.capture_logs() as lines:
        await until(lambda: "auto_offset_reset is fail" in (working.problem or ""))
        # One offset is as good as any; the group has a member, so it is the member's consumer that commits it.
        await working.consumer.commit({TopicPartition(stage.topic, 0): 3})
        await until(lambda: working.recorder.offsets() == [3, 4])
    assert working.problem is None
    assert [line["event"] for line in lines].count(LogEvent.SOURCE_PROBLEM) == 1


@both
async def test_a_partition_that_is_added_starts_at_its_beginning(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    await stage.create()
    if not protected:
        choose = PositionPolicy.first
        monkeypatch.setattr(
            PositionPolicy, "first", lambda self, *args, known_group: choose(self, *args, known_group=False)
        )
    working = await stage.worker(stage.settings(auto_offset_reset="latest"))
    await until(lambda: committed_is(stage, 0))
    gate = Gate(monkeypatch)
    await stage.add_partitions(2)
    await stage.produce(3, partition=1)
    gate.open.set()
    await until(lambda: working.partitions == {0, 1})
    await stage.produce(1, partition=1)
    await until(lambda: working.recorder.offsets(1)[-1:] == [3])
    assert working.recorder.offsets(1) == ([0, 1, 2, 3] if protected else [3])


async def test_missing_topics_are_waited_for_and_said_once(stage: Stage) -> None:
    with structlog.testing.capture_logs() as lines:
        working = stage.work()
        await until(lambda: "does not exist" in (working.problem or ""))
        await asyncio.sleep(1.0)
        assert stage.topic not in await stage.admin.list_topics()
        await stage.create()
        await stage.produce(2)
        await until(lambda: working.recorder.offsets() == [0, 1])
    said = [line["problem"] for line in lines if line["event"] == LogEvent.SOURCE_PROBLEM]
    names = f"{stage.topic}, {stage.output}, {stage.letters}"
    assert said == [f"topic {names} does not exist at {stage.servers}: create it, and work begins"]
    assert working.problem is None


async def test_a_topic_that_is_deleted_at_work_is_said_once_and_waited_for(stage: Stage) -> None:
    await stage.create()
    await stage.produce(2)
    working = await stage.worker()
    await until(lambda: committed_is(stage, 2))
    with structlog.testing.capture_logs() as lines:
        await stage.admin.delete_topics([stage.topic])
        await until(lambda: "does not exist any more" in (working.problem or ""))
        # The assignment that comes of it is empty, and no reason to say that all is well.
        await until(lambda: LogEvent.PARTITIONS_ASSIGNED in [line["event"] for line in lines])
        await until(lambda: (finding := working.source._positions._finding) is None or finding.done())
        assert working.problem is not None
        await stage.create_again()
        await stage.produce(3)
        await until(lambda: working.recorder.offsets()[2:] == [0, 1, 2])
        await until(lambda: working.problem is None)
    said = [line["event"] for line in lines if line["event"] in (LogEvent.SOURCE_PROBLEM, LogEvent.SOURCE_RECOVERED)]
    assert said == [LogEvent.SOURCE_PROBLEM, LogEvent.SOURCE_RECOVERED]


# -- the map of complete events ----------------------------------------------------------------------------------------


async def all_but_the_first_complete(stage: Stage, count: int) -> Working:
    """A worker that holds its first event, has completed the others, and has committed what it can."""
    await stage.create()
    await stage.produce(count)
    working = stage.work(stage.settings(auto_offset_reset="earliest"))
    working.recorder.hold = True
    await until(lambda: len(working.recorder.events) == count)
    working.recorder.complete(working.recorder.events[1:])
    await until(lambda: all(ledger.due is None for ledger in working.source.epochs.ledgers.values()))
    return working


async def test_the_next_owner_is_not_given_what_is_complete_behind_a_slow_event(stage: Stage) -> None:
    first = await all_but_the_first_complete(stage, 50)
    await first.stop()
    assert await stage.committed() == 0
    await stage.produce(3)
    working = stage.work()
    await until(lambda: working.recorder.offsets()[-1:] == [52])
    assert working.recorder.offsets() == [0, 50, 51, 52]


async def test_a_broker_that_takes_less_metadata_gets_the_offsets_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offset_map, "encode", lambda *_: "c1:" + "A" * 5000)
    first = await all_but_the_first_complete(stage, 50)
    assert await stage.committed() == 0
    assert all(ledger.maps_refused for ledger in first.source.epochs.ledgers.values())
    assert first.count("commit_failures") == 0
    await first.stop()
    working = stage.work()
    await until(lambda: working.recorder.offsets()[-1:] == [49])
    assert working.recorder.offsets() == list(range(50))
