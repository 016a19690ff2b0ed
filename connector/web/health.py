"""Health: whether the process is alive, and whether it is ready, in a sentence."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from connector.log_events import LogEvent

if TYPE_CHECKING:
    from connector.app import Connector

_TURN = 0.25
"""Seconds between two looks at the loop and at the reason."""


class Health:
    """Whether the event loop turns, and why the process is not ready."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._log = structlog.get_logger("connector.health")
        self.stopping = False
        self.reason: str | None = "starting"
        """Why the process is not ready, in a sentence; None while it is."""

    def look(self) -> str | None:
        """Why the process is not ready at this moment, in a sentence; None when it is."""
        source, sink = self._connector.source, self._connector.sink
        if self.stopping:
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
            before, self.reason = self.reason, self.look()
            if self.reason is None and before is not None:
                self._log.info(LogEvent.READY)
            elif self.reason is not None and self.reason != before:
                self._log.warning(LogEvent.NOT_READY, problem=self.reason)
            await asyncio.sleep(_TURN)
