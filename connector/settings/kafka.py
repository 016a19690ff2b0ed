"""Kafka: the brokers, the consumer group, the topics, and the time limits towards them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from connector.settings.section import Required, Section, Text
from connector.settings.security import Security
from connector.settings.units import Duration, KafkaDuration, Size, write_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
_SERVER = re.compile(rf"{_HOST}(?::([0-9]{{1,5}}))?")
_WRITTEN = rf"\s*{_HOST}:[0-9]{{1,5}}\s*"
_WRITTEN_SERVERS = {"type": "string", "pattern": f"^{_WRITTEN}(,{_WRITTEN})*$"}
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")

_HEARTBEAT = 3.0


def _joined(given: object) -> object:
    """A list of addresses as the text that the environment would hold."""
    if not isinstance(given, list):
        return given
    if not all(isinstance(server, str) for server in given):
        raise ValueError("must be HOST:PORT, or a list of such texts")
    return ",".join(given)


def _servers(written: str) -> str:
    servers = [server.strip() for server in written.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        if match is not None and match[1] is None:
            raise ValueError(f"{server} has no port; write {server}:9092 if the broker listens there")
        if match is None or not 0 < int(match[1]) < 65536:
            raise ValueError(f"must be HOST:PORT, or several with commas between, and {server!r} is not")
    return ",".join(servers)


def _topic(name: str) -> str:
    if not _TOPIC.fullmatch(name) or name in (".", ".."):
        raise ValueError(f"{name!r} is no topic name: 1 to 249 letters, digits, dots, underscores and hyphens")
    return name


Topic = Annotated[str, AfterValidator(_topic)]
"""The name of a topic."""


Servers = Annotated[
    Text,
    BeforeValidator(_joined),
    AfterValidator(_servers),
    Required("broker-1:9092,broker-2:9092"),
    WithJsonSchema(
        {
            "anyOf": [
                _WRITTEN_SERVERS,
                {
                    "type": "array",
                    "items": {"anyOf": [_WRITTEN_SERVERS, {"$ref": "#/$defs/reference"}]},
                    "minItems": 1,
                },
            ]
        }
    ),
]
"""Addresses of brokers, with commas between."""


class Kafka(Section):
    """The brokers, the consumer group, the topics, and the time limits towards them."""

    bootstrap_servers: Servers = Field(
        default="", description="The brokers to ask first, as HOST:PORT with commas between, or as a list."
    )
    group_id: Text = Field(
        default="inference-connector",
        description="The consumer group; processes with the same group share the partitions of the input topic.",
    )
    group_instance_id: Text | None = Field(
        default=None,
        description="The stable name of this process for static membership: ${HOSTNAME} in a StatefulSet, "
        "and null in a Deployment, whose names change.",
    )
    input_topic: Topic = Field(default="inference-requests", description="The topic that events are read from.")
    output_topic: Topic = Field(default="inference-results", description="The topic that results are written to.")
    dead_letter_topic: Topic = Field(
        default="inference-requests.dlq", description="The topic for events that cannot be answered."
    )
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        default="at_least_once",
        description="What is promised for each event: at_least_once may repeat a result, and loses none; exactly_once "
        "repeats none either for consumers that read committed. Stop every process of the group to change it.",
    )
    ordering: Literal["key", "partition", "none"] = Field(
        default="key",
        description="Which events are answered in their order: those of one key, those of one partition, or none.",
    )
    auto_offset_reset: Literal["earliest", "latest", "fail"] = Field(
        default="earliest",
        description="Where to start on a partition that the group has no offset for; fail stays up and is not ready.",
    )
    client_id: Text = Field(default="connector", description="The name of this client in the brokers' logs and quotas.")
    session_timeout: KafkaDuration = Field(
        default=45.0, description="How long the brokers wait for a heartbeat before they give the partitions away."
    )
    rebalance_timeout: KafkaDuration = Field(
        default=60.0, description="How long a rebalance waits for every member; above revoke_drain."
    )
    revoke_drain: Duration = Field(
        default=10.0,
        description="How long calls in flight may finish when partitions are taken away; the whole group waits, "
        "so keep it short, and below request_timeout.",
    )
    request_timeout: KafkaDuration = Field(
        default=15.0, description="How long a request to a broker may take before its connection counts as dead."
    )
    max_poll_interval: KafkaDuration = Field(
        default=300.0, description="How long the connector may go without fetching before it leaves the group."
    )
    metadata_max_age: KafkaDuration = Field(
        default=15.0,
        description="How often the topics' metadata is read again, to notice new or re-created partitions.",
    )
    commit_interval: KafkaDuration = Field(
        default=0.5, description="How often offsets are committed; a crash repeats at most what came since."
    )
    transaction_interval: KafkaDuration = Field(
        default=0.1,
        description="How old the answers of a partition get before they are committed in a transaction (exactly_once); "
        "with many partitions it grows, so that the transactions of a second stay bounded.",
    )
    transaction_timeout: KafkaDuration = Field(
        default=60.0,
        description="How long a transaction may stay open before the brokers abort it (exactly_once); until then it hides "
        "what others publish from whoever reads committed.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        default="none", description="How results and dead letters are compressed."
    )
    fetch_max_bytes: Annotated[Size, Field(lt=2**31)] = Field(
        default=50 * 2**20, description="The most bytes that one fetch brings."
    )
    security: Security = Field(
        default=Security(), description="How the connector proves itself to Kafka, and Kafka to the connector."
    )

    @property
    def heartbeat(self) -> float:
        """Seconds between two heartbeats: at least three fit into a session."""
        return min(_HEARTBEAT, self.session_timeout / 3)

    def broken(self) -> Iterator[str]:
        """Say which time limits cannot hold together, and which topics are the same."""
        yield from self._drain()
        if self.request_timeout >= self.session_timeout:
            yield (
                f"request_timeout: must be below kafka.session_timeout ({write_duration(self.session_timeout)}), or "
                "the group gives the partitions away while one broken connection is waited for"
            )
        least = 2 * self.request_timeout + self.revoke_drain
        if self.delivery == "exactly_once" and self.transaction_timeout < least:
            yield (
                f"transaction_timeout: must be at least {write_duration(least)}, twice kafka.request_timeout plus "
                "kafka.revoke_drain, or the brokers abort transactions that are still being worked on"
            )
        topics = ("input_topic", "output_topic", "dead_letter_topic")
        for first, second in ((0, 1), (0, 2), (1, 2)):
            if getattr(self, topics[first]) == getattr(self, topics[second]):
                yield f"{topics[second]}: must differ from kafka.{topics[first]}; give each its own topic"

    def _drain(self) -> Iterator[str]:
        drain = write_duration(self.revoke_drain)
        if self.revoke_drain + self.heartbeat >= self.request_timeout:
            yield (
                f"revoke_drain: {drain} and a heartbeat ({write_duration(self.heartbeat)}), which notices a rebalance, "
                f"must take less than kafka.request_timeout ({write_duration(self.request_timeout)}), or the members that "
                "wait for the drain take the coordinator for dead"
            )
        if self.revoke_drain >= self.rebalance_timeout:
            yield (
                f"revoke_drain: {drain} must be below kafka.rebalance_timeout ({write_duration(self.rebalance_timeout)}"
                "), or the partitions have two owners before the drain ends"
            )
        if self.revoke_drain >= self.max_poll_interval:
            yield (
                f"max_poll_interval: must be above kafka.revoke_drain ({drain}), or a drain counts as a process "
                "that hangs"
            )
