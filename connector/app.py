"""App: the Faust shell around the pipeline: worker, signals, pages.

Faust supervises and serves; no event passes through it. Its agents acknowledge events out of order, so the data path is the
connector's own, in the Connector service.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

import faust
import structlog
import uvloop
from aiokafka import __version__ as aiokafka_version
from faust.app.base import BootStrategy
from mode import Service

from connector import __version__, log
from connector.endpoint.sdk import SdkInvoker
from connector.errors import StartupError
from connector.kafka import clients, repairs
from connector.kafka.sink import Sink
from connector.kafka.source import Source
from connector.kafka.transactions import Transactions
from connector.limiter import FixedLimiter
from connector.log_events import LogEvent
from connector.metrics import Metrics
from connector.pipeline import Pipeline
from connector.settings import effective
from connector.web import pages
from connector.web.health import Health

if TYPE_CHECKING:
    from collections.abc import Iterable

    from connector.kafka.topics import Topic
    from connector.settings import Settings

_CLOSING = 5.0
"""Seconds of `shutdown.drain` that calls do not get: publishing, the commit and the goodbyes need them."""
_GRACE = 1.5
"""Seconds after `shutdown.drain` at which the process ends, whatever still hangs."""
_HEADERS_ROOM = 2048
"""About the bytes that a dead letter's headers add to its event."""


class Connector(Service):
    """The data path as a service: source, pipeline, sink and invoker, from start to drain."""

    abstract = False

    def __init__(self, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.metrics = Metrics(time.monotonic)
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
        self.pipeline = Pipeline(settings, self.invoker, self.limiter, self.metrics)
        self.source: Source | None = None
        self.sink: Sink | Transactions | None = None
        self.health = Health(self)
        self._tasks: list[asyncio.Task[None]] = []
        super().__init__(**options)

    async def on_start(self) -> None:
        """Begin to work; what Kafka or the endpoint are not ready for is retried by the parts themselves."""
        settings = self.settings
        await self.invoker.start()
        self.source = Source(settings, self.metrics)
        transactions = None
        if settings.kafka.delivery == "exactly_once":
            self.sink = transactions = Transactions(
                settings, self.source.lease, self.metrics, self.pipeline, self.source
            )
        else:
            self.sink = Sink(settings, self.source.lease, self.metrics.publishing, self.pipeline)
        self.source.attach(self.pipeline, transactions)
        self.pipeline.attach(self.sink, self.source.gate)
        self._watch_numbers(self.source)
        self._tasks = [asyncio.create_task(self._run(self.source, self.sink)), asyncio.create_task(self.health.watch())]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def _run(self, source: Source, sink: Sink | Transactions) -> None:
        topics = await source.find_topics()
        sink.learn(topics)
        for sentence in _topic_advice(self.settings, topics):
            self._log.warning(LogEvent.ADVICE, problem=sentence)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sink.run())
            tasks.create_task(source.run())

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A part that ends by itself is a fault of ours: the worker ends, and is started again from outside."""
        if not task.cancelled() and (error := task.exception()) is not None:
            # Not its repr: that of a UnicodeDecodeError holds all that was to be decoded.
            self._log.critical(LogEvent.CRASHED, error=type(error).__name__, exc_info=error)
            asyncio.ensure_future(self.crash(error))  # noqa: RUF006

    async def on_stop(self) -> None:
        """Drain within `shutdown.drain`."""
        self.health.stopping = True
        end = time.monotonic() + self.settings.shutdown.drain
        self._log.info(LogEvent.STOPPING)
        if self.source is not None:
            drain = self.settings.shutdown.drain - _CLOSING
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(end - time.monotonic()):
                    await self.source.stop(drain + _CLOSING / 2, _CLOSING / 4)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=max(0.1, end - time.monotonic()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.1, end - time.monotonic())):
                await self.invoker.stop()
        self._log.info(LogEvent.STOPPED)

    def _watch_numbers(self, source: Source) -> None:
        epochs, committer = source.epochs, self.sink if isinstance(self.sink, Transactions) else source
        watch, per_partition = self.metrics.watch, self.metrics.watch_partitions
        watch("calls_in_flight", "Calls in flight.", lambda: self.limiter.in_flight)
        watch("bytes_in_flight", "Bytes of the bodies in flight.", lambda: self.limiter.bytes_in_flight)
        watch("limit", "The most calls that may be in flight at present.", lambda: self.limiter.limit)
        watch(
            "buffered_events",
            "Events delivered and not complete.",
            lambda: sum(x.unfinished for x in epochs.ledgers.values()),
        )
        watch(
            "buffered_bytes",
            "Bytes of events and results not complete.",
            lambda: sum(x.bytes for x in epochs.ledgers.values()),
        )
        watch("partitions", "Partitions assigned to this process.", lambda: len(epochs.ledgers))
        watch("commit_age_seconds", "Seconds since nothing was left to commit.", lambda: committer.commit_age)
        watch("ready", "1 while ready, else 0.", lambda: float(self.health.reason is None))
        per_partition("lag", "Events of the partition that are not complete.", epochs.lag)
        per_partition(
            "oldest_unfinished_seconds", "Seconds since the delivery of the oldest unfinished event.", epochs.ages
        )
        per_partition("oldest_unfinished_offset", "Offset of the oldest unfinished event.", epochs.oldest)


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


class _NoKafka(BootStrategy):
    """Faust's own consumer, producer and agents stay away; its web server comes."""

    enable_kafka = False


