"""What the connector asks of Kafka about its topics, on a broker that creates every topic that a client asks for."""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import TYPE_CHECKING

import aiokafka.client
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import InvalidTopicError, KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from connector.kafka import repairs, topics
from connector.local.kafka.cluster import LocalKafka
from tests.integration.stage import Stage, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def generous() -> Iterator[LocalKafka]:
    """A broker that creates topics by itself."""
    with LocalKafka(properties={"auto.create.topics.enable": "true"}) as kafka:
        yield kafka


@pytest.fixture
async def stage(generous: LocalKafka) -> AsyncIterator[Stage]:
    async with Stage.open(generous.bootstrap_servers) as stage:
        yield stage


@pytest.fixture
async def client(generous: LocalKafka) -> AsyncIterator[AIOKafkaClient]:
    client = AIOKafkaClient(bootstrap_servers=generous.bootstrap_servers)
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


async def test_topics_are_described_and_missing_ones_left_out(stage: Stage, client: AIOKafkaClient) -> None:
    await stage.create(partitions=3)
    found = await topics.describe(client, [stage.topic, stage.output, "missing"])
    assert {name: (topic.name, topic.partitions) for name, topic in found.items()} == {
        stage.topic: (stage.topic, 3),
        stage.output: (stage.output, 1),
    }
    assert found[stage.topic].id != found[stage.output].id
    assert uuid.UUID(int=0) not in {topic.id for topic in found.values()}
    assert found[stage.topic].max_message_bytes is None


async def test_a_topic_keeps_its_id_until_it_is_created_again(stage: Stage, client: AIOKafkaClient) -> None:
    await stage.create()
    ids: list[uuid.UUID | None] = []
    for _ in range(2):
        ids.append((await topics.describe(client, [stage.topic]))[stage.topic].id)
        await stage.add_partitions(len(ids) + 1)
    await stage.create_again()
    await until(lambda: id_of(client, stage.topic))
    ids.append(await id_of(client, stage.topic))
    assert ids[0] == ids[1] != ids[2]


async def id_of(client: AIOKafkaClient, name: str) -> uuid.UUID | None:
    topic = (await topics.describe(client, [name])).get(name)
    return topic.id if topic else None


async def test_limits_are_those_of_each_topic(stage: Stage, client: AIOKafkaClient) -> None:
    await stage.create()
    await stage.configure(stage.output, {"max.message.bytes": "2000"})
    found = await topics.describe_with_limits(client, [stage.topic, stage.output, "missing"])
    assert {name: topic.max_message_bytes for name, topic in found.items()} == {
        stage.topic: 1_048_588,
        stage.output: 2000,
    }


async def test_a_name_that_is_no_topic_name_is_an_error(client: AIOKafkaClient) -> None:
    with pytest.raises(InvalidTopicError):
        await topics.describe(client, ["no/topic"])


async def test_looking_up_says_what_is_there_and_leaves_no_connection(stage: Stage) -> None:
    await stage.create()
    found = await topics.look_up({"bootstrap_servers": stage.servers}, [stage.topic, "missing"], limit=10)
    assert list(found) == [stage.topic]
    assert found[stage.topic].max_message_bytes == 1_048_588


async def test_looking_up_where_nobody_listens_or_answers_is_an_error() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises((KafkaConnectionError, ConnectionRefusedError)):
            await topics.look_up({"bootstrap_servers": address}, ["any"], limit=10)
        closed.listen()
        with pytest.raises(TimeoutError):
            await topics.look_up({"bootstrap_servers": address}, ["any"], limit=0.3)


async def test_a_source_never_creates_a_topic_that_the_broker_would(stage: Stage) -> None:
    working = stage.work()
    await until(lambda: "does not exist" in (working.problem or ""))
    for _ in range(5):
        assert not {stage.topic, stage.output, stage.letters} & set(await stage.admin.list_topics())
        await asyncio.sleep(0.1)
    await stage.create()
    await stage.produce(1)
    await until(lambda: working.recorder.offsets() == [0])


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
async def test_a_topic_that_is_deleted_at_work_does_not_come_back_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "create_no_topics", lambda: None)
        monkeypatch.setattr(aiokafka.client, "MetadataRequest", MetadataRequest)
    await stage.create()
    working = await stage.worker()
    await stage.admin.delete_topics([stage.topic])
    if protected:
        await until(lambda: "does not exist any more" in (working.problem or ""))
        await until(lambda: not list(working.source.epochs.ledgers.values()))
        assert stage.topic not in await stage.admin.list_topics()
        await stage.create_again()
    await until(lambda: working.count("topics_recreated"))
    assert stage.topic in await stage.admin.list_topics()
    await until(lambda: working.problem is None)
