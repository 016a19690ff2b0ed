"""Stage: an input topic, a consumer group, and the sources that work on them within a test."""

from __future__ import annotations

import asyncio
import inspect
import math
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import GroupCoordinatorNotAvailableError

from connector.core.epochs.lease import Lease
from connector.kafka import clients, repairs
from connector.kafka.sink.outbox import Outbox
from connector.kafka.sink.output_topic import OutputTopic
from connector.kafka.source.membership import Membership
from connector.kafka.source.source import KafkaSource
from connector.settings import Settings, parse
from connector.telemetry.metrics import Metrics, Stopwatch
from connector.telemetry.problems import Problem, Problems
from tests.integration import administration
from tests.integration.clients import started

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    import pytest

    from connector.core.answers.outgoing import Outgoing
    from connector.core.epochs.ledger import Commit
    from connector.core.event import Event
    from connector.kafka.source.commits import Committer

_LIMITS = {
    "session_timeout": "6s",
    "rebalance_timeout": "10s",
    "revoke_drain": "1s",
    "request_timeout": "4s",
    "metadata_max_age": "500ms",
    "commit_interval": "100ms",
}
"""Time limits that a test can wait for."""


async def until(condition: Callable[[], Any], limit: float = 15.0) -> None:
    """Wait until a condition holds; what it returns may be a coroutine. Raises AssertionError after `limit` seconds."""
    deadline = time.monotonic() + limit
    while True:
        holds = condition()
        if inspect.iscoroutine(holds):
            holds = await holds
        if holds:
            return
        assert time.monotonic() < deadline, f"not within {limit:g} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.02)


def endless_lease() -> Lease:
    """The lease of an owner that nobody questions."""
    lease = Lease(math.inf)
    lease.renew(0.0)
    return lease


def make_outbox(
    settings: Settings,
    topic: str,
    acknowledged: Callable[[list[Outgoing]], None],
    too_large: Callable[[Outgoing, int], Outgoing | None] = lambda *_: None,
    lease: Lease | None = None,
) -> Outbox:
    """An outbox that is not at work yet, for as long as the lease holds; without one, for ever."""
    lease = lease or endless_lease()
    return Outbox(
        OutputTopic(topic, too_large),
        partial(clients.producer, settings, lease),
        acknowledged=acknowledged,
        lease=lease,
        busy=Stopwatch(),
        problems=Problems(),
        log=structlog.get_logger("test"),
    )


def said(problems: Problems, problem: Problem) -> str | None:
    """What is said of a problem; None while it does not hold."""
    return next((held.sentence for held in problems.held if held.problem is problem), None)


async def committed_is(stage: Stage, offset: int | None, partition: int = 0) -> bool:
    """Whether this is what the group has committed."""
    return await stage.committed(partition) == offset


class Recorder:
    """A downstream that keeps what it is given, and completes it at once unless it is to `hold` it."""

    def __init__(self) -> None:
        self.consuming = True
        self.growth = 0.0
        self.hold = False
        self.events: list[Event] = []
        self.drains = 0
        self.forgotten = 0
        self.draining: Callable[[], Awaitable[None]] | None = None
        """What a drain waits for."""

    def deliver(self, events: list[Event]) -> None:
        """Keep events."""
        self.events += events
        if not self.hold:
            self.complete(events)

    async def drain(self, calls_until: float, published_until: float) -> None:
        """Count the drain, and wait for what it is to wait for."""
        self.drains += 1
        if self.draining is not None:
            await self.draining()

    def forget(self) -> None:
        """Count the end of epochs."""
        self.forgotten += 1

    def complete(self, events: list[Event]) -> None:
        """Mark events complete."""
        for event in events:
            event.ledger.complete(event)

    def offsets(self, partition: int = 0) -> list[int]:
        """The offsets of what came, in that order."""
        return [event.offset for event in self.events if event.ledger.partition == partition]


class Gate:
    """Holds up the reading of committed offsets while it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = asyncio.Event()
        self.waiting = 0
        """How often they were asked for."""
        self._read = repairs.committed
        monkeypatch.setattr(repairs, "committed", self._committed)

    async def _committed(
        self, consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, Commit | None]:
        self.waiting += 1
        await self.open.wait()
        return await self._read(consumer, partitions)


class Working:
    """A source at work, and the recorder behind it."""

    def __init__(self, settings: Settings, recorder: Recorder | None = None) -> None:
        self.recorder = recorder or Recorder()
        self.metrics = Metrics(time.monotonic)
        self.problems = Problems()
        self.membership = Membership(settings.kafka, self.problems)
        self.source = KafkaSource(
            settings, self.membership, self.metrics, self.problems, self.recorder, self.committer(settings)
        )
        self._task = asyncio.create_task(self.source.run())

    def committer(self, settings: Settings) -> Committer | None:
        """What commits in the source's stead."""
        return None

    @property
    def consumer(self) -> AIOKafkaConsumer:
        """The consumer of the moment."""
        assert self.source.epochs.consumer is not None
        return self.source.epochs.consumer

    @property
    def coordinator(self) -> Any:
        """The consumer's membership."""
        return self.consumer._coordinator

    @property
    def partitions(self) -> set[int]:
        """The partitions that have a position."""
        return {ledger.partition for ledger in self.source.epochs.ledgers.values() if not ledger.positioning}

    @property
    def problem(self) -> str | None:
        """The gravest problem, in a sentence; None while all is well."""
        gravest = self.problems.gravest
        return None if gravest is None else gravest.sentence

    @property
    def joined(self) -> bool:
        """Whether the group has given it an assignment."""
        return not self.problems.holds(Problem.NOT_JOINED)

    def count(self, name: str) -> float:
        """The value of a counter."""
        return self.metrics.registry.get_sample_value(f"connector_{name}_total") or 0.0

    async def pause(self) -> None:
        """Stop consuming, and wait until no fetch is under way that could notice anything."""
        self.recorder.consuming = False
        await until(self.consumer.paused)
        await until(lambda: not self.consumer._fetcher._in_flight)

    async def stop(self) -> None:
        """Leave the group, and end."""
        await self.source.stop(0.5, 2.0)
        self._task.cancel()
        await asyncio.wait([self._task])


