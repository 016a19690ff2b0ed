"""OutboxSink: publishes results and dead letters, each through an outbox and a producer of its own.

They are apart because an idempotent producer whose topic takes no writes slows every other topic that it serves.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import structlog

from connector.core.answers.dead_letter import without_value
from connector.kafka import clients
from connector.kafka.sink.outbox import Outbox
from connector.kafka.sink.output_topic import OutputTopic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.core.answers.outgoing import Outgoing
    from connector.core.epochs.lease import Lease
    from connector.kafka.sink.protocol import Upstream
    from connector.kafka.topic import Topic
    from connector.settings import Settings
    from connector.telemetry.metrics import Stopwatch
    from connector.telemetry.problems import Problems


class OutboxSink:
    """Publishes results and dead letters in order, and says when the broker has acknowledged them.

    `upstream` is told of both, each in the order in which they were given; `busy` runs while anything is
    not acknowledged. Nothing is published while the `lease` does not hold.
    """

    def __init__(
        self,
        settings: Settings,
        lease: Lease,
        busy: Stopwatch,
        problems: Problems,
        upstream: Upstream,
    ) -> None:
        kafka, log = settings.kafka, structlog.get_logger("connector.sink")
        make = partial(clients.producer, settings, lease)
        self.results = Outbox(
            OutputTopic(kafka.output_topic, upstream.result_too_large),
            make,
            acknowledged=upstream.published,
            lease=lease,
            busy=busy,
            problems=problems,
            log=log,
        )
        self.dead_letters = Outbox(
            OutputTopic(kafka.dead_letter_topic, without_value),
            make,
            acknowledged=upstream.buried,
            lease=lease,
            busy=busy,
            problems=problems,
            log=log,
        )

    @property
    def pending(self) -> int:
        """How many results and dead letters the broker has not acknowledged."""
        return self.results.pending + self.dead_letters.pending

    def learn(self, topics: Mapping[str, Topic]) -> None:
        """Take the sizes that the topics allow."""
        for outbox in (self.results, self.dead_letters):
            outbox.topic.learn(topics)

    def publish(self, results: list[Outgoing]) -> None:
        """Queue results, in order."""
        self.results.append(results)

    def bury(self, dead_letters: list[Outgoing]) -> None:
        """Queue dead letters, in order."""
        self.dead_letters.append(dead_letters)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.results.run())
            tasks.create_task(self.dead_letters.run())

    async def flushed(self) -> None:
        """Wait until everything is acknowledged."""
        await self.results.flushed()
        await self.dead_letters.flushed()

    def discard(self) -> None:
        """Forget what is queued and not in flight."""
        self.results.discard()
        self.dead_letters.discard()
