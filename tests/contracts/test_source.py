"""What every source promises to a worker, on a real broker, through its protocol alone."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import pytest

from connector.kafka import pair
from connector.telemetry.metrics import Metrics
from connector.telemetry.problems import Problem, Problems
from tests.integration.stage import Recorder, Stage, committed_is, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from connector.core.answers.outgoing import Outgoing
    from connector.core.event import Event
    from connector.kafka.source.protocol import Source
    from connector.settings import Settings

pytestmark = pytest.mark.integration


class Worker(Recorder):
    """Everything that a source meets in a process, but for the sink: it completes events itself."""

    def __init__(self) -> None:
        super().__init__()
        self.draining_until: float | None = None
        """When the last drain had to end, on the loop's clock."""
        self.drained_at = -math.inf
        self.delivered_at: dict[tuple[int, int], float] = {}
        """When an event came, by partition and offset."""

    def deliver(self, events: list[Event]) -> None:
        """Keep events, and complete them unless they are to be held."""
        assert len({event.ledger for event in events}) == 1, "the events of one partition"
        for event in events:
            self.delivered_at[event.ledger.partition, event.offset] = time.monotonic()
        super().deliver(events)

    async def drain(self, calls_until: float, published_until: float) -> None:
        """Complete what is held while the drain may last."""
        self.drains += 1
        assert calls_until <= published_until
        self.draining_until = published_until
        if self.draining is not None:
            await self.draining()
        self.drained_at = time.monotonic()

    def published(self, results: list[Outgoing]) -> None:
        """Nothing is published."""

    def buried(self, letters: list[Outgoing]) -> None:
        """Nothing is published."""

    def result_too_large(self, result: Outgoing, size: int) -> None:
        """Nothing is published."""


class Make(Protocol):
    """Makes a source that is not at work."""

    def __call__(self, settings: Settings, metrics: Metrics, problems: Problems, worker: Worker) -> Source:
        """A source that delivers to this worker, and commits."""
        ...


def kafka_source(settings: Settings, metrics: Metrics, problems: Problems, worker: Worker) -> Source:
    source, _ = pair.make(settings, metrics, problems, worker)
    return source


@pytest.fixture(params=[kafka_source])
def make(request: pytest.FixtureRequest) -> Make:
    """Each implementation."""
    implementation: Make = request.param
    return implementation


@pytest.fixture
async def stage(bootstrap_servers: str) -> AsyncIterator[Stage]:
    async with Stage.open(bootstrap_servers) as stage:
        yield stage


class AtWork:
    """A source at work, with the worker and the board that it has been given."""

    def __init__(self, make: Make, settings: Settings) -> None:
        self.worker = Worker()
        self.problems = Problems()
        self.source = make(settings, Metrics(time.monotonic), self.problems, self.worker)
        self._running = asyncio.create_task(self.source.run())

    @property
    def said(self) -> set[Problem]:
        """The problems that hold."""
        return {held.problem for held in self.problems.held}

    async def ready(self, partitions: int) -> None:
        """Wait until it has so many partitions, and nothing keeps it from its work."""
        await until(lambda: self.source.partitions == partitions and not self.problems.held, limit=30)

    async def end(self) -> None:
        """Leave the group, and end."""
        await self.source.stop(0.5, 2.0)
        self._running.cancel()
        await asyncio.wait([self._running])


@asynccontextmanager
async def at_work(make: Make, settings: Settings) -> AsyncIterator[AtWork]:
    """A source, until it has ended."""
    one = AtWork(make, settings)
    try:
        yield one
    finally:
        await one.end()


# -- events ------------------------------------------------------------------------------------------------------------


async def test_events_come_once_and_in_order_from_what_the_group_has_committed(stage: Stage, make: Make) -> None:
    await stage.create(partitions=2)
    for partition in (0, 1):
        await stage.produce(30, partition)
    await stage.commit(10)
    async with at_work(make, stage.settings()) as one:
        await until(lambda: len(one.worker.events) == 50)
        for partition in (0, 1):
            await stage.produce(5, partition)
        await until(lambda: len(one.worker.events) == 60)
        assert one.worker.offsets(0) == list(range(10, 35))
        assert one.worker.offsets(1) == list(range(35))


@pytest.mark.parametrize(("policy", "first"), [("earliest", 0), ("latest", 5)])
async def test_a_group_without_a_commit_starts_where_the_policy_says(
    stage: Stage, make: Make, policy: str, first: int
) -> None:
    await stage.create()
    await stage.produce(5)
    async with at_work(make, stage.settings(auto_offset_reset=policy)) as one:
        one.worker.hold = True
        await until(lambda: committed_is(stage, first))
        await stage.produce(2)
        await until(lambda: one.worker.offsets() == list(range(first, 7)))