def make_app(settings: Settings, service: Connector) -> faust.App:
    """The Faust app: our service, and the pages."""

    class App(faust.App):
        BootStrategy = _NoKafka

        def _create_directories(self) -> None:
            """No tables, no folders."""

    app = App(
        "connector",
        broker="kafka://",
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=True,
        web_bind=settings.web.host,
        web_port=settings.web.port,
        web_host="localhost",
        autodiscover=False,
    )
    pages.add(app, service)
    app.service(service)
    return app


class Worker(faust.Worker):
    """Faust's worker, with a second signal that ends the process at once, and an end that nothing can delay."""

    def __init__(self, app: faust.App, *, drain: float, **options: Any) -> None:
        self._drain = drain
        self._signals = 0
        super().__init__(app, override_logging=False, redirect_stdouts=False, quiet=True, **options)
        self.spinner = None

    def _on_sigint(self) -> None:
        self._on_signal(signal.SIGINT)

    def _on_sigterm(self) -> None:
        self._on_signal(signal.SIGTERM)

    def _on_signal(self, number: signal.Signals) -> None:
        self._signals += 1
        if self._signals > 1:
            _exit_now(1)
        deadline = threading.Timer(self._drain + _GRACE, _exit_now, args=(1,))
        deadline.daemon = True
        deadline.start()
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(number)

    def _setproctitle(self, info: str, *, ident: str = "connector") -> None:
        """Keep the process's own name."""

    def _shutdown_loop(self) -> None:
        # Faust waits for seconds here for tasks that have nothing left to do.
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        if self.crash_reason:
            raise self.crash_reason


def _exit_now(code: int) -> None:
    sys.stderr.flush()
    os._exit(code)


def _check_port(host: str, port: int) -> None:
    """Raise StartupError when the pages cannot be served there; Faust would end with a traceback."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise StartupError(
            f"Port {port} on {host} cannot be used for the pages ({error.strerror}): "
            "stop what listens there, or set another web.host or web.port."
        ) from None


def run(settings: Settings) -> NoReturn:
    """Run a worker until a signal ends it; never returns.

    Raises StartupError before anything is started.
    """
    repairs.check_version(aiokafka_version)
    _check_port(settings.web.host, settings.web.port)
    log.configure(settings.log.level, settings.log.format)
    logger = structlog.get_logger("connector")
    # Faust's services log their own coming and going under the names of our modules.
    logging.getLogger(__name__).setLevel(logging.WARNING)
    logger.info(LogEvent.STARTING, version=__version__, settings=effective(settings))
    for sentence in settings.advice():
        logger.warning(LogEvent.ADVICE, problem=sentence)
    clients.common(settings)
    # The default collects after 700 allocations, and a buffer full of events makes each collection dear: a fifth of the CPU.
    gc.set_threshold(10_000, 10, 10)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    service = Connector(settings, loop=loop)
    worker = Worker(make_app(settings, service), drain=settings.shutdown.drain, loop=loop)
    worker.execute_from_commandline()
    raise SystemExit(0)
