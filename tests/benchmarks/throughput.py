"""Throughput: events/s and CPU an event of one connector process, beside a plain copy loop in the same run.

`python -m tests.benchmarks.throughput` loads a topic with 1 KB events, and lets each contender empty it by turns: the copy
loop, the connector with 256-row batches (`correlation.mode: batch`), and the connector with one event a call. CPU is user
and system time of the measured process between its first and last tenth of the results, so that starting costs nothing.
Timings on a shared machine are noisy; the ratios of one run, and their medians over rounds, are what counts.

`python -m tests.benchmarks.throughput --deliveries` compares at least once with exactly once instead, on 8 and on 32
partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psutil
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from rich.console import Console
from rich.table import Table

from connector.local.kafka.cluster import LocalKafka
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEYS = 10_000
ROW = b",".join(b"%.4f" % (number / 7) for number in range(140))[:1000]
BAR = 2.0
"""256-row batches may cost at most this many times the copy loop's CPU an event."""
CONTENDERS: dict[str, dict[str, Any] | None] = {
    "copy loop": None,
    "256-row batches": {"correlation": {"mode": "batch"}, "batch": {"max_events": 256}},
    "one event a call": {"batch": {"max_events": 1}},
}
_ROWS_OF_256: dict[str, Any] = {"correlation": {"mode": "batch"}, "batch": {"max_events": 256}}
DELIVERIES: dict[str, dict[str, Any] | None] = {
    delivery: {**_ROWS_OF_256, "kafka": {"delivery": delivery}} for delivery in ("at_least_once", "exactly_once")
}


@dataclass(frozen=True, slots=True)
class Measurement:
    """One contender in one round."""

    contender: str
    events: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of CPU an event."""
        return self.cpu_seconds / self.events * 1e6


class Bench:
    """A loaded topic, an endpoint that costs little in a process of its own, and the contenders."""

    def __init__(
        self,
        bootstrap_servers: str,
        folder: Path,
        events: int,
        partitions: int,
        contenders: dict[str, dict[str, Any] | None],
    ) -> None:
        self._partitions = partitions
        self._contenders = contenders
        self._servers = bootstrap_servers
        self._folder = folder
        self._events = events
        self._run = uuid.uuid4().hex[:8]
        self._input = f"bench-in-{self._run}"
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)

    async def load(self) -> None:
        """Fill the input topic."""
        await self._admin.start()
        await self._admin.create_topics([NewTopic(self._input, self._partitions, 1)])
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, linger_ms=20, max_batch_size=256 * 1024)
        async with producer:
            for start in range(0, self._events, 2000):
                numbers = range(start, min(start + 2000, self._events))
                sent = [
                    await producer.send(
                        self._input,
                        b"%d,%s" % (n, ROW),
                        key=b"key-%05d" % (n % KEYS),
                        headers=[("trace", b"%016x" % n)],
                    )
                    for n in numbers
                ]
                await asyncio.gather(*sent)

    async def measure(self, contender: str, number: int, events: int) -> Measurement:
        """Let one contender empty the topic, or the first `events` of it."""
        output, letters = f"bench-out-{self._run}-{number}", f"bench-dlq-{self._run}-{number}"
        await self._admin.create_topics([NewTopic(output, self._partitions, 1), NewTopic(letters, 1, 1)])
        settings = self._contenders[contender]
        endpoint: asyncio.subprocess.Process | None = None
        page: int | None = None
        if settings is None:
            arguments = ["tests.benchmarks.copy_loop", self._servers, self._input, output, str(events)]
        else:
            port = free_port()
            endpoint = await _python(
                *("-m", "connector", "local", "endpoint", "--model", "constant", "--port", str(port)), quiet=True
            )
            config, page = self._folder / f"{number}.yaml", free_port()
            config.write_text(yaml.safe_dump(self._settings(settings, port, page, output, letters, number)))
            arguments = ["connector", "run", "--config", str(config)]
        process = await _python("-m", *arguments, quiet=True)
        try:
            return await self._watch(contender, process, output if contender in CONTENDERS else page, events)
        finally:
            for child in (process, endpoint):
                if child is not None and child.returncode is None:
                    child.terminate()
                    await child.wait()
            await self._admin.delete_topics([output, letters])

    def _settings(
        self, settings: dict[str, Any], port: int, page: int, output: str, letters: str, number: int
    ) -> dict[str, Any]:
        own = dict(settings)
        return {
            "kafka": {
                "bootstrap_servers": self._servers,
                "group_id": f"bench-{self._run}-{number}",
                "input_topic": self._input,
                "output_topic": output,
                "dead_letter_topic": letters,
                **own.pop("kafka", {}),
            },
            "endpoint": {"name": "local", "region": "us-east-1", "url": f"http://127.0.0.1:{port}"},
            "concurrency": {"max_in_flight": 16},
            "web": {"host": "127.0.0.1", "port": page},
            "log": {"level": "WARNING"},
            **own,
        }

    async def _watch(
        self, contender: str, process: asyncio.subprocess.Process, place: str | int | None, events: int
    ) -> Measurement:
        """CPU and time between a tenth and nine tenths of the results, counted in a topic or on a connector's page."""
        measured = psutil.Process(process.pid)
        marks: list[tuple[int, float, float]] = []
        end = time.monotonic() + 300
        async with AIOKafkaConsumer(bootstrap_servers=self._servers) as consumer, aiohttp.ClientSession() as session:

            async def count() -> int:
                if isinstance(place, str):
                    parts = [TopicPartition(place, part) for part in range(self._partitions)]
                    return int(sum((await consumer.end_offsets(parts)).values()))
                # The markers of transactions would count in a topic.
                await asyncio.sleep(0.1)
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"http://127.0.0.1:{place}/metrics") as answer:
                        for line in (await answer.text()).splitlines():
                            if line.startswith("connector_results_total "):
                                return int(float(line.split()[1]))
                return 0

            while not marks or marks[-1][0] < events * 0.9:
                if process.returncode is not None or time.monotonic() > end:
                    raise RuntimeError(f"{contender} did not come to its end: {marks[-1:]}")
                there = await count()
                cpu = measured.cpu_times()
                if there >= events * 0.1:
                    marks.append((there, time.monotonic(), cpu.user + cpu.system))
                await asyncio.sleep(0.02)
        (first, began, spent), (last, ended, total) = marks[0], marks[-1]
        if last == first:
            raise RuntimeError(f"{contender} was too quick to measure: use more --events")
        return Measurement(contender, last - first, ended - began, total - spent)

    async def close(self) -> None:
        """Remove the topic."""
        await self._admin.delete_topics([self._input])
        await self._admin.close()


