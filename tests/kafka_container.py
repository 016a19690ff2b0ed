"""KafkaContainer: the Apache Kafka of `connector local kafka`, in a container of testcontainers."""

from __future__ import annotations

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from connector.local.kafka.distribution import KAFKA_VERSION


class KafkaContainer:
    """One broker whose `port` is the same inside and outside of the container."""

    def __init__(self, port: int) -> None:
        container = DockerContainer(f"apache/kafka:{KAFKA_VERSION}")
        self._host = container.get_container_host_ip()
        self._port = port
        # The image takes its server.properties from the environment, and no defaults once one of these is set:
        # https://hub.docker.com/r/apache/kafka
        settings = {
            "NODE_ID": "0",
            "PROCESS_ROLES": "broker,controller",
            "CONTROLLER_QUORUM_VOTERS": "0@localhost:9093",
            "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
            "LISTENERS": f"CLIENT://:{port},CONTROLLER://:9093",
            "ADVERTISED_LISTENERS": f"CLIENT://{self._host}:{port}",
            "LISTENER_SECURITY_PROTOCOL_MAP": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "INTER_BROKER_LISTENER_NAME": "CLIENT",
            "AUTO_CREATE_TOPICS_ENABLE": "false",
            "OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
            "TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
            "TRANSACTION_STATE_LOG_MIN_ISR": "1",
            "GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
            "GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
        }
        for name, value in settings.items():
            container = container.with_env(f"KAFKA_{name}", value)
        ready = LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(90)
        self._container = container.with_bind_ports(port, port).waiting_for(ready)

    @property
    def address(self) -> str:
        """Where it serves, host:port."""
        return f"{self._host}:{self._port}"

    def start(self) -> None:
        """Fetch the image when it is not there, and start; returns when Kafka serves."""
        self._container.start()

    def stop(self) -> None:
        """Remove the container."""
        self._container.stop()
