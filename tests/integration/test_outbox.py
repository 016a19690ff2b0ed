"""What spoils a producer, and when an outbox must not use one (item 1)."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import NewTopic
from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber

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
        self.producers = 0
        self.outbox = make_outbox(
            settings, topic, lambda sent: self.acknowledged.extend(one.value for one in sent), lease=lease
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


async def test_a_bare_producer_is_spoilt_by_a_refused_batch(stage: Stage) -> None:
    await stage.configure(stage.output, {"max.message.bytes": "2000"})
    async with started(AIOKafkaProducer(bootstrap_servers=stage.servers, enable_idempotence=True)) as producer:
        await producer.send_and_wait(stage.output, b"small", partition=0)
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait(stage.output, b"x" * 5000, partition=0)
        with pytest.raises(OutOfOrderSequenceNumber):
            await producer.send_and_wait(stage.output, b"small", partition=0)


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
