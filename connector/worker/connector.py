"""Connector: the data path as a service, from start to drain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import structlog

from connector.core.calls.limiter import FixedLimiter
from connector.endpoint.sdk import SdkInvoker
from connector.kafka import pair, topic
from connector.telemetry.log_events import LogEvent
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problem, Problems
from connector.worker.pipeline import Pipeline
from connector.worker.supervised import Supervised

if TYPE_CHECKING:
    from connector.settings import Settings

_CLOSING = 5.0
"""Seconds of `shutdown.drain` that calls do not get: publishing, the commit and the goodbyes need them."""


class Connector(Supervised):
    """The data path as a service: source, pipeline, sink and invoker, from start to drain."""

    abstract = False

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.metrics = Metrics(time.monotonic)
        self.problems = Problems()
        self.problems.set(Problem.STARTING)
        self._log = structlog.get_logger("connector")
        endpoint, concurrency = settings.endpoint, settings.concurrency
        self.invoker = SdkInvoker(
            region=endpoint.region,
            url=endpoint.url,
            max_in_flight=concurrency.max_in_flight,
            connect_timeout=endpoint.connect_timeout,
            read_timeout=endpoint.read_timeout,
        )
        self.limiter = FixedLimiter(concurrency.max_in_flight, concurrency.max_bytes)
        self.pipeline = Pipeline(settings, self.invoker, self.limiter, self.metrics, self.problems)
        self.source, self.sink = pair.make(settings, self.metrics, self.problems, self.pipeline)
        self.pipeline.attach(self.sink, self.source.gate)
        self._watch_numbers()
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to work; what Kafka or the endpoint are not ready for is retried by the parts themselves."""
        await self.invoker.start()
        self.supervise(self._run())
        self.problems.clear(Problem.STARTING)

    async def _run(self) -> None:
        topics = await self.source.find_topics()
        self.sink.learn(topics)
        for sentence in topic.advice(self.settings.kafka, topics):
            self._log.warning(LogEvent.ADVICE, problem=sentence)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.sink.run())
            tasks.create_task(self.source.run())

    async def on_stop(self) -> None:
        """Drain within `shutdown.drain`."""
        self.problems.set(Problem.STOPPING)
        end = time.monotonic() + self.settings.shutdown.drain
        self._log.info(LogEvent.STOPPING)
        drain = self.settings.shutdown.drain - _CLOSING
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(end - time.monotonic()):
                await self.source.stop(drain + _CLOSING / 2, _CLOSING / 4)
        await self.end_tasks(max(0.1, end - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.1, end - time.monotonic())):
                await self.invoker.stop()
        self._log.info(LogEvent.STOPPED)

    def _watch_numbers(self) -> None:
        source, limiter, metrics = self.source, self.limiter, self.metrics
        metrics.calls_in_flight.reads(lambda: limiter.in_flight)
        metrics.bytes_in_flight.reads(lambda: limiter.bytes_in_flight)
        metrics.limit.reads(lambda: limiter.limit)
        metrics.buffered_events.reads(lambda: source.unfinished)
        metrics.buffered_bytes.reads(lambda: source.bytes)
        metrics.partitions.reads(lambda: source.partitions)
        metrics.commit_age.reads(lambda: source.commit_age)
        metrics.lag.reads(source.lag)
        metrics.oldest_unfinished_seconds.reads(source.ages)
        metrics.oldest_unfinished_offset.reads(source.oldest)
