"""Each repair of aiokafka, and the failure without it.

Those of offsets and positions are in test_position.py, those of what cannot go on by itself in test_wedges.py.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import NoOffsetForPartitionError, ProducerClosed
from aiokafka.protocol.produce import ProduceRequest

from connector.errors import StartupError
from connector.kafka import clients, repairs
from tests.integration.clients import started
from tests.integration.stage import Stage, endless_lease, make_outbox, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka import AIOKafkaProducer


pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        await stage.create()
        yield stage


def test_an_aiokafka_that_the_repairs_were_not_tried_with_is_refused() -> None:
    repairs.check_version()
    with pytest.raises(StartupError, match=r"aiokafka 0\.14\.1 is installed.*tried only with 0\.14\.0"):
        repairs.check_version("0.14.1")


# -- max.poll.interval -------------------------------------------------------------------------------------------------


@asynccontextmanager
async def seldom_polling(stage: Stage, **options: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """A member of the group that must poll once a second."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=stage.servers,
        group_id=stage.group,
        enable_auto_commit=False,
        max_poll_interval_ms=1000,
        heartbeat_interval_ms=100,
        **options,
    )
    try:
        await consumer.start()
        yield consumer
    finally:
        # A stop that meets the heartbeat while that leaves the group for too long a silence ends in its cancellation.
        await repairs.stop_consumer(consumer, 5.0)


@both
@pytest.mark.parametrize("end", ["raised", "cancelled"])
async def test_who_polls_no_more_is_noticed_however_the_last_poll_ended(
    stage: Stage, end: str, protected: bool
) -> None:
    async with seldom_polling(stage, auto_offset_reset="none" if end == "raised" else "earliest") as consumer:
        if protected:
            repairs.keep_poll_detection(consumer)
        consumer.subscribe([stage.topic])
        poll = asyncio.create_task(consumer.getmany(timeout_ms=10_000))
        if end == "raised":
            with pytest.raises(NoOffsetForPartitionError):
                await poll
        else:
            await until(consumer.assignment)
            poll.cancel()
            await asyncio.wait([poll])
        assert await stage.members() == 1
        if protected:
            await until(lambda: group_is_empty(stage))
        else:
            await asyncio.sleep(2)
            assert not await group_is_empty(stage)


async def group_is_empty(stage: Stage) -> bool:
    return await stage.members() == 0


# -- a producer that is given up ---------------------------------------------------------------------------------------


class Silence:
    """Lets a producer's sends go out only when it has ended."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.over = asyncio.Event()
        self.waiting = 0
        self._send = producer.client.send
        producer.client.send = self._late

    async def _late(self, node: int, request: Any, **options: Any) -> Any:
        if isinstance(request, ProduceRequest):
            self.waiting += 1
            await self.over.wait()
        return await self._send(node, request, **options)


@both
async def test_a_producer_that_was_given_up_sends_nothing_more(stage: Stage, protected: bool) -> None:
    producer = clients.producer(stage.settings(), endless_lease(), max_batch_size=100_000)
    await producer.start()
    silence = Silence(producer)
    pending = await producer.send(stage.topic, b"late", partition=0)
    await until(lambda: silence.waiting)
    if protected:
        async with asyncio.timeout(3):
            await repairs.abandon(producer)
        with pytest.raises(ProducerClosed):
            await pending
        silence.over.set()
        # One that is sent afterwards would stand behind the late one.
        await stage.produce(1)
        assert await end_of(stage) == 1
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await producer.stop()
        silence.over.set()
        await until(lambda: ends_at(stage, 1))
        await producer._sender.close()
        await producer.client.close()


async def end_of(stage: Stage) -> int:
    tp = TopicPartition(stage.topic, 0)
    async with started(AIOKafkaConsumer(bootstrap_servers=stage.servers)) as consumer:
        end: int = (await consumer.end_offsets([tp]))[tp]
        return end


async def ends_at(stage: Stage, end: int) -> bool:
    return await end_of(stage) == end


# -- a cancellation that comes at the wrong moment ---------------------------------------------------------------------


@pytest.mark.parametrize("part", ["source", "outbox"])
async def test_whatever_is_waited_for_a_cancellation_ends_it(stage: Stage, part: str) -> None:
    settings = stage.settings(bootstrap_servers="127.0.0.1:1")
    for turns in range(60):
        if part == "source":
            working = stage.work(settings)
            task = working._task
        else:
            task = asyncio.create_task(make_outbox(settings, settings.kafka.output_topic, lambda _: None).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=2)
        assert done, f"a cancellation after {turns} turns of the loop was swallowed"
