"""Health: whether the process is alive, and whether it is ready, in a sentence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem
from connector.worker import descriptors
from connector.worker.descriptors import Descriptors
from connector.worker.supervised import Supervised
from connector.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from connector.worker.connector import Connector

_TURN = 0.25
"""Seconds between two looks at the loop and at the problems."""
_COUNT = 2.0
"""Seconds between two counts of the descriptors."""
_STUCK = 60.0
"""Seconds without any move, on top of what a call, a backoff or a linger may take, that count as stuck."""


class Health(Supervised):
    """Whether the event loop turns, and why the process is not ready; a service that only reads the Connector's."""

    abstract = False

    def __init__(self, connector: Connector, **options: Any) -> None:
        self._connector = connector
        self._problems = connector.problems
        self._log = structlog.get_logger("connector.health")
        settings = connector.settings
        endpoint = settings.endpoint
        patience = max(endpoint.connect_timeout + endpoint.read_timeout, settings.retry.max, settings.batch.linger)
        self._watchdog = Watchdog(_STUCK + patience)
        self._told = self._problems.gravest
        self._descriptors = Descriptors()
        connector.metrics.open_descriptors.reads(descriptors.count)
        connector.metrics.descriptor_limit.reads(descriptors.limit)
        connector.metrics.ready.reads(lambda: float(self.look() is None))
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to look."""
        self.supervise(self.watch())
        self.supervise(self.watch_descriptors())

    async def on_stop(self) -> None:
        """Look no more."""
        await self.end_tasks(_TURN)

    def look(self) -> str | None:
        """Why the process is not ready at this moment; None when it is.

        The gravest problem and how many others there are, which follow on lines of their own.
        """
        sentences = [f"{held.problem}: {held.sentence}" for held in self._problems.held]
        if len(sentences) > 1:
            sentences[0] += f" ({len(sentences) - 1} more)"
        return "\n".join(sentences) or None

    def tell(self) -> None:
        """Log what every part is doing."""
        connector = self._connector
        for part, state in (
            ("source", connector.source.state()),
            ("pipeline", connector.pipeline.state()),
            ("sink", {"pending": connector.sink.pending}),
            ("problems", {str(held.problem): held.sentence for held in self._problems.held}),
        ):
            self._log.info(LogEvent.STATE, part=part, state=state)

    def _look_for_the_stuck(self, now: float) -> None:
        """Look for work that does not move although nothing known holds it up."""
        connector, problems, watchdog = self._connector, self._problems, self._watchdog
        source, pipeline = connector.source, connector.pipeline
        held_up = any(held.problem is not Problem.STUCK for held in problems.held)
        free = connector.limiter.in_flight < connector.limiter.limit
        work = not held_up and free and source.owes
        if watchdog.look(now, work=work, progress=pipeline.progress):
            connector.metrics.stuck.inc()
            self._log.error(
                LogEvent.STUCK,
                seconds=watchdog.limit,
                source=source.state(),
                pipeline=pipeline.state(),
                pending=connector.sink.pending,
            )
        if watchdog.stuck:
            problems.set(Problem.STUCK, seconds=watchdog.limit)
        else:
            problems.clear(Problem.STUCK)

    async def watch_descriptors(self) -> None:
        """Log when descriptors become scarce: without one the process could neither work nor be asked why."""
        while True:
            if problem := self._descriptors.look(descriptors.count(), descriptors.limit()):
                self._log.warning(LogEvent.DESCRIPTORS_SCARCE, problem=problem)
            await asyncio.sleep(_COUNT)

    async def watch(self) -> None:
        """Look for the stuck, and log when the process is ready, and when the gravest problem is another."""
        while True:
            self._look_for_the_stuck(asyncio.get_running_loop().time())
            before, self._told = self._told, self._problems.gravest
            if self._told is None and before is not None:
                self._log.info(LogEvent.READY)
            elif self._told is not None and self._told != before:
                self._log.warning(LogEvent.NOT_READY, reason=self._told.problem.value, problem=self._told.sentence)
            await asyncio.sleep(_TURN)
