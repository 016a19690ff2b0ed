"""Kafka: the broker that tests share, one for a run."""

from __future__ import annotations

import gc
import os
import warnings
from typing import TYPE_CHECKING

import pytest

from connector.local.kafka.cluster import LocalKafka
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kafka_container import KafkaContainer


@pytest.fixture(scope="session")
def bootstrap_servers() -> Iterator[str]:
    """The address of a Kafka: the one of KAFKA_BOOTSTRAP_SERVERS, one in a container, or one on this machine."""
    if address := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield address
    elif container := start_container():
        yield container.address
        container.stop()
    else:
        with LocalKafka(progress=print) as kafka:
            yield kafka.bootstrap_servers


def start_container() -> KafkaContainer | None:
    """Apache Kafka in a container, or None when no engine answers: the `docker` command alone says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the clients, about themselves
        try:
            import docker  # type: ignore[import-untyped]

            client = docker.from_env(timeout=3)
            try:
                client.ping()
            finally:
                client.close()
            from tests.kafka_container import KafkaContainer

            container = KafkaContainer(port=free_port())
            container.start()
            return container
        except Exception as error:
            print(f"no Kafka from Docker: {error}")
        gc.collect()  # a client that finds no engine leaves its socket open
        return None
