"""Topics: what the connector asks of Kafka about its topics before it uses them, without ever creating one."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, ClassVar

import aiokafka.errors as kafka_errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from connector.kafka.topic import Topic

_TOPIC_RESOURCE = 2


class _Uuid:
    """Kafka's UUID type: 16 bytes, most significant first."""

    @classmethod
    def encode(cls, value: uuid.UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> uuid.UUID:
        return uuid.UUID(bytes=data.read(16))


_NO_ID = uuid.UUID(int=0)
_TEXT = CompactString("utf-8")


class _MetadataResponse(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(("node_id", Int32), ("host", _TEXT), ("port", Int32), ("rack", _TEXT), ("tags", TaggedFields)),
        ),
        ("cluster_id", _TEXT),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", _TEXT),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition_index", Int32),
                        ("leader_id", Int32),
                        ("leader_epoch", Int32),
                        ("replica_nodes", CompactArray(Int32)),
                        ("isr_nodes", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _MetadataRequestStruct(RequestStruct):
    """Metadata version 10, the first that names topic ids (KIP-516); aiokafka 0.14 speaks 5 at most."""

    FLEXIBLE_VERSION: ClassVar[bool] = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _MetadataResponse
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", _TEXT), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _MetadataRequest(Request[_MetadataRequestStruct]):
    API_KEY = 3

    def __init__(self, names: Iterable[str]) -> None:
        self._names = list(names)

    def build(self, request_struct_class: type[_MetadataRequestStruct]) -> _MetadataRequestStruct:
        topics: list[Any] = [(_NO_ID, name, {}) for name in self._names]
        return request_struct_class(topics, False, False, False, {})  # noqa: FBT003


async def describe(client: AIOKafkaClient, names: Iterable[str]) -> dict[str, Topic]:
    """The topics of these names that exist; never creates one. Raises KafkaError, also when a topic is denied to us."""
    response = await client.send(client.get_random_node(), _MetadataRequest(names))
    found: dict[str, Topic] = {}
    for error_code, name, topic_id, _, partitions, *_ in response.topics:
        error = kafka_errors.for_code(error_code)
        if error is kafka_errors.NoError:
            found[name] = Topic(name, topic_id, len(partitions))
        elif error is kafka_errors.TopicAuthorizationFailedError:
            raise error(name)
        elif error is not kafka_errors.UnknownTopicOrPartitionError:
            raise error(f"{name}: {error.description}")
    return found


async def describe_with_limits(client: AIOKafkaClient, names: Iterable[str]) -> dict[str, Topic]:
    """`describe`, with the topics' `max.message.bytes` where we may read it."""
    topics = await describe(client, names)
    request = DescribeConfigsRequest([(_TOPIC_RESOURCE, name, ["max.message.bytes"]) for name in topics])
    response = await client.send(client.get_random_node(), request)
    limits: dict[str, int] = {}
    for error_code, _, _, name, entries in response.resources:
        for entry in entries if error_code == 0 else ():
            if entry[0] == "max.message.bytes" and entry[1] is not None:
                limits[name] = int(entry[1])
    return {
        name: Topic(name, topic.id, topic.partitions, limits.get(name, topic.max_message_bytes))
        for name, topic in topics.items()
    }


async def look_up(options: Mapping[str, Any], names: Iterable[str], limit: float) -> dict[str, Topic]:
    """Connect, describe the topics of these names with their limits, and disconnect, within `limit` seconds.

    Raises KafkaError, OSError or TimeoutError when Kafka does not answer.
    """
    client = AIOKafkaClient(**options)
    try:
        async with asyncio.timeout(limit):
            try:
                await client.bootstrap()
            except kafka_errors.KafkaConnectionError as error:
                # The same for a wrong password as for a wrong host; why is behind it.
                raise error.__cause__ or error  # noqa: B904 - `from None` would take its own cause from it
            return await describe_with_limits(client, names)
    finally:
        # Like everywhere here not wait_for: that of Python 3.11 swallows a cancellation that comes at the wrong moment.
        async with asyncio.timeout(limit):
            await client.close()
