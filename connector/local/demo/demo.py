"""Demo: an endpoint, the connector as a process of its own, and a producer, for some seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connector.core.answers import headers
from connector.errors import StartupError
from connector.local.child import Child
from connector.local.demo.advice import Addresses, advice
from connector.local.demo.report import Report, make_report
from connector.local.demo.stop_request import Stopped
from connector.local.demo.workload import DEVICES, TRAINED, Item
from connector.local.endpoint import captures
from connector.local.endpoint.captures import CaptureWriter
from connector.local.endpoint.emulator import LocalEndpoint
from connector.local.endpoint.hosted_endpoint import HostedEndpoint
from connector.local.endpoint.model import Digits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiokafka.structs import ConsumerRecord
    from rich.console import Console

    from connector.local.demo.stop_request import StopRequest

ENDPOINT = "digits"
INPUT, OUTPUT, LETTERS = "inference-requests", "inference-results", "inference-requests.dlq"
TOPICS = {INPUT: 4, OUTPUT: 4, LETTERS: 1}
AWS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo", "AWS_DEFAULT_REGION": "us-east-1"}
"""What the connector signs its calls with; the emulator looks at the shape of a signature alone."""
_PORTS = range(20_000, 32_000)
"""Below those of outgoing connections, any of which could take a port between its choice and its use."""
_READY_LIMIT = 30.0
_DRAIN = 10
_ANSWER_LIMIT = 60.0
"""Seconds without one more answer after which the demo gives up."""


class Demo:
    """One run of the demo against a Kafka that serves already; `folder` takes its files.

    `check_kafka` raises StartupError when Kafka has ended.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        check_kafka: Callable[[], None],
        folder: Path,
        mode: str,
        items: list[Item],
        console: Console,
    ) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.captures = folder / "captures"
        self.config = folder / "connector.yaml"
        self.log = folder / "connector.log"
        self.port = _free_port()
        self.url = ""
        self._check_kafka = check_kafka
        self._mode = mode
        self._items = items
        self._console = console

    @property
    def web(self) -> str:
        """Where the connector's pages are."""
        return f"http://127.0.0.1:{self.port}"

    async def run(self, stop: StopRequest, show: Callable[[Report], None], *, keep: bool) -> Report:
        """Do it all and show the report; with `keep`, stay up after that until a request to stop.

        Raises StartupError with a sentence, and Stopped when the request comes before the report.
        """
        self._console.print(f"Training a classifier on {TRAINED} images of handwritten digits.")
        hosted = HostedEndpoint(ENDPOINT, {"AllTraffic": await asyncio.to_thread(Digits, TRAINED)})
        stop.check()
        async with LocalEndpoint([hosted], captures=CaptureWriter(self.captures)) as endpoint:
            self.url = endpoint.url
            self._console.print(f"The endpoint {ENDPOINT} serves at {self.url}.")
            async with self._connector() as connector:
                with stop.cancelling():
                    await self._until_ready(connector)
                    self._console.print("The connector is ready. Producing events.")
                    report = await self._measure(connector)
                show(report)
                if keep:
                    self._console.print(advice(self._addresses(), TOPICS, AWS))
                    with contextlib.suppress(Stopped), stop.cancelling():
                        while True:
                            self._check(connector)
                            await asyncio.sleep(0.5)
        return report

    def _addresses(self) -> Addresses:
        return Addresses(self.bootstrap_servers, self.url, self.web, self.port, self.captures, self.config, self.log)

    def settings(self) -> dict[str, Any]:
        """What the connector runs with, as it stands in its file."""
        return {
            "kafka": {"bootstrap_servers": self.bootstrap_servers},
            "endpoint": {"name": ENDPOINT, "url": self.url},
            "correlation": {"mode": self._mode},
            "shutdown": {"drain": f"{_DRAIN}s"},
            "web": {"host": "127.0.0.1", "port": self.port},
            "log": {"format": "text"},
        }

    def last_lines(self) -> str:
        """The end of the connector's log, for a person."""
        lines = self.log.read_text(errors="replace").splitlines()[-12:] if self.log.exists() else []
        return "\n".join(["The connector's last log lines:", *(f"  {line[:400]}" for line in lines)])

    @contextlib.asynccontextmanager
    async def _connector(self) -> AsyncIterator[Child]:
        """The connector as `connector run` starts it, in a process of its own; drained at the end."""
        self.config.write_text(yaml.safe_dump(self.settings(), sort_keys=False))
        child = Child(
            "/usr/bin/env",
            [*_environment(self.config.parent), sys.executable, "-m", "connector", *self._arguments()],
            self.log,
        )
        try:
            yield child
        finally:
            child.terminate()
            await asyncio.to_thread(child.wait, _DRAIN + 5)
            child.kill()

    def _arguments(self) -> list[str]:
        return ["run", "--config", str(self.config)]

    async def _until_ready(self, connector: Child) -> None:
        reason = "it does not answer"
        end = time.monotonic() + _READY_LIMIT
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(5)) as session:
            while time.monotonic() < end:
                self._check(connector)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.web}/health/ready") as answer:
                        reason = (await answer.text()).strip()
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)
        raise StartupError(f"The connector was not ready within {_READY_LIMIT:.0f} s: {reason}.\n{self.last_lines()}")

    def _check(self, connector: Child) -> None:
        """Raise StartupError when the connector or Kafka has ended."""
        if not connector.running:
            raise StartupError(f"The connector ended by itself, with code {connector.wait(0)}.\n{self.last_lines()}")
        self._check_kafka()

    async def _measure(self, connector: Child) -> Report:
        """Produce the events, wait for what comes of each, and compare."""
        consumer = AIOKafkaConsumer(
            OUTPUT, LETTERS, bootstrap_servers=self.bootstrap_servers, auto_offset_reset="earliest"
        )
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, linger_ms=5)
        items = self._items
        async with consumer, producer:
            started = time.monotonic()
            producing = asyncio.create_task(_produce(producer, items))
            try:
                got = await self._collect(consumer, len(items), connector, producing)
                seconds = time.monotonic() - started
                sources = await producing
            finally:
                producing.cancel()
        devices = frozenset(DEVICES) if self._mode == "key" else None
        return make_report(sources, got[OUTPUT], got[LETTERS], captures.read(self.captures), devices, seconds)

    async def _collect(
        self,
        consumer: AIOKafkaConsumer,
        expected: int,
        connector: Child,
        producing: asyncio.Task[dict[str, Item]],
    ) -> dict[str, list[ConsumerRecord]]:
        """Results and dead letters, until there is one of each event, or none comes any more."""
        got: dict[str, list[ConsumerRecord]] = {OUTPUT: [], LETTERS: []}
        answered: set[bytes] = set()
        columns = (
            TextColumn("answered"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[letters]} dead letters"),
            TimeElapsedColumn(),
        )
        last, said = time.monotonic(), 0
        terminal = self._console.is_terminal
        with Progress(*columns, console=self._console, disable=not terminal) as progress:
            task = progress.add_task("", total=expected, letters=0)
            while len(answered) < expected and time.monotonic() - last < _ANSWER_LIMIT:
                self._check(connector)
                if producing.done():
                    producing.result()  # raises what ended the producer
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    got[partition.topic] += records
                    answered.update(dict(record.headers)[headers.SOURCE] for record in records)
                    last = time.monotonic()
                progress.update(task, completed=len(answered), letters=len(got[LETTERS]))
                if not terminal and len(answered) - said >= max(200, expected // 5):
                    said = len(answered)
                    self._console.print(f"answered {said:,} of {expected:,}")
        return got


async def _produce(producer: AIOKafkaProducer, items: list[Item]) -> dict[str, Item]:
    """Produce as fast as Kafka takes it; the items by their coordinates."""
    sent = [await producer.send(INPUT, item.value, key=item.key) for item in items]
    places = await asyncio.gather(*sent)
    return {f"{place.topic}/{place.partition}/{place.offset}": item for place, item in zip(places, items, strict=True)}


def _environment(folder: Path) -> list[str]:
    """Arguments for env(1): nothing of a person's settings, AWS accounts and proxies reaches the connector.

    `folder` takes its temporary files.
    """
    foreign = [name for name in os.environ if name.startswith(("CONNECTOR_", "AWS_"))]
    own = {
        **AWS,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "TMPDIR": str(folder),
    }
    return [word for name in foreign for word in ("-u", name)] + [f"{name}={value}" for name, value in own.items()]


def _free_port() -> int:
    for number in random.sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", number))
            return number
    raise StartupError(f"No free port was found on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop}.")
