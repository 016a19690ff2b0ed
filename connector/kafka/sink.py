"""Sink: publishes results and dead letters, each through an outbox and a producer of its own.

They are apart because an idempotent producer whose topic takes no writes slows every other topic that it serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import structlog

from connector.dead_letter import without_value
from connector.kafka import clients
from connector.kafka.outbox import Outbox

if TYPE_CHECKING:
    from connector.kafka.topics import Topic
    from connector.metrics import Stopwatch
    from connector.outgoing import Outgoing
    from connector.settings import Settings


class Sink:
    """Publishes results and dead letters in order, and says when the broker has acknowledged them.

    `published` is called with results, `buried` with dead letters, each in the order in which they were given;
    `result_too_large` with a result that its topic can never take, and its size in bytes; `busy` runs while anything is
    not acknowledged.
    """

    def __init__(
        self,
        settings: Settings,
        busy: Stopwatch,
        *,
        published: Callable[[list[Outgoing]], None],
        buried: Callable[[list[Outgoing]], None],
        result_too_large: Callable[[Outgoing, int], None],
    ) -> None:
        log = structlog.get_logger("connector.sink")
        make = partial(clients.producer, settings)
        self.results = Outbox(
            settings.kafka.output_topic, make, acknowledged=published, too_large=result_too_large, busy=busy, log=log
        )
        self.dead_letters = Outbox(
            settings.kafka.dead_letter_topic, make, acknowledged=buried, too_large=without_value, busy=busy, log=log
        )

    @property
    def pending(self) -> int:
        """How many results and dead letters the broker has not acknowledged."""
        return self.results.pending + self.dead_letters.pending

    @property
    def problem(self) -> str | None:
        """Why nothing can be published at present, in a sentence; None while all is well."""
        return self.results.problem or self.dead_letters.problem

    def learn(self, topics: dict[str, Topic]) -> None:
        """Take the sizes that the topics allow."""
        for outbox in (self.results, self.dead_letters):
            limit = topics[outbox.topic].max_message_bytes
            if limit is not None:
                outbox.max_message_bytes = limit

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
