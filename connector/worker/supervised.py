"""Supervised: a service whose tasks may not end by themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog
from mode import Service

from connector.telemetry.log_events import LogEvent

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Supervised(Service):
    """A service of Faust's whose tasks last as long as it does: one that breaks ends the process, and not in silence."""

    abstract = True

    def __init__(self, **options: Any) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        super().__init__(**options)

    def supervise(self, work: Coroutine[Any, Any, None]) -> None:
        """Do this until the service stops."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that ends by itself is a fault of ours: the worker ends, and is started again from outside."""
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not its repr: that of a UnicodeDecodeError holds all that was to be decoded.
            structlog.get_logger("connector").critical(LogEvent.CRASHED, error=type(error).__name__, exc_info=error)
            asyncio.ensure_future(self.crash(error))  # noqa: RUF006

    async def end_tasks(self, limit: float) -> None:
        """Cancel what is supervised, and wait for its end, for `limit` seconds at most."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit)
