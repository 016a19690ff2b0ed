"""Wedges: what a client does that cannot go on, and does not say so (items 10, 11, 12, 13)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError, KafkaError

from connector.kafka import clients, repairs
from connector.kafka.source import membership, source
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from connector.telemetry.log_events import LogEvent
from tests.integration.clients import started
from tests.integration.stage import Stage, endless_lease, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker that falls silent."""
    with LocalKafka() as kafka:
        yield kafka


@pytest.fixture
async def stage(kafka: LocalKafka) -> AsyncIterator[Stage]:
    async with Stage.open(kafka.bootstrap_servers) as stage:
        await stage.create()
        yield stage


# -- 10: a consumer that is stopped while the network is away ----------------------------------------------------------


async def stop_as_aiokafka_does(consumer: AIOKafkaConsumer, limit: float) -> None:
    with contextlib.suppress(KafkaError, TimeoutError):
        async with asyncio.timeout(limit):
            await consumer.stop()


@both
@pytest.mark.parametrize("state", ["idle", "committing", "connecting", "joining"])
async def test_a_consumer_that_is_stopped_in_silence_ends_in_time_and_sends_nothing_later(
    kafka: LocalKafka, stage: Stage, state: str, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "stop_consumer", stop_as_aiokafka_does)
    requests = requests_of(stage.group, monkeypatch)
    working = await stage.worker(stage.settings(client_id=stage.group, request_timeout="8s", session_timeout="10s"))
    await stage.produce(1)
    await until(lambda: committed(stage, 1))
    working.recorder.hold = True
    await stage.produce(1)
    await until(lambda: len(working.recorder.events) == 2)
    consumer, coordinator = working.consumer, working.coordinator
    client, fetcher = repairs.client(consumer), consumer._fetcher
    kafka.pause()
    try:
        if state == "connecting":
            for (_, group), connection in client._conns.items():
                if group is ConnectionGroup.COORDINATION:
                    connection.close()
        if state in ("committing", "connecting"):
            working.recorder.complete(working.recorder.events[1:])
            await until(lambda: (task := working.source._commits._committing) is not None and not task.done())
        if state == "joining":
            coordinator.request_rejoin()
            await until(lambda: coordinator._performed_join_prepare)
        started = time.monotonic()
        await working.source.stop(0.5, 0.5)
        took = time.monotonic() - started
        at_work = repairs._tasks_of(consumer, client, coordinator, fetcher)
        requests.clear()
    finally:
        kafka.resume()
    if protected:
        await asyncio.sleep(1)
        assert took < 3
        assert not at_work
        assert requests == []
        assert client._conns == {}
    else:
        await until(lambda: {"FetchRequest", "MetadataRequest"} <= set(requests))
        if state == "connecting":
            await until(lambda: committed(stage, 2))
        assert at_work
        await repairs.abandon_consumer(consumer)


async def test_a_consumer_that_is_given_up_while_it_starts_does_not_start(kafka: LocalKafka, stage: Stage) -> None:
    consumer = clients.consumer(stage.settings())

    async def start() -> None:
        await consumer.start()

    kafka.pause()
    try:
        starting = asyncio.create_task(start())
        await asyncio.sleep(0.1)
        await repairs.stop_consumer(consumer, 0.1)
    finally:
        kafka.resume()
    with pytest.raises(KafkaConnectionError, match="given up"):
        await starting
    assert not repairs._tasks_of(consumer, repairs.client(consumer))


