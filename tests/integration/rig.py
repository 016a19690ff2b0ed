"""Rig: topics, an endpoint and connector processes for one test, all of them gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import aiohttp
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import GroupCoordinatorNotAvailableError

from connector.core.epochs.ledger import Commit
from connector.local.endpoint.captures import CaptureWriter
from connector.local.endpoint.emulator import LocalEndpoint
from connector.local.endpoint.hosted_endpoint import HostedEndpoint
from connector.local.endpoint.model import Echo
from tests.integration import administration
from tests.integration.clients import started
from tests.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from aiokafka.structs import ConsumerRecord

Event = tuple[bytes | None, bytes | None]
Settings = dict[str, dict[str, Any]]


async def until(condition: Callable[[], Awaitable[Any]], what: str, limit: float = 30.0) -> Any:
    """Ask again and again until the answer is true, and give it; fail after `limit` seconds."""
    end = time.monotonic() + limit
    while True:
        if answer := await condition():
            return answer
        assert time.monotonic() < end, f"waited {limit} s in vain for {what}"
        await asyncio.sleep(0.05)


class Process:
    """One `connector run`, with its settings, pages and log."""

    def __init__(
        self, config: Path, log: Path, port: int, environment: dict[str, str], program: Sequence[str] = ("connector",)
    ) -> None:
        self.config = config
        self.log = log
        self.web = f"http://127.0.0.1:{port}"
        self._environment = environment
        self._program = program
        self._child: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start it, or start it again, without waiting for anything."""
        with self.log.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *self._program,
                "run",
                "--config",
                str(self.config),
                stderr=log,
                env=self._environment,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._child.send_signal(number)

    async def ended(self, limit: float = 30.0) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.wait_for(self._child.wait(), limit)

    async def stop(self) -> None:
        """End it in order, and fail when that does not work."""
        self.signal(signal.SIGTERM)
        assert await self.ended() == 0, self.lines()

    async def kill(self) -> None:
        """End it at once."""
        if self.running:
            self._child.kill()
        await self._child.wait()

    def lines(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    async def get(self, path: str) -> tuple[int, str]:
        """Status and text of one of its pages; status 0 when it does not answer."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
                session.get(self.web + path) as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def ready(self, limit: float = 30.0) -> None:
        """Wait until it says that it is ready."""

        async def is_ready() -> bool:
            assert self.running, self.lines()
            return (await self.get("/health/ready"))[0] == 200

        try:
            await until(is_ready, "the connector to be ready", limit)
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.get('/health/ready')}\n{self.lines()[-3000:]}") from None

    async def unready(self, because: str, limit: float = 30.0) -> str:
        """Wait until it is not ready for a reason that holds these words; the reason."""

        async def reason() -> str | None:
            status, text = await self.get("/health/ready")
            return text if status == 503 and because in text else None

        try:
            return str(await until(reason, f"the reason {because!r}", limit))
        except AssertionError as error:
            raise AssertionError(f"{error}: {await self.get('/health/ready')}\n{self.lines()[-3000:]}") from None

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in (await self.get("/metrics"))[1].splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.partition("{")[0] == name and all(f'{key}="{text}"' in sample for key, text in labels.items()):
                total += float(value)
        return total


class Rig:
    """Three topics, an endpoint that echoes rows, and as many connector processes as a test wants."""

    def __init__(self, bootstrap_servers: str, folder: Path, endpoint: LocalEndpoint, partitions: int) -> None:
        run = uuid.uuid4().hex[:10]
        self.bootstrap_servers = bootstrap_servers
        self.folder = folder
        self.captures = folder / "captures"
        self.endpoint = endpoint
        self.partitions = partitions
        self.group = f"group-{run}"
        self.input, self.output, self.letters = f"in-{run}", f"out-{run}", f"dlq-{run}"
        self.processes: list[Process] = []
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
        self._producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, linger_ms=2, enable_idempotence=True)
        self._consumers: dict[str, AIOKafkaConsumer] = {}
        self._got: dict[str, list[ConsumerRecord]] = {}

    async def start(self) -> None:
        """Connect; topics are made apart."""
        await self._admin.start()
        await self._producer.start()

    async def make_topics(self, *names: str, config: dict[str, str] | None = None, replication: int = 1) -> None:
        """Create topics; without names, all three."""
        names = names or (self.input, self.output, self.letters)
        partitions = dict.fromkeys(names, self.partitions)
        await administration.create_topics(self._admin, partitions, replication=replication, config=config)

    async def add_partitions(self, count: int) -> None:
        """Give the input topic `count` more partitions."""
        self.partitions += count
        await administration.add_partitions(self._admin, self.input, self.partitions)
        await self._producer.client.force_metadata_update()

    async def configure(self, topic: str, config: Mapping[str, str]) -> None:
        """Set a topic's own settings; others of its own are taken back."""
        await administration.configure(self._admin, topic, config)

    async def delete_topics(self, *names: str) -> None:
        """Delete topics; those that come after them under their names are read from their beginning."""
        # Their readers first: aiokafka's may never end once it fetches from a topic that is gone.
        for name in names:
            if consumer := self._consumers.pop(name, None):
                await consumer.stop()
        await self._admin.delete_topics(list(names))

    async def delete_records(self, before: dict[int, int]) -> None:
        """Let partitions of the input topic begin at these offsets, as retention does."""
        await self._admin.delete_records(
            {TopicPartition(self.input, number): RecordsToDelete(offset) for number, offset in before.items()}
        )

    async def coordinator(self) -> int | None:
        """The broker that coordinates the group; None while none does."""
        try:
            return int(await self._admin.find_coordinator(self.group))
        except GroupCoordinatorNotAvailableError:
            return None

    async def connector(
        self,
        settings: Settings | None = None,
        *,
        wait: bool = True,
        program: Sequence[str] = ("connector",),
        **environment: str,
    ) -> Process:
        """Start a connector with these settings over short time limits; with `wait`, until it is ready.

        `program` is what Python's `-m` takes, before `run`.
        """
        port = free_port()
        number = len(self.processes)
        merged: Settings = {
            "kafka": {
                "bootstrap_servers": self.bootstrap_servers,
                "group_id": self.group,
                "input_topic": self.input,
                "output_topic": self.output,
                "dead_letter_topic": self.letters,
                "commit_interval": "100ms",
                "session_timeout": "10s",
                "rebalance_timeout": "20s",
                "request_timeout": "8s",
                "revoke_drain": "4s",
                "metadata_max_age": "1s",
            },
            "endpoint": {"name": "model", "region": "us-east-1", "url": self.endpoint.url},
            "web": {"host": "127.0.0.1", "port": port},
            "shutdown": {"drain": "8s"},
            "retry": {"initial": "20ms", "max": "200ms"},
        }
        for section, values in (settings or {}).items():
            merged[section] = {**merged.get(section, {}), **values}
        config = self.folder / f"connector-{number}.yaml"
        config.write_text(yaml.safe_dump(merged))
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("CONNECTOR_", "AWS_"))}
        credentials = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        log = self.folder / f"connector-{number}.log"
        process = Process(config, log, port, inherited | credentials | environment, program)
        self.processes.append(process)
        await process.start()
        if wait:
            await process.ready()
        return process

    async def produce(
        self,
        events: Iterable[Event],
        *,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
    ) -> list[str]:
        """Produce events, in order; their coordinates, `topic/partition/offset`."""
        sent = [
            await self._producer.send(self.input, value, key=key, headers=headers, partition=partition)
            for key, value in events
        ]
        return [f"{place.topic}/{place.partition}/{place.offset}" for place in await asyncio.gather(*sent)]

    async def read(self, topic: str, count: int, limit: float = 60.0) -> list[ConsumerRecord]:
        """The records of a topic so far, at least so many."""
        if topic not in self._consumers:
            self._consumers[topic] = AIOKafkaConsumer(
                topic,
                bootstrap_servers=self.bootstrap_servers,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
            )
            self._got[topic] = []
            await self._consumers[topic].start()
        got, end = self._got[topic], time.monotonic() + limit
        while len(got) < count and time.monotonic() < end:
            await self.so_far(topic)
        if len(got) < count:
            logs = "\n".join(process.lines()[-2500:] for process in self.processes)
            raise AssertionError(f"only {len(got)} of {count} records of {topic} came in {limit} s\n{logs}")
        return list(got)

    async def results(self, count: int, limit: float = 60.0) -> list[ConsumerRecord]:
        """The results so far, at least so many."""
        return await self.read(self.output, count, limit)

    async def dead_letters(self, count: int, limit: float = 60.0) -> list[ConsumerRecord]:
        """The dead letters so far, at least so many."""
        return await self.read(self.letters, count, limit)

    async def settled(self, topic: str, quiet: float = 1.0) -> list[ConsumerRecord]:
        """The records of a topic once all are read, and none has come for `quiet` seconds."""
        got, since = await self.read(topic, 0), time.monotonic()
        while time.monotonic() - since < quiet:
            now = await self.so_far(topic)
            if len(now) > len(got) or not await self._is_read(topic):
                got, since = now, time.monotonic()
        return got

    async def _is_read(self, topic: str) -> bool:
        """Whether a topic was read to the ends of its partitions, as they were told last."""
        consumer = self._consumers[topic]
        for place in consumer.assignment():
            end = consumer.last_stable_offset(place)
            if end is None or await consumer.position(place) < end:
                return False
        return True

    async def so_far(self, topic: str) -> list[ConsumerRecord]:
        """The records of a topic that is being read, those of this moment included."""
        for records in (await self._consumers[topic].getmany(timeout_ms=100)).values():
            self._got[topic] += records
        return list(self._got[topic])

    async def committed(self) -> dict[int, int]:
        """The group's committed offset of each partition that has one."""
        return {partition: commit.offset for partition, commit in (await self.commits()).items()}

    async def commits(self) -> dict[int, Commit]:
        """What the group has committed of each partition that it has something of."""
        offsets = await self._admin.list_consumer_group_offsets(
            self.group, partitions=[TopicPartition(self.input, number) for number in range(self.partitions)]
        )
        return {place.partition: Commit(*offset) for place, offset in offsets.items() if offset.offset >= 0}

    async def ends(self) -> dict[int, int]:
        """The end of each partition of the input topic, markers of transactions included."""
        async with started(AIOKafkaConsumer(bootstrap_servers=self.bootstrap_servers)) as consumer:
            ends = await consumer.end_offsets([TopicPartition(self.input, number) for number in range(self.partitions)])
        return {place.partition: end for place, end in ends.items()}

    async def stop(self) -> None:
        """End every process, and remove the topics."""
        for process in self.processes:
            await process.kill()
        for consumer in self._consumers.values():
            await consumer.stop()
        await self._producer.stop()
        with contextlib.suppress(Exception):
            await self._admin.delete_topics([self.input, self.output, self.letters])
        await self._admin.close()


@contextlib.asynccontextmanager
async def make_rig(bootstrap_servers: str, folder: Path, partitions: int = 4) -> AsyncIterator[Rig]:
    """A rig whose topics do not exist yet."""
    writer = CaptureWriter(folder / "captures")
    async with LocalEndpoint([HostedEndpoint("model", {"blue": Echo()})], captures=writer) as endpoint:
        rig = Rig(bootstrap_servers, folder, endpoint, partitions)
        try:
            await rig.start()
            yield rig
        finally:
            await rig.stop()
            writer.close()


def source(record: ConsumerRecord) -> str:
    """Which event a result or dead letter is of."""
    place: bytes = dict(record.headers)["inference-source"]
    return place.decode()
