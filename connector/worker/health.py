"""Health: whether the process is alive, and whether it is ready, in a sentence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from connector.telemetry.log_events import LogEvent
from connector.worker.supervised import Supervised
from connector.worker.watchdog import Watchdog

if TYPE_CHECKING:
    from connector.worker.connector import Connector

_TURN = 0.25
"""Seconds between two looks at the loop and at the reason."""
_STUCK = 60.0
"""Seconds without any move, on top of what a call, a backoff or a linger may take, that count as stuck."""


class Health(Supervised):
    """Whether the event loop turns, and why the process is not ready; a service that only reads the Connector's."""

    abstract = False

    def __init__(self, connector: Connector, **options: Any) -> None:
        self._connector = connector
        self._log = structlog.get_logger("connector.health")
        settings = connector.settings
        endpoint = settings.endpoint
        patience = max(endpoint.connect_timeout + endpoint.read_timeout, settings.retry.max, settings.batch.linger)
        self._watchdog = Watchdog(_STUCK + patience)
        self.reason: str | None = "starting"
        """Why the process was not ready at the last look, in a sentence; None when it was."""
        connector.metrics.ready.reads(lambda: float(self.look() is None))
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to look."""
        self.supervise(self.watch())

    async def on_stop(self) -> None:
        """Look no more."""
        await self.end_tasks(_TURN)

    def look(self) -> str | None:
        """Why the process is not ready at this moment, in a sentence; None when it is."""
        reason = self._known_reason()
        if reason is None and self._watchdog.stuck:
            return (
                f"stuck: nothing has moved for {self._watchdog.limit:.0f}s although there is work; the log line "
                f"'{LogEvent.STUCK}' has the state of every part, and a restart loses nothing"
            )
        return reason

    def _look_for_the_stuck(self, now: float) -> None:
        """Look for work that does not move although nothing known holds it up."""
        connector = self._connector
        source, pipeline, sink = connector.source, connector.pipeline, connector.sink
        if source is None or sink is None:
            return
        free = connector.limiter.in_flight < connector.limiter.limit
        work = self._known_reason() is None and free and source.epochs.owe
        if self._watchdog.look(now, work=work, progress=pipeline.progress):
            connector.metrics.stuck.inc()
            self._log.error(
                LogEvent.STUCK,
                seconds=self._watchdog.limit,
                source=source.state(),
                pipeline=pipeline.state(),
                pending=sink.pending,
            )

    def _known_reason(self) -> str | None:
        source, sink = self._connector.source, self._connector.sink
        if self._connector.stopping:
            return "stopping"
        if source is None or sink is None:
            return "starting"
        for reason in (source.problem, self._connector.pipeline.problem, sink.problem):
            if reason is not None:
                return reason
        if not source.joined:
            return "waiting for the first assignment of partitions"
        if source.cut_off:
            return "cut off from Kafka: the group coordinator does not answer"
        return None

    async def watch(self) -> None:
        """Keep the reason up to date, and log when it changes."""
        while True:
            self._look_for_the_stuck(asyncio.get_running_loop().time())
            before, self.reason = self.reason, self.look()
            if self.reason is None and before is not None:
                self._log.info(LogEvent.READY)
            elif self.reason is not None and self.reason != before:
                self._log.warning(LogEvent.NOT_READY, problem=self.reason)
            await asyncio.sleep(_TURN)
