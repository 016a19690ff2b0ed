"""Process: the Faust shell around the connector: worker, signals, pages.

Faust supervises and serves; no event passes through it. Its agents acknowledge events out of order, so the data path is the
connector's own, in the Connector service.
"""

from __future__ import annotations

import asyncio
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
from faust.app.base import BootStrategy
from faust.web.base import BlueprintManager

from connector import __version__
from connector.errors import ExitCode, StartupError
from connector.kafka import clients, repairs
from connector.settings import advice, effective
from connector.telemetry import log
from connector.telemetry.environment import hidden
from connector.telemetry.log_events import LogEvent
from connector.worker import descriptors, pages
from connector.worker.connector import Connector
from connector.worker.health import Health

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.settings import Settings

_ONE_WISH = 1.0
"""Seconds in which a second signal says no more than the first."""
_GRACE = 1.5
"""Seconds after `shutdown.drain` at which the process ends, whatever still hangs."""


class _NoKafka(BootStrategy):
    """Faust's own consumer, producer and agents stay away; its web server comes."""

    enable_kafka = False


def make_app(settings: Settings, service: Connector, health: Health) -> faust.App:
    """The Faust app: our services, and the pages."""

    class App(faust.App):
        BootStrategy = _NoKafka

        def _create_directories(self) -> None:
            """No tables, no folders."""

    with hidden():
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
            env={},
        )
    # Faust's own pages tell of tables that there are none of, and one of them answers strangers with a traceback.
    app.web.blueprints = BlueprintManager([])
    pages.add(app, health, service.metrics.registry)
    # They are stopped in the other order, so health tells of the drain too.
    app.service(health)
    app.service(service)
    return app


class Worker(faust.Worker):
    """Faust's worker, with a second signal that ends the process at once, and an end that nothing can delay.

    `tell` is what SIGUSR1 asks for.
    """

    def __init__(self, app: faust.App, *, drain: float, tell: Callable[[], None], **options: Any) -> None:
        self._drain = drain
        self._tell = tell
        self._signalled: float | None = None
        self._logger = structlog.get_logger("connector")
        super().__init__(app, override_logging=False, redirect_stdouts=False, quiet=True, **options)
        self.spinner = None

    def _on_sigint(self) -> None:
        self._on_signal(signal.SIGINT)

    def _on_sigterm(self) -> None:
        self._on_signal(signal.SIGTERM)

    def _on_signal(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if self._signalled is not None:
            # Wrappers forward a signal that the whole process group had already.
            if now - self._signalled > _ONE_WISH:
                self._logger.warning(LogEvent.ENDED_BY_FORCE, signal=number.name)
                _exit_now(ExitCode.FAILED)
            return
        self._signalled = now
        deadline = threading.Timer(self._drain + _GRACE, _exit_now, args=(ExitCode.FAILED,))
        deadline.daemon = True
        deadline.start()
        self._flag_as_shutdown_by_signal()
        self._schedule_shutdown(number)

    def _on_sigusr1(self) -> None:
        self._tell()

    def _on_sigusr2(self) -> None:
        """Nothing: Faust's answer is a debugger, which stops the loop."""

    def _setproctitle(self, info: str, *, ident: str = "connector") -> None:
        """Keep the process's own name."""

    def _shutdown_loop(self) -> None:
        # Faust waits for seconds here for tasks that have nothing left to do.
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        # While Python takes itself down a signal has its default again, and a clean end would look like a kill.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if self.crash_reason:
            raise self.crash_reason


def _exit_now(code: ExitCode) -> None:
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
    descriptors.raise_limit()
    repairs.check_version()
    _check_port(settings.web.host, settings.web.port)
    log.configure(settings.log.level, settings.log.format)
    logger = structlog.get_logger("connector")
    # Faust's services log their own coming and going under the names of our modules.
    logging.getLogger(__package__).setLevel(logging.WARNING)
    logger.info(LogEvent.STARTING, version=__version__, settings=effective(settings))
    for sentence in (*advice.sentences(settings), *descriptors.advice(settings, descriptors.limit())):
        logger.warning(LogEvent.ADVICE, problem=sentence)
    clients.common(settings)
    # The default collects after 700 allocations, and a buffer full of events makes each collection dear: a fifth of the CPU.
    gc.set_threshold(10_000, 10, 10)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    service = Connector(settings, loop=loop)
    health = Health(service, loop=loop)
    worker = Worker(make_app(settings, service, health), drain=settings.shutdown.drain, tell=health.tell, loop=loop)
    worker.execute_from_commandline()
    raise SystemExit(ExitCode.DONE)