async def test_nothing_is_fetched_while_nothing_is_consumed_and_the_gate_lets_it_go_on(
    stage: Stage, make: Make
) -> None:
    await stage.create()
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        await one.ready(partitions=1)
        one.worker.consuming = False
        one.source.gate()
        await stage.produce(5)
        await asyncio.sleep(1)
        assert one.worker.events == []
        assert not one.problems.held, "membership goes on"
        one.worker.consuming = True
        one.source.gate()
        await until(lambda: one.worker.offsets() == list(range(5)))


async def test_a_full_buffer_is_not_filled_further_and_what_becomes_free_is_filled(stage: Stage, make: Make) -> None:
    await stage.create()
    settings = stage.settings(auto_offset_reset="earliest")
    settings = settings.model_copy(update={"buffer": settings.buffer.model_copy(update={"max_events": 10})})
    async with at_work(make, settings) as one:
        await one.ready(partitions=1)
        one.worker.hold = True
        for _ in range(20):
            await stage.produce(1)
        await until(lambda: one.source.unfinished > 10)
        await stage.produce(50)
        await asyncio.sleep(1)
        full = one.source.unfinished
        assert full <= 20, "what one answer had brought is kept"
        one.worker.hold = False
        one.worker.complete(one.worker.events)
        one.source.gate()
        await until(lambda: one.worker.offsets() == list(range(70)))


# -- commits and numbers -----------------------------------------------------------------------------------------------


async def test_only_what_is_complete_with_all_before_it_is_committed(stage: Stage, make: Make) -> None:
    await stage.create()
    await stage.produce(6)
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        one.worker.hold = True
        await until(lambda: len(one.worker.events) == 6)
        events = one.worker.events
        one.worker.complete([events[0], events[1], events[3], events[5]])
        await until(lambda: committed_is(stage, 2))
        await asyncio.sleep(0.5)
        assert await stage.committed() == 2
        one.worker.complete([events[2]])
        await until(lambda: committed_is(stage, 4))
        one.worker.complete([events[4]])
        await until(lambda: committed_is(stage, 6))


async def test_the_numbers_are_those_of_what_is_not_complete(stage: Stage, make: Make) -> None:
    await stage.create(partitions=2)
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        await one.ready(partitions=2)
        one.worker.hold = True
        await stage.produce(4)
        await until(lambda: one.source.unfinished == 4)
        one.worker.complete([one.worker.events[0]])
        source = one.source
        assert (source.partitions, source.unfinished, source.owes) == (2, 3, True)
        assert source.bytes == sum(event.size for event in one.worker.events[1:])
        assert source.oldest() == {0: 1}
        await until(lambda: source.lag() == {0: 3, 1: 0})
        first = source.ages()
        await asyncio.sleep(0.1)
        assert source.ages()[0] >= first[0] + 0.1
        assert source.ages()[1] == 0
        one.worker.complete(one.worker.events)
        await until(lambda: source.lag() == {0: 0, 1: 0} and not source.owes)
        assert (source.unfinished, source.bytes, source.oldest()) == (0, 0, {})
        await until(lambda: source.commit_age < 1)


# -- the ends of epochs ------------------------------------------------------------------------------------------------


async def test_a_stop_drains_commits_and_leaves_the_partitions_to_the_others_at_once(stage: Stage, make: Make) -> None:
    await stage.create()
    await stage.produce(4)
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        one.worker.hold = True
        await until(lambda: len(one.worker.events) == 4)

        async def complete_some() -> None:
            await asyncio.sleep(0.2)
            one.worker.complete(one.worker.events[:3])

        one.worker.draining = complete_some
        await one.source.stop(2.0, 2.0)
        assert one.worker.drains == 1
        assert one.worker.forgotten == 1
        assert await stage.committed() == 3
        assert one.source.partitions == 0
        assert await stage.members() == 0
        async with at_work(make, stage.settings()) as other:
            # Well within the session of a member that had only gone.
            await until(lambda: other.worker.offsets() == [3], limit=4)
    assert one.worker.offsets() == [0, 1, 2, 3]


async def test_a_stop_ends_in_time_however_long_the_drain_may_last(stage: Stage, make: Make) -> None:
    await stage.create()
    await stage.produce(2)
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        one.worker.hold = True
        await until(lambda: len(one.worker.events) == 2)

        async def to_the_end() -> None:
            assert one.worker.draining_until is not None
            await asyncio.sleep(one.worker.draining_until - time.monotonic())

        one.worker.complete(one.worker.events[:1])
        one.worker.draining = to_the_end
        started = time.monotonic()
        await one.source.stop(1.0, 1.0)
        assert time.monotonic() - started < 2.5
        assert await stage.committed() == 1
        one.worker.complete(one.worker.events)
        await asyncio.sleep(0.5)
        assert await stage.committed() == 1, "a completion after the end of its epoch"


