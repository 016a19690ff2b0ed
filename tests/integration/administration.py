"""Administration: changes of topics that are over when every broker knows of them.

The controller says yes before the brokers have heard of it, so that a client may be told the old state a moment later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka.admin import NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

if TYPE_CHECKING:
    from aiokafka.admin import AIOKafkaAdminClient

_TOPIC_RESOURCE = 2


async def create_topics(
    admin: AIOKafkaAdminClient,
    partitions: Mapping[str, int],
    *,
    replication: int = 1,
    config: Mapping[str, str] | None = None,
) -> None:
    """Create topics with so many partitions each."""
    response = await admin.create_topics(
        [NewTopic(name, count, replication, topic_configs=dict(config or {})) for name, count in partitions.items()]
    )
    assert all(code == 0 for _, code, *_ in response.topic_errors), response
    await _heard(admin, partial(_has_partitions, admin, partitions))


async def add_partitions(admin: AIOKafkaAdminClient, topic: str, total: int) -> None:
    """Let a topic have `total` partitions."""
    await admin.create_partitions({topic: NewPartitions(total)})
    await _heard(admin, partial(_has_partitions, admin, {topic: total}))


async def configure(admin: AIOKafkaAdminClient, topic: str, config: Mapping[str, str]) -> None:
    """Set a topic's own settings; others of its own are taken back."""
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dict(config))])
    await _heard(admin, partial(_has_settings, admin, topic, config))


async def _heard(admin: AIOKafkaAdminClient, knows: Callable[[int], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        for broker in admin._client.cluster.brokers():
            while not await knows(broker.nodeId):
                await asyncio.sleep(0.02)


async def _has_partitions(admin: AIOKafkaAdminClient, partitions: Mapping[str, int], node: int) -> bool:
    request = MetadataRequest(list(partitions), allow_auto_topic_creation=False)
    response = await admin._client.send(node, request)
    return all(
        code == 0 and len(found) >= partitions[name] and all(error == 0 for error, *_ in found)
        for code, name, _, found in response.topics
    )


async def _has_settings(admin: AIOKafkaAdminClient, topic: str, config: Mapping[str, str], node: int) -> bool:
    request = DescribeConfigsRequest([(_TOPIC_RESOURCE, topic, list(config))])
    response: Any = await admin._client.send(node, request)
    ((code, _, _, _, entries),) = response.resources
    return code == 0 and {name: value for name, value, *_ in entries} == dict(config)
