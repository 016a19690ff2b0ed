"""A producer that a failed send has spoilt is replaced, and everything is sent again in order (item 1)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OutOfOrderSequenceNumber

from connector.core.answers.outgoing import Outgoing
from connector.core.epochs.lease import Lease
from connector.kafka import repairs
from connector.local.kafka.cluster import LocalKafka
from connector.telemetry.problems import Problem
from tests.integration.clients import started
from tests.integration.stage import Stage, make_outbox, said, until
from tests.unit.factories import make_event, make_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from connector.settings import Settings

pytestmark = pytest.mark.integration


class Published:
    """An outbox at work on a topic, and what it said of each result."""

    def __init__(self, settings: Settings, topic: str, lease: Lease | None = None) -> None:
        self.acknowledged: list[bytes | None] = []
        self.refused: list[bytes | None] = []
        self.producers = 0
        self.outbox = make_outbox(
            settings, topic, lambda sent: self.acknowledged.extend(one.value for one in sent), self._refuse, lease
        )
        make = self.outbox._make

        def counted(*, max_batch_size: int) -> AIOKafkaProducer:
            self.producers += 1
            return make(max_batch_size=max_batch_size)

        self.outbox._make = counted
        self._ledger = make_ledger()

    @property
    def problem(self) -> str | None:
        """Why nothing can be published, in a sentence; None while all is well."""
        return said(self.outbox._problems, Problem.PUBLISH_FAILS)

    def _refuse(self, outgoing: Outgoing, size: int) -> None:
        assert size > self.outbox.topic.max_message_bytes
        self.refused.append(outgoing.value)

    def add(self, *values: bytes) -> None:
        """Append results of one key, so that they share a partition and an order."""
        now = time.time_ns() // 1_000_000
        self.outbox.append(Outgoing(make_event(self._ledger, 0), b"key", value, [], now) for value in values)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Published]:
        """Publish meanwhile."""
        task = asyncio.create_task(self.outbox.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])


async def values_of(servers: str, topic: str, count: int) -> list[bytes]:
    """The values on a topic, at least so many, in their order."""
    got: list[bytes] = []
    async with started(AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")) as consumer:
        async with asyncio.timeout(20):
            while len(got) < count:
                for records in (await consumer.getmany(timeout_ms=100)).values():
                    got += [record.value for record in records]
    return got


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        yield stage


async def lower_the_limit(stage: Stage) -> None:
    """Let the output topic take messages of 2,000 bytes only, after everybody has read what it takes."""
    await stage.configure(stage.output, {"max.message.bytes": "2000"})


async def test_a_batch_that_the_broker_refuses_costs_no_neighbour_and_no_order(stage: Stage) -> None:
    async with Published(stage.settings(), stage.output).running() as published:
        published.add(b"0")
        await until(lambda: published.acknowledged == [b"0"])
        await lower_the_limit(stage)
        values = [b"%d" % number for number in range(1, 41)]
        values[20] = b"x" * 5000
        published.add(*values)
        wanted = [b"0", *values[:20], *values[21:]]
        await until(lambda: published.outbox.pending == 0)
        assert published.acknowledged == wanted
        assert published.refused == [values[20]]
        assert published.producers > 1
        assert await values_of(stage.servers, stage.output, len(wanted)) == wanted


async def test_a_bare_producer_is_spoilt_by_a_refused_batch(stage: Stage) -> None:
    await lower_the_limit(stage)
    async with started(AIOKafkaProducer(bootstrap_servers=stage.servers, enable_idempotence=True)) as producer:
        await producer.send_and_wait(stage.output, b"small", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(stage.output, b"x" * 5000, partition=0)
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.send_and_wait(stage.output, b"small", partition=0)


async def test_order_holds_when_sends_fail_at_random(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    sends = 0
    send_batch = AIOKafkaProducer.send_batch

    async def failing(self: AIOKafkaProducer, *arguments: object, **options: object) -> asyncio.Future[object]:
        nonlocal sends
        sends += 1
        if sends % 3 == 0:
            broken: asyncio.Future[object] = asyncio.get_running_loop().create_future()
            broken.set_exception(KafkaError("injected"))
            return broken
        future: asyncio.Future[object] = await send_batch(self, *arguments, **options)
        return future

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", failing)
    async with Published(stage.settings(), stage.output).running() as published:
        for number in range(60):
            published.add(b"%d" % number)
            await asyncio.sleep(0.01)
        await until(lambda: published.outbox.pending == 0)
    wanted = [b"%d" % number for number in range(60)]
    assert published.acknowledged == wanted
    assert await values_of(stage.servers, stage.output, 60) == wanted
    assert published.producers > 2


async def test_what_is_discarded_is_not_sent(stage: Stage) -> None:
    published = Published(stage.settings(), stage.output)
    published.add(b"gone")
    published.outbox.discard()
    assert published.outbox.pending == 0
    await asyncio.wait_for(published.outbox.flushed(), 1)
    async with published.running():
        published.add(b"sent")
        await until(lambda: published.acknowledged == [b"sent"])


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """Two brokers, the first of which a test may stop."""
    with LocalKafka(2, data=tmp_path_factory.mktemp("mortal") / "data") as kafka:
        yield kafka


@pytest.mark.timeout(120)
@pytest.mark.parametrize("protected", [True, False])
async def test_a_partition_without_leader_for_longer_than_a_request_spoils_no_producer(
    mortal: LocalKafka, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "keep_batches", lambda producer: None)
    async with Stage.open(mortal.bootstrap_servers) as stage:
        await stage.admin.create_topics([NewTopic(stage.output, -1, -1, replica_assignments={0: [0]})])
        settings = stage.settings(request_timeout="3s", revoke_drain="500ms")
        async with Published(settings, stage.output).running() as published:
            published.add(b"0")
            await until(lambda: published.acknowledged == [b"0"])
            await asyncio.to_thread(mortal.stop, 0)
            published.add(b"1", b"2")
            if protected:
                await asyncio.sleep(8)
            else:
                # The batch expires, and with it the producer is spoilt; the outbox mends that too, at a price.
                await until(lambda: published.problem is not None)
            assert published.producers == 1
            await asyncio.to_thread(mortal.restart, 0)
            await until(lambda: published.outbox.pending == 0, limit=30)
            assert published.acknowledged == [b"0", b"1", b"2"]
            assert await values_of(stage.servers, stage.output, 3) == [b"0", b"1", b"2"]
            assert (published.producers == 1) is protected


# -- the lease ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protected", [True, False])
async def test_nothing_is_published_by_a_process_that_may_not_own_its_partitions(
    bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(Lease, "holds", lambda lease, now: True)
    lease = Lease(1000.0)
    lease.renew(time.monotonic())
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        async with Published(stage.settings(), stage.output, lease).running() as published:
            published.add(b"0")
            await until(lambda: published.acknowledged == [b"0"])
            lease.end()
            published.add(b"1", b"2")
            if not protected:
                await until(lambda: published.acknowledged == [b"0", b"1", b"2"])
                return
            await until(lambda: published.outbox._in_flight)
            # The group gave our partitions away: what waits for its request is withdrawn with all the rest.
            published.outbox.discard()
            assert published.outbox.pending == 0
            lease.renew(time.monotonic())
            published.add(b"3")
            await until(lambda: published.acknowledged == [b"0", b"3"])
            assert await values_of(stage.servers, stage.output, 2) == [b"0", b"3"]
            assert published.problem is None


async def test_what_was_held_back_is_published_when_the_group_takes_us_for_a_member_again(
    bootstrap_servers: str,
) -> None:
    lease = Lease(1000.0)
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        async with Published(stage.settings(), stage.output, lease).running() as published:
            published.add(b"0", b"1")
            await until(lambda: published.outbox._in_flight)
            assert published.acknowledged == []
            lease.renew(time.monotonic())
            await until(lambda: published.acknowledged == [b"0", b"1"])
