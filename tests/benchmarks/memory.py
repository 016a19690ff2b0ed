"""Memory: what a connector process takes while its endpoint is away and a backlog waits, and while it catches up.

`python -m tests.benchmarks.memory` loads 200,000 events of 10 KB (2 GB) and runs one process with the default bounds;
`--exactly-once`, `--events` and `--buffer` choose something else. Resident memory, sampled; the overhead is what the peak
is above `buffer.max_bytes`.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from connector.local.endpoint.faults import Fault
from connector.local.kafka.cluster import LocalKafka
from tests.integration.rig import make_rig, source, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.rig import Process, Rig, Settings

_ROW = b",".join(b"%.4f" % (number / 7) for number in range(2000))[:10_000]
_SAMPLE = 0.05
"""Seconds between two looks at the process's memory."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Footprint:
    """Resident memory of one process, in bytes: before any event, at most while the endpoint is away, and at most in all.

    `held` is the most that `buffered_bytes` was while the endpoint was away; `answered` are the events that have results.
    """

    idle: int
    away: int
    peak: int
    held: int
    answered: int
    repeated: int
    dead_letters: int

    def __str__(self) -> str:
        numbers = (self.idle, self.away, self.peak, self.held)
        idle, away, peak, held = (f"{number / _MIB:.0f} MiB" for number in numbers)
        return f"idle {idle}, endpoint away {away} with {held} buffered, peak {peak}; {self.answered} answered"


async def measure(
    servers: str, folder: Path, events: int, settings: Settings, *, partitions: int = 4, away: float = 5.0
) -> Footprint:
    """Let a process meet `events` while its endpoint is away, until nothing more fits, and `away` seconds longer."""
    async with make_rig(servers, folder, partitions) as rig:
        await rig.make_topics()
        rig.endpoint.faults = [Fault("service_unavailable")]
        process = await rig.connector(settings)
        idle = psutil.Process(process.pid).memory_info().rss
        await _load(rig, events)
        async with _peak(process) as seen:
            held = await _full(process, away)
            while_away = seen["rss"]
            rig.endpoint.faults = []
            answered, repeated = await _answers(rig, events)
        letters = await rig.settled(rig.letters, 0.3)
        return Footprint(idle, while_away, seen["rss"], held, answered, repeated, len(letters))


async def _load(rig: Rig, events: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=rig.bootstrap_servers, linger_ms=20, max_batch_size=512 * 1024)
    async with producer:
        for start in range(0, events, 500):
            numbers = range(start, min(start + 500, events))
            sent = [await producer.send(rig.input, b"%d,%s" % (n, _ROW), key=b"key-%06d" % n) for n in numbers]
            await asyncio.gather(*sent)


@asynccontextmanager
async def _peak(process: Process) -> AsyncIterator[dict[str, int]]:
    """Keep the most resident memory under `rss`."""
    seen = {"rss": 0}
    measured = psutil.Process(process.pid)

    async def look() -> None:
        while True:
            seen["rss"] = max(seen["rss"], measured.memory_info().rss)
            await asyncio.sleep(_SAMPLE)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.wait([looking])


async def _full(process: Process, seconds: float) -> int:
    """Wait until the buffer has stopped growing for a while, and `seconds` longer; the most bytes that it held."""
    most, grown = 0.0, time.monotonic()

    async def settled() -> bool:
        nonlocal most, grown
        if (now := await process.metric("connector_buffered_bytes")) > most:
            most, grown = now, time.monotonic()
        return bool(most) and time.monotonic() - grown > 1.0

    await until(settled, "the buffer to be full")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        most = max(most, await process.metric("connector_buffered_bytes"))
        await asyncio.sleep(0.2)
    return int(most)


async def _answers(rig: Rig, events: int, limit: float = 600.0) -> tuple[int, int]:
    """How many events have a result once all have, and how many results are repetitions; the values are not kept."""
    places: set[str] = set()
    results, end = 0, time.monotonic() + limit
    consumer = AIOKafkaConsumer(
        rig.output,
        bootstrap_servers=rig.bootstrap_servers,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    async with consumer:
        while len(places) < events and time.monotonic() < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                results += len(records)
                places.update(map(source, records))
    return len(places), results - len(places)


def main() -> None:
    """Measure once, and print."""
    parser = argparse.ArgumentParser(description="Resident memory with the endpoint away and a backlog.")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--buffer", default="256MiB", help="buffer.max_bytes")
    parser.add_argument("--exactly-once", action="store_true")
    parser.add_argument("--bootstrap-servers", help="a Kafka that runs; without it one is started")
    arguments = parser.parse_args()
    settings: dict[str, dict[str, Any]] = {"correlation": {"mode": "batch"}, "buffer": {"max_bytes": arguments.buffer}}
    if arguments.exactly_once:
        settings["kafka"] = {"delivery": "exactly_once", "transaction_timeout": "30s"}
    with ExitStack() as resources:
        servers = arguments.bootstrap_servers
        if servers is None:
            servers = resources.enter_context(LocalKafka(progress=print)).bootstrap_servers
        folder = Path(resources.enter_context(tempfile.TemporaryDirectory()))
        print(asyncio.run(measure(servers, folder, arguments.events, settings)))


if __name__ == "__main__":
    main()
