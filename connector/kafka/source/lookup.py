"""Lookup: waits until the topics exist that the connector reads and writes, and describes them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from connector.errors import SettingsError
from connector.kafka import clients, topics
from connector.kafka.explanation import explain, is_denial
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from connector.kafka.topic import Topic
    from connector.settings import Settings
    from connector.telemetry.problems import Problems

_RETRY = (0.2, 5.0)


async def find_topics(settings: Settings, problems: Problems) -> dict[str, Topic]:
    """The topics of the settings by name, once all of them exist; meanwhile it says what is missing."""
    kafka = settings.kafka
    servers, wanted = kafka.bootstrap_servers, (kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic)
    wait, longest = _RETRY
    while True:
        try:
            # What proves us to Kafka may be replaced while it does not let us in.
            found = await topics.look_up(clients.common(settings), wanted, kafka.request_timeout)
        except (SettingsError, KafkaError, OSError, TimeoutError) as error:
            if is_denial(error):
                problems.clear(Problem.KAFKA_UNREACHABLE)
                problems.set(Problem.ACCESS_DENIED, servers=servers, error=explain(error))
            else:
                problems.clear(Problem.ACCESS_DENIED)
                problems.set(Problem.KAFKA_UNREACHABLE, servers=servers, error=explain(error))
        else:
            problems.clear(Problem.ACCESS_DENIED)
            problems.clear(Problem.KAFKA_UNREACHABLE)
            missing = [name for name in wanted if name not in found]
            if not missing:
                problems.clear(Problem.TOPIC_MISSING)
                return found
            problems.set(Problem.TOPIC_MISSING, topics=", ".join(missing), servers=servers)
        await asyncio.sleep(wait)
        wait = min(2 * wait, longest)