async def _python(*arguments: str, quiet: bool) -> asyncio.subprocess.Process:
    environment = {name: text for name, text in os.environ.items() if not name.startswith("CONNECTOR_")}
    environment |= {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    silence = asyncio.subprocess.DEVNULL if quiet else None
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=silence, stderr=silence, env=environment
    )


async def run(
    bootstrap_servers: str,
    events: int,
    rounds: int,
    say: Callable[[str], object],
    *,
    partitions: int = 4,
    contenders: dict[str, dict[str, Any] | None] = CONTENDERS,
) -> list[Measurement]:
    """Measure every contender in turn, so many rounds."""
    measured = []
    with tempfile.TemporaryDirectory(prefix="connector-bench-") as folder:
        bench = Bench(bootstrap_servers, Path(folder), events, partitions, contenders)
        say(f"loading {events:,} events of 1 KB into {partitions} partitions")
        await bench.load()
        number = 0
        for one in range(rounds):
            for contender in contenders:
                number += 1
                # One event a call takes a hundred times the work: a part of the topic tells as much.
                count = events if contender != "one event a call" else max(500, events // 20)
                result = await bench.measure(contender, number, count)
                say(
                    f"round {one + 1}: {contender}: {result.rate:,.0f} events/s, {result.cpu_us:.1f} us of CPU an event"
                )
                measured.append(result)
        await bench.close()
    return measured


def summary(measured: Sequence[Measurement]) -> dict[str, dict[str, float]]:
    """Medians of each contender, and of its rate and CPU as ratios to those of the first one in the same round."""
    names = list(dict.fromkeys(one.contender for one in measured))
    by = {name: [one for one in measured if one.contender == name] for name in names}
    first = by[names[0]]
    return {
        name: {
            "events_per_second": statistics.median(one.rate for one in ones),
            "cpu_us_per_event": statistics.median(one.cpu_us for one in ones),
            "rate_ratio": statistics.median(one.rate / base.rate for one, base in zip(ones, first, strict=True)),
            "cpu_ratio": statistics.median(one.cpu_us / base.cpu_us for one, base in zip(ones, first, strict=True)),
        }
        for name, ones in by.items()
    }


def show(medians: dict[str, dict[str, float]], console: Console) -> None:
    """Print the medians: a table on a terminal, aligned text in a pipe."""
    head = ("contender", "events/s", "of the first", "CPU us an event", "times the first")
    rows = [
        (
            name,
            f"{row['events_per_second']:,.0f}",
            f"{row['rate_ratio']:.0%}",
            f"{row['cpu_us_per_event']:.1f}",
            f"{row['cpu_ratio']:.2f}",
        )
        for name, row in medians.items()
    ]
    if console.is_terminal:
        table = Table(*head)
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    for row in (head, *rows):
        console.print(f"{row[0]:<20}" + "".join(f"{cell:>18}" for cell in row[1:]))


def main() -> int:
    """Run it; with --check, exit code 1 when the bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60_000, help="events in the topic (60000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (3)")
    parser.add_argument("--deliveries", action="store_true", help="compare exactly once with at least once")
    parser.add_argument("--json", action="store_true", help="print the measurements as JSON")
    parser.add_argument("--check", action="store_true", help=f"exit 1 when 256-row batches cost over {BAR} copy loops")
    options = parser.parse_args()
    console = Console(stderr=options.json, soft_wrap=True, highlight=False)
    with ExitStack() as stack:
        servers = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
        if servers is None:
            servers = stack.enter_context(LocalKafka(progress=console.print)).bootstrap_servers
        if options.deliveries:
            for partitions in (8, 32):
                both = asyncio.run(
                    run(
                        *(servers, options.events, options.rounds, console.print),
                        partitions=partitions,
                        contenders=DELIVERIES,
                    )
                )
                show(summary(both), console)
            return 0
        measured = asyncio.run(run(servers, options.events, options.rounds, console.print))
    medians = summary(measured)
    if options.json:
        print(json.dumps({"measurements": [asdict(one) for one in measured], "medians": medians}, indent=2))
    else:
        show(medians, console)
    return int(options.check and medians["256-row batches"]["cpu_ratio"] > BAR)


if __name__ == "__main__":
    sys.exit(main())
