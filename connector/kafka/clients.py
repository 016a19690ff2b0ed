"""The options of every Kafka client: what the settings say, and what is not an option."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from connector.kafka import repairs, unreadable
from connector.kafka.ownership import owned
from connector.kafka.security import Renewal, client_options

if TYPE_CHECKING:
    from connector.core.epochs.lease import Lease
    from connector.settings import Settings


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def common(settings: Settings) -> dict[str, Any]:
    """What every client of Kafka is given; raises SettingsError when the security settings cannot work."""
    repairs.create_no_topics()
    repairs.hear_refused_tokens()
    repairs.race_bootstraps()
    kafka = settings.kafka
    return {
        "bootstrap_servers": kafka.bootstrap_servers,
        "client_id": kafka.client_id,
        "request_timeout_ms": _ms(kafka.request_timeout),
        "metadata_max_age_ms": _ms(kafka.metadata_max_age),
        **client_options(kafka.security),
    }


def consumer(settings: Settings) -> AIOKafkaConsumer:
    """A consumer that is not started and subscribes to nothing.

    It never resets a position by itself (`none`): the policy is the source's, logged and counted.
    """
    unreadable.read_on()
    kafka = settings.kafka
    renewal = Renewal(kafka.security)
    consumer = AIOKafkaConsumer(
        **common(settings),
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="none",
        session_timeout_ms=_ms(kafka.session_timeout),
        heartbeat_interval_ms=_ms(kafka.heartbeat),
        rebalance_timeout_ms=_ms(kafka.rebalance_timeout),
        max_poll_interval_ms=_ms(kafka.max_poll_interval),
        fetch_max_bytes=kafka.fetch_max_bytes,
    )
    repairs.return_to_bootstrap(repairs.client(consumer))
    repairs.pace_metadata(repairs.client(consumer))
    repairs.renew_security(repairs.client(consumer), renewal.changed)
    return consumer


def producer(
    settings: Settings, lease: Lease, *, max_batch_size: int, transactional_id: str | None = None
) -> AIOKafkaProducer:
    """An idempotent producer that is not started, and sends nothing while the lease does not hold."""
    kafka = settings.kafka
    renewal = Renewal(kafka.security)
    producer = AIOKafkaProducer(
        **common(settings),
        acks="all",
        enable_idempotence=True,
        compression_type=None if kafka.compression == "none" else kafka.compression,
        max_batch_size=max_batch_size,
        transactional_id=transactional_id,
        transaction_timeout_ms=_ms(kafka.transaction_timeout),
    )
    repairs.follow_sends(producer, partial(owned, lease))
    repairs.keep_batches(producer)
    repairs.return_to_bootstrap(producer.client)
    repairs.pace_metadata(producer.client)
    repairs.renew_security(producer.client, renewal.changed)
    return producer