async def test_a_revoked_partition_is_drained_and_committed_before_another_member_reads_it(
    stage: Stage, make: Make
) -> None:
    await stage.create(partitions=2)
    for partition in (0, 1):
        await stage.produce(5, partition)
    settings = stage.settings(auto_offset_reset="earliest")
    async with at_work(make, settings) as one:
        one.worker.hold = True
        await until(lambda: len(one.worker.events) == 10)
        held = list(one.worker.events)

        async def complete_some() -> None:
            await asyncio.sleep(0.5)
            one.worker.complete([event for event in held if event.offset < 3])

        one.worker.draining = complete_some
        async with at_work(make, settings) as other:
            await other.ready(partitions=1)
            await until(lambda: len(other.worker.events) == 2)
            assert one.worker.drains == 1
            (moved,) = {event.ledger.partition for event in other.worker.events}
            assert other.worker.offsets(moved) == [3, 4]
            assert min(other.worker.delivered_at.values()) > one.worker.drained_at
            # Whoever kept its partition reads the rest of it again too.
            await until(lambda: one.worker.offsets(1 - moved) == [0, 1, 2, 3, 4, 3, 4])
            one.worker.complete(held)
            await asyncio.sleep(0.5)
            assert await stage.committed(1 - moved) == 3, "a completion after the end of its epoch"


async def test_partitions_that_were_lost_are_forgotten_without_drain_and_without_commit(
    stage: Stage, make: Make
) -> None:
    await stage.create()
    await stage.produce(5)
    # Two members of one name throw each other out, and who was thrown out has lost its partitions.
    settings = stage.settings(auto_offset_reset="earliest", group_instance_id="pod-0", commit_interval="1m")
    async with at_work(make, settings) as one:
        one.worker.hold = True
        await until(lambda: len(one.worker.events) == 5)
        one.worker.complete(one.worker.events)
        async with at_work(make, settings) as other:
            await until(lambda: one.worker.forgotten, limit=30)
            assert one.worker.drains == 0
            assert await stage.committed() is None
            await until(lambda: Problem.RIVAL in one.said | other.said)


# -- problems ----------------------------------------------------------------------------------------------------------


async def test_a_missing_topic_is_a_problem_until_it_comes_and_is_not_created(stage: Stage, make: Make) -> None:
    async with at_work(make, stage.settings()) as one:
        looking = asyncio.create_task(one.source.find_topics())
        await until(lambda: Problem.TOPIC_MISSING in one.said)
        assert stage.topic not in await stage.admin.list_topics()
        assert not looking.done()
        await stage.create(partitions=3)
        found = await asyncio.wait_for(looking, 10)
        assert {name: topic.partitions for name, topic in found.items()} == {
            stage.topic: 3,
            stage.output: 1,
            stage.letters: 1,
        }
        await one.ready(partitions=3)


async def test_a_topic_that_is_deleted_is_a_problem_until_it_is_there_again_and_read_from_its_beginning(
    stage: Stage, make: Make
) -> None:
    await stage.create()
    await stage.produce(3)
    async with at_work(make, stage.settings(auto_offset_reset="earliest")) as one:
        await until(lambda: committed_is(stage, 3))
        await stage.admin.delete_topics([stage.topic])
        await until(lambda: Problem.TOPIC_GONE in one.said)
        await stage.create_again()
        await stage.produce(2)
        await until(lambda: one.worker.offsets() == [0, 1, 2, 0, 1])
        await until(lambda: not one.problems.held)


async def test_it_waits_for_its_assignment_and_says_so_and_none_at_all_is_no_problem(stage: Stage, make: Make) -> None:
    await stage.create()
    async with at_work(make, stage.settings()) as one:
        assert one.said == {Problem.NOT_JOINED}
        await one.ready(partitions=1)
        async with at_work(make, stage.settings()) as other:
            await until(
                lambda: (
                    not (one.problems.held or other.problems.held)
                    and one.source.partitions + other.source.partitions == 1
                ),
                limit=30,
            )


async def test_a_kafka_that_is_away_is_a_problem_and_a_stop_ends_in_time_all_the_same(stage: Stage, make: Make) -> None:
    async with at_work(make, stage.settings(bootstrap_servers="127.0.0.1:1")) as one:
        await until(lambda: Problem.KAFKA_UNREACHABLE in one.said)
        started = time.monotonic()
        await one.source.stop(1.0, 1.0)
        assert time.monotonic() - started < 2.5
