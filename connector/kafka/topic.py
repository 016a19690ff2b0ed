"""Topic: what the cluster says of a topic, and what that makes impossible or expensive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from connector.settings.kafka import Kafka

_HEADERS_ROOM = 2048
"""About the bytes that a dead letter's headers add to its event."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the cluster describes it; a topic that was created again has another `id`.

    `max_message_bytes` is its `max.message.bytes`, None when we may not read the topic's configuration.
    """

    name: str
    id: UUID
    partitions: int
    max_message_bytes: int | None = None


def advice(kafka: Kafka, topics: Mapping[str, Topic]) -> Iterator[str]:
    """What the topics of these settings make impossible or expensive, in a sentence each."""
    source, output, letters = (
        topics[name] for name in (kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic)
    )
    if source.max_message_bytes is None:
        yield "the topics' max.message.bytes may not be read with our access: Kafka's default is taken to be theirs"
        return
    if (letters.max_message_bytes or 0) < source.max_message_bytes + _HEADERS_ROOM:
        yield (
            f"topic {letters.name} takes messages of {letters.max_message_bytes} bytes: an event of the largest size that "
            f"{source.name} takes does not fit there with its reason, and is dead-lettered without its value; set "
            f"max.message.bytes of {letters.name} to {source.max_message_bytes + _HEADERS_ROOM} or more"
        )
    if output.partitions < source.partitions:
        yield (
            f"topic {output.name} has {output.partitions} partitions, {source.name} has {source.partitions}: whoever "
            "reads the results can use fewer processes than the connector"
        )
