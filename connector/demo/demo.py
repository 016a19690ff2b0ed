"""Demo: Kafka, an endpoint, the connector as a process of its own, and a producer, for some seconds."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from connector.demo.report import Report, make_report
from connector.demo.workload import DEVICES, TRAINED, Item, workload
from connector.errors import StartupError
from connector.local import captures
from connector.local.captures import CaptureWriter
from connector.local.endpoint import LocalEndpoint
from connector.local.hosted_endpoint import HostedEndpoint
from connector.local.model import Digits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aiokafka.structs import ConsumerRecord
    from rich.console import Console

ENDPOINT = "digits"
INPUT, OUTPUT, LETTERS = "inference-requests", "inference-results", "inference-requests.dlq"
TOPICS = {INPUT: 4, OUTPUT: 4, LETTERS: 1}
_READY_LIMIT = 30.0
_ANSWER_LIMIT = 60.0
"""Seconds without one more result after which the demo gives up."""


def _free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


class Demo:
    """One run of the demo against a Kafka that serves already; `folder` takes its files."""

    def __init__(self, bootstrap_servers: str, folder: Path, mode: str, events: int, console: Console) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.captures = folder / "captures"
        self.config = folder / "connector.yaml"
        self.log = folder / "connector.log"
        self.web = f"http://127.0.0.1:{_free_port()}"
        self.url = ""
        self.shown = False
        """Whether the report was shown, and what is left is to stay up."""
        self._mode = mode
        self._events = events
        self._console = console

    async def run(self, show: Callable[[Report], None], keep: asyncio.Event | None) -> Report:
        """Do it all and show the report; with `keep`, stay up after that until it is set.

        Raises StartupError with a sentence.
        """
        items = workload(self._events)
        self._console.print(f"Training a classifier on {TRAINED} images of handwritten digits.")
        model = await asyncio.to_thread(Digits, TRAINED)
        writer = CaptureWriter(self.captures)
        hosted = HostedEndpoint(ENDPOINT, {"AllTraffic": model})
        async with LocalEndpoint([hosted], captures=writer) as endpoint:
            self.url = endpoint.url
            self._console.print(f"The endpoint {ENDPOINT} serves at {self.url}.")
            async with self._connector() as process:
                await self._until_ready(process)
                self._console.print("The connector is ready. Producing events.")
                report = await self._measure(items, process)
                show(report)
                self.shown = True
                if keep is not None:
                    self._explain()
                    await keep.wait()
        writer.close()
        return report

    def settings(self) -> dict[str, Any]:
        """What the connector runs with, as it stands in its file."""
        return {
            "kafka": {"bootstrap_servers": self.bootstrap_servers},
            "endpoint": {"name": ENDPOINT, "region": "us-east-1", "url": self.url},
            "correlation": {"mode": self._mode},
            "web": {"host": "127.0.0.1", "port": int(self.web.rsplit(":", 1)[1])},
            "log": {"format": "text"},
        }

    @contextlib.asynccontextmanager
    async def _connector(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """The connector as `connector run` starts it, in a process of its own; drained at the end."""
        self.config.write_text(yaml.safe_dump(self.settings(), sort_keys=False))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTOR_")}
        environment |= {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}
        with self.log.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "connector", "run", "--config", str(self.config), stderr=log, env=environment
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 30)
                except TimeoutError:
                    process.kill()
                    await process.wait()

    async def _until_ready(self, process: asyncio.subprocess.Process) -> None:
        reason = "it does not answer"
        end = time.monotonic() + _READY_LIMIT
        async with aiohttp.ClientSession() as session:
            while time.monotonic() < end:
                self._check(process)
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(f"{self.web}/health/ready") as answer:
                        reason = (await answer.text()).strip()
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)
        raise StartupError(f"The connector did not become ready: {reason}.\n{self._last_lines()}")

    def _check(self, process: asyncio.subprocess.Process) -> None:
        if process.returncode is not None:
            raise StartupError(f"The connector ended with code {process.returncode}.\n{self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-12:] if self.log.exists() else []
        return "\n".join(["Its last log lines:", *(f"  {line[:400]}" for line in lines)])

    async def _measure(self, items: list[Item], process: asyncio.subprocess.Process) -> Report:
        """Produce the events, wait for what comes of each, and compare."""
        consumer = AIOKafkaConsumer(
            OUTPUT, LETTERS, bootstrap_servers=self.bootstrap_servers, auto_offset_reset="earliest"
        )
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers)
        async with consumer, producer:
            producing = asyncio.create_task(self._produce(producer, items))
            try:
                got = await self._collect(consumer, len(items), process)
                sources = await producing
            finally:
                producing.cancel()
        results, letters = got[OUTPUT], got[LETTERS]
        devices = frozenset(DEVICES) if self._mode == "key" else None
        return make_report(sources, results, letters, captures.read(self.captures), devices)

    async def _produce(self, producer: AIOKafkaProducer, items: list[Item]) -> dict[str, Item]:
        """Produce at a few hundred a second, so that there is something to watch; the items by their coordinates."""
        sent = []
        for number, item in enumerate(items):
            sent.append(await producer.send(INPUT, item.value, key=item.key))
            if number % 20 == 19:
                await asyncio.sleep(0.04)
        places = await asyncio.gather(*sent)
        return {
            f"{place.topic}/{place.partition}/{place.offset}": item for place, item in zip(places, items, strict=True)
        }

    async def _collect(
        self, consumer: AIOKafkaConsumer, expected: int, process: asyncio.subprocess.Process
    ) -> dict[str, list[ConsumerRecord]]:
        """Results and dead letters, until there are as many as events, or none comes any more."""
        got: dict[str, list[ConsumerRecord]] = {OUTPUT: [], LETTERS: []}
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
            while (count := len(got[OUTPUT]) + len(got[LETTERS])) < expected:
                self._check(process)
                for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                    got[partition.topic] += records
                    last = time.monotonic()
                progress.update(task, completed=len(got[OUTPUT]) + len(got[LETTERS]), letters=len(got[LETTERS]))
                if not terminal and count - said >= max(200, expected // 5):
                    self._console.print(f"answered {count:,} of {expected:,}")
                    said = count
                if time.monotonic() - last > _ANSWER_LIMIT:
                    break
        return got

    def _explain(self) -> None:
        """What there is to try while everything stays up."""
        say = self._console.print
        say("\nEverything stays up until Ctrl-C. Try, in another terminal:")
        say(f"  curl {self.web}/health/ready")
        say(f"  curl -s {self.web}/metrics | grep connector_calls_total")
        say(f"  head -n 1 $(find {self.captures} -name '*.jsonl' | head -n 1)")
        say(f'  curl -X PUT -d \'[{{"kind": "throttle", "rate": 0.5}}]\' {self.url}/_/faults')
        say(f"  python -m connector.demo.produce {self.bootstrap_servers} 500")
        say(f"Kafka: {self.bootstrap_servers}, topics {', '.join(TOPICS)}")
        say(f"Endpoint: {self.url}   Settings: {self.config}   Log: {self.log}")