def requests_of(client_id: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The requests that a client sends from now on."""
    sent: list[str] = []
    send = AIOKafkaConnection.send

    def listening(connection: Any, request: Any, **options: Any) -> Any:
        if connection._client_id == client_id:
            sent.append(type(request).__name__)
        return send(connection, request, **options)

    monkeypatch.setattr(AIOKafkaConnection, "send", listening)
    return sent


async def committed(stage: Stage, offset: int) -> bool:
    return await stage.committed() == offset


# -- 11: a heartbeat that ends -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[LocalKafka]:
    """A broker that lets a user do only what was allowed."""
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
    with LocalKafka(security=security) as kafka:
        yield kafka


@both
async def test_a_member_that_was_denied_its_group_for_a_moment_works_on(
    guarded: LocalKafka, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.settings.kafka._HEARTBEAT", 0.2)
    if not protected:
        monkeypatch.setattr(repairs, "heartbeat_died", lambda consumer: False)
        monkeypatch.setattr(source, "_FAILURES_BEFORE_REPLACEMENT", 1000)
    async with Stage.open(guarded.admin_servers) as stage:
        await stage.create()
        for topic in (stage.topic, stage.output, stage.letters):
            await asyncio.to_thread(guarded.allow, "service", "topic", topic, "READ", "WRITE")
        access = ("service", "group", stage.group, "READ")
        await asyncio.to_thread(guarded.allow, *access)
        login = {
            "protocol": "SASL_PLAINTEXT",
            "mechanism": "PLAIN",
            "username": "service",
            "password": "service-secret",
        }
        limits = {"session_timeout": "3s", "request_timeout": "2s"}
        settings = stage.settings(bootstrap_servers=guarded.bootstrap_servers, security=login, **limits)
        working = await stage.worker(settings)
        consumer, heartbeat = working.consumer, working.coordinator._heartbeat_task
        await until(lambda: committed(stage, 0))  # a commit that is due would join again
        await asyncio.to_thread(guarded.disallow, *access)
        await until(heartbeat.done)
        await asyncio.to_thread(guarded.allow, *access)
        if protected:
            await until(lambda: working.source.epochs.consumer not in (None, consumer) and working.partitions == {0})
            await stage.produce(3)
            await until(lambda: working.recorder.offsets() == [0, 1, 2])
            await until(lambda: committed(stage, 3))
            assert working.problem is None
        else:
            await until(lambda: group_is_empty(stage))
            assert working.partitions == {0}
            assert working.consumer is consumer


async def group_is_empty(stage: Stage) -> bool:
    return await stage.members() == 0


# -- 12: two processes of one name -------------------------------------------------------------------------------------


@both
async def test_who_shares_an_instance_id_says_so_and_lets_the_other_work_a_while(
    bootstrap_servers: str, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connector.settings.kafka._HEARTBEAT", 0.3)
    monkeypatch.setattr(repairs, "_AFTER_A_RIVAL", 2.0)
    monkeypatch.setattr(membership, "_RIVAL", 8.0)
    if not protected:
        monkeypatch.setattr(repairs, "on_rival", lambda consumer, met: None)
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        settings = stage.settings(group_instance_id="pod-0")
        with structlog.testing.capture_logs() as log:
            first, second = await stage.worker(settings), stage.work(settings)
            if protected:
                await until(lambda: all("group_instance_id pod-0" in (w.problem or "") for w in (first, second)))
            else:
                await until(lambda: lost_in(log) > 8)
            await asyncio.sleep(4)
            lost = lost_in(log)
            said = [line for line in log if line["event"] == LogEvent.SOURCE_PROBLEM]
            if not protected:
                assert not any("group_instance_id" in line["problem"] for line in said)
                return
            assert lost < 6
            assert len(said) == 2, said
            assert first.problem is not None
            assert second.problem is not None
            await second.stop()
            await until(lambda: first.problem is None)
            recovered = [line for line in log if line["event"] == LogEvent.SOURCE_RECOVERED]
            assert len(recovered) == 1
        await stage.produce(3)
        await until(lambda: first.recorder.offsets() == [0, 1, 2])
        await until(lambda: committed(stage, 3))


def lost_in(log: list[Any]) -> int:
    return sum(line["event"] == LogEvent.PARTITIONS_LOST for line in log)


@pytest.mark.parametrize("end", ["leaves", "dies"])
async def test_who_takes_over_an_instance_id_from_one_that_ended_has_no_rival(stage: Stage, end: str) -> None:
    settings = stage.settings(group_instance_id="pod-0")
    first = await stage.worker(settings)
    if end == "leaves":
        await first.stop()
    else:
        first._task.cancel()
        await repairs.abandon_consumer(first.consumer)
    with structlog.testing.capture_logs() as log:
        second = await stage.worker(settings)
        assert second.partitions == {0}
        await stage.produce(1)
        await until(lambda: committed(stage, 1))
        assert second.problem is None
    assert [line for line in log if line["event"] == LogEvent.SOURCE_PROBLEM] == []


# -- 13: brokers that were stopped in order ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalKafka]:
    """Two brokers, of which the first can be away."""
    with LocalKafka(2) as kafka:
        yield kafka


@dataclass
class Effort:
    """What the clients do with a while: metadata updates of each, lines of aiokafka's loggers, and CPU, per second."""

    updates: dict[str, float]
    lines: float
    cpu: float


class Meter(logging.Handler):
    """Counts the updates of clients' metadata, and the lines that it handles."""

    def __init__(self, **clients: Any) -> None:
        super().__init__()
        self._updates = dict.fromkeys(clients, 0)
        self._lines = 0
        for name, client in clients.items():
            self._count(name, client)

    def _count(self, name: str, client: Any) -> None:
        # Every update begins with the list of whom to ask.
        brokers = client.cluster.brokers

        def counted() -> Any:
            self._updates[name] += 1
            return brokers()

        client.cluster.brokers = counted

    def emit(self, record: logging.LogRecord) -> None:
        self._lines += 1

    async def measure(self, seconds: float) -> Effort:
        """What the clients do in the next `seconds`."""
        updates, lines, cpu, start = dict(self._updates), self._lines, time.process_time(), time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - start
        return Effort(
            {name: (count - updates[name]) / took for name, count in self._updates.items()},
            (self._lines - lines) / took,
            (time.process_time() - cpu) / took,
        )


@both
async def test_brokers_that_are_away_are_waited_for_calmly(
    pair: LocalKafka, protected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "pace_metadata", lambda client: None)
    async with Stage.open(pair.bootstrap_servers) as stage:
        await stage.create(partitions=2)
        working = await stage.worker()
        producer = clients.producer(stage.settings(), endless_lease(), max_batch_size=100_000)
        await stage.stack.enter_async_context(started(producer))
        consumer = repairs.client(working.consumer)
        partitions = [TopicPartition(stage.topic, number) for number in (0, 1)]
        leaderless = next(tp for tp in partitions if consumer.cluster.leader_for_partition(tp) == 0)
        await producer.send_and_wait(stage.topic, b"0", partition=leaderless.partition)
        aiokafka = logging.getLogger("aiokafka")
        monkeypatch.setattr(aiokafka, "propagate", False)
        meter = Meter(consumer=consumer, producer=producer.client)
        aiokafka.addHandler(meter)
        try:
            await asyncio.to_thread(pair.stop, 0)
            pending = await producer.send(stage.topic, b"1", partition=leaderless.partition)
            known = (consumer.cluster, producer.client.cluster)
            await until(lambda: all(cluster.leader_for_partition(leaderless) == -1 for cluster in known))
            one_away = await meter.measure(2)
            await asyncio.to_thread(pair.stop, 1)
            await asyncio.sleep(0.5)  # the first failures, of requests that were under way
            both_away = await meter.measure(3)
        finally:
            for broker in (1, 0):
                await asyncio.to_thread(pair.restart, broker)
            aiokafka.removeHandler(meter)
        await asyncio.wait_for(pending, 10)
        if protected:
            assert max(one_away.updates.values()) < 20
            assert max(both_away.updates.values()) < 20
            assert both_away.lines < 100
            assert both_away.cpu < 0.1
        else:
            assert one_away.updates["producer"] > 200
            assert min(both_away.updates.values()) > 200
            assert both_away.lines > 1000
            assert both_away.cpu > 0.2