class Stage:
    """An input topic with `partitions`, a group without commits, and what a test does with them."""

    def __init__(self, servers: str, admin: AIOKafkaAdminClient, producer: AIOKafkaProducer) -> None:
        name = uuid.uuid4().hex[:12]
        self.servers = servers
        self.admin = admin
        self.group = f"group-{name}"
        self.topic, self.output, self.letters = (f"{label}-{name}" for label in ("input", "output", "letters"))
        self.stack = AsyncExitStack()
        self._producer = producer
        self._made: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def open(cls, servers: str) -> AsyncIterator[Stage]:
        """A stage without topics, cleared when it closes."""
        async with AsyncExitStack() as opened:
            admin = await opened.enter_async_context(started(AIOKafkaAdminClient(bootstrap_servers=servers)))
            producer = await opened.enter_async_context(
                started(AIOKafkaProducer(bootstrap_servers=servers, metadata_max_age_ms=500))
            )
            stage = cls(servers, admin, producer)
            opened.push_async_callback(stage._clear)
            async with stage.stack:
                yield stage

    async def _clear(self) -> None:
        if self._made:
            await self.admin.delete_topics(list(self._made))

    async def create(self, partitions: int = 1) -> None:
        """Create the topics that are missing."""
        wanted = {self.topic: partitions, self.output: 1, self.letters: 1}
        await administration.create_topics(
            self.admin, {name: count for name, count in wanted.items() if name not in self._made}
        )
        self._made |= set(wanted)

    async def create_again(self) -> None:
        """Delete the input topic, and create another of its name."""
        await self.admin.delete_topics([self.topic])
        self._made.discard(self.topic)
        async with asyncio.timeout(10):
            while True:
                # The name is taken until the deletion is through.
                response = await self.admin.create_topics([NewTopic(self.topic, 1, 1)])
                if response.topic_errors[0][1] == 0:
                    break
                await asyncio.sleep(0.05)
        self._made.add(self.topic)

    async def add_partitions(self, total: int) -> None:
        """Let the input topic have `total` partitions."""
        await administration.add_partitions(self.admin, self.topic, total)

    async def configure(self, topic: str, config: dict[str, str]) -> None:
        """Change settings of a topic."""
        await administration.configure(self.admin, topic, config)

    async def delete_records(self, before: int) -> None:
        """Let the input topic begin at an offset, as retention does."""
        await self.admin.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(before)})

    async def produce(self, count: int, partition: int = 0) -> None:
        """Add events to the input topic."""
        async with asyncio.timeout(15):
            while partition not in (await self._producer.partitions_for(self.topic)):
                await self._producer.client.force_metadata_update()
            futures = [await self._producer.send(self.topic, b"%d" % n, partition=partition) for n in range(count)]
            await asyncio.gather(*futures)

    async def committed(self, partition: int = 0) -> int | None:
        """What the group has committed, as the broker tells an administrator."""
        tp = TopicPartition(self.topic, partition)
        async with asyncio.timeout(15):
            while True:
                # A broker that was just started makes the topic of all offsets when it is first asked for a coordinator.
                with suppress(GroupCoordinatorNotAvailableError):
                    answer = await self.admin.list_consumer_group_offsets(self.group, partitions=[tp])
                    if tp in answer:
                        offset = answer[tp].offset
                        return None if offset < 0 else offset
                await asyncio.sleep(0.02)

    async def commit(self, offset: int, partition: int = 0) -> None:
        """Commit as a person does whose tool resets the offsets of a group without members."""
        member = AIOKafkaConsumer(bootstrap_servers=self.servers, group_id=self.group, enable_auto_commit=False)
        async with started(member) as consumer:
            tp = TopicPartition(self.topic, partition)
            consumer.assign([tp])
            await asyncio.wait_for(consumer.commit({tp: offset}), 10)

    async def members(self) -> int:
        """How many members the group has."""
        response = (await self.admin.describe_consumer_groups([self.group]))[0]
        _, _, _, _, _, members, *_ = response.groups[0]
        return len(members)

    def settings(self, **kafka: object) -> Settings:
        """Settings with short time limits; durations as they are written."""
        own = {
            "bootstrap_servers": self.servers,
            "group_id": self.group,
            "input_topic": self.topic,
            "output_topic": self.output,
            "dead_letter_topic": self.letters,
        }
        return parse({"kafka": own | _LIMITS | kafka})

    def work(self, settings: Settings | None = None) -> Working:
        """Start a source; it stops with the stage."""
        working = Working(settings or self.settings())
        self.stack.push_async_callback(working.stop)
        return working

    async def worker(self, settings: Settings | None = None) -> Working:
        """Start a source, and wait until its partitions have positions."""
        working = self.work(settings)
        await until(lambda: working.problem is None)
        await until(lambda: all(not ledger.positioning for ledger in working.source.epochs.ledgers.values()))
        return working
