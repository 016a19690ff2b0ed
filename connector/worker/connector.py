"""Connector: the data path as a service, from start to drain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import structlog

from connector.core.calls.limiter import FixedLimiter
from connector.endpoint.sdk import SdkInvoker
from connector.kafka.sink.sink import Sink
from connector.kafka.sink.transactions import Transactions
from connector.kafka.source.source import Source
from connector.telemetry.log_events import LogEvent
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problem, Problems
from connector.worker.pipeline import Pipeline
from connector.worker.supervised import Supervised

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connector.kafka.topics import Topic
    from connector.settings import Settings

_CLOSING = 5.0
"""Seconds of `shutdown.drain` that calls do not get: publishing, the commit and the goodbyes need them."""
_HEADERS_ROOM = 2048
"""About the bytes that a dead letter's headers add to its event."""


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
        self.source: Source | None = None
        self.sink: Sink | Transactions | None = None
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to work; what Kafka or the endpoint are not ready for is retried by the parts themselves."""
        settings = self.settings
        await self.invoker.start()
        self.source = Source(settings, self.metrics, self.problems)
        transactions = None
        if settings.kafka.delivery == "exactly_once":
            self.sink = transactions = Transactions(
                settings, self.source.membership, self.metrics, self.problems, self.pipeline
            )
        else:
            lease = self.source.membership.lease
            self.sink = Sink(settings, lease, self.metrics.publishing, self.problems, self.pipeline)
        self.source.attach(self.pipeline, transactions)
        self.pipeline.attach(self.sink, self.source.gate)
        self._watch_numbers(self.source)
        self.supervise(self._run(self.source, self.sink))
        self.problems.clear(Problem.STARTING)

    async def _run(self, source: Source, sink: Sink | Transactions) -> None:
        topics = await source.find_topics()
        sink.learn(topics)
        for sentence in _topic_advice(self.settings, topics):
            self._log.warning(LogEvent.ADVICE, problem=sentence)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sink.run())
            tasks.create_task(source.run())

    async def on_stop(self) -> None:
        """Drain within `shutdown.drain`."""
        self.problems.set(Problem.STOPPING)
        end = time.monotonic() + self.settings.shutdown.drain
        self._log.info(LogEvent.STOPPING)
        if self.source is not None:
            drain = self.settings.shutdown.drain - _CLOSING
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(end - time.monotonic()):
                    await self.source.stop(drain + _CLOSING / 2, _CLOSING / 4)
        await self.end_tasks(max(0.1, end - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.1, end - time.monotonic())):
                await self.invoker.stop()
        self._log.info(LogEvent.STOPPED)

    def _watch_numbers(self, source: Source) -> None:
        epochs, limiter, metrics = source.epochs, self.limiter, self.metrics
        committer = self.sink if isinstance(self.sink, Transactions) else source
        metrics.calls_in_flight.reads(lambda: limiter.in_flight)
        metrics.bytes_in_flight.reads(lambda: limiter.bytes_in_flight)
        metrics.limit.reads(lambda: limiter.limit)
        metrics.buffered_events.reads(lambda: sum(ledger.unfinished for ledger in epochs.ledgers.values()))
        metrics.buffered_bytes.reads(lambda: sum(ledger.bytes for ledger in epochs.ledgers.values()))
        metrics.partitions.reads(lambda: len(epochs.ledgers))
        metrics.commit_age.reads(lambda: committer.commit_age)
        metrics.lag.reads(epochs.lag)
        metrics.oldest_unfinished_seconds.reads(epochs.ages)
        metrics.oldest_unfinished_offset.reads(epochs.oldest)


def _topic_advice(settings: Settings, topics: dict[str, Topic]) -> Iterable[str]:
    """What the topics make impossible or expensive, in a sentence each."""
    kafka = settings.kafka
    source, output, letters = (
        topics[name] for name in (kafka.input_topic, kafka.output_topic, kafka.dead_letter_topic)
    )
    if source.max_message_bytes is None:
        yield "the topics' max.message.bytes may not be read with our access: Kafka's default is taken to be theirs"
        return
    if (letters.max_message_bytes or 0) < source.max_message_bytes + _HEADERS_ROOM:
        yield (
            f"topic {letters.name} takes messages of {letters.max_message_bytes} bytes: an event of the largest size that "
            f"{source.name} takes does not fit there with its reason, and is dead-lettered without its value; set "
            f"max.message.bytes of {letters.name} to {source.max_message_bytes + _HEADERS_ROOM} or more"
        )
    if output.partitions < source.partitions:
        yield (
            f"topic {output.name} has {output.partitions} partitions, {source.name} has {source.partitions}: whoever "
            "reads the results can use fewer processes than the connector"
        )
