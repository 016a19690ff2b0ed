"""Harness: runs one scenario with real processes, and reports what it came to."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import psutil
from aiokafka.errors import KafkaError

from connector.local.endpoint import captures
from tests.chaos import checks
from tests.chaos.actions import act
from tests.chaos.checks import Answer, Kind, Problem, Sent
from tests.chaos.proxy import Proxy
from tests.chaos.running import Running
from tests.chaos.scenario import OVERSIZED, POISON, Scenario
from tests.integration.rig import make_rig, source, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from aiokafka.structs import ConsumerRecord

    from tests.chaos.broker import Broker

_SAMPLE = 0.2
"""Seconds between two looks at the processes' memory."""
_QUIET = 0.7
"""Seconds without a record after which no more are expected."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to; `happened` counts what was done to it, by the labels of steps."""

    name: str
    seed: int
    delivery: str
    events: int = 0
    results: int = 0
    dead_letters: int = 0
    repeated: int = 0
    happened: dict[str, int] = field(default_factory=dict)
    exits: int = 0
    peak_mebibytes: float = 0.0
    seconds: float = 0.0
    problems: tuple[Problem, ...] = ()

    def count(self, kind: Kind) -> int:
        """How many problems of a kind there are."""
        return sum(problem.kind is kind for problem in self.problems)


async def run(scenario: Scenario, broker: Broker, folder: Path) -> Report:
    """Run a scenario; what the processes log stays in `folder`, which must be empty."""
    started = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        rig = await stack.enter_async_context(make_rig(broker.direct, folder, scenario.partitions))
        links = {"endpoint": Proxy(int(rig.endpoint.url.rpartition(":")[2]))}
        if broker.proxy_port is not None:
            links["kafka"] = Proxy(broker.client_port, broker.proxy_port)
        for link in links.values():
            await stack.enter_async_context(link)
        this = Running(scenario, rig, broker, links)
        await _prepare(this)
        this.set_faults(scenario.faults)
        try:
            async with asyncio.TaskGroup() as starting:
                for _ in range(scenario.processes):
                    starting.create_task(this.start_process(wait=True))
            for step in scenario.steps:
                if step.first:
                    this.happened[step.label] += 1
                    await act(step, this)
            await _work(this)
            await _end(this)
        except* AssertionError as errors:
            this.problems += [Problem(Kind.STUCK, str(error)) for error in errors.exceptions]
        return await _report(this, started)


async def _prepare(this: Running) -> None:
    """Make the topics, and what makes a cluster special."""
    rig, scenario = this.rig, this.scenario
    for kind, name in this.topics.items():
        config = dict(scenario.topics.get(kind, {}))
        await rig.make_topics(name, config=config, replication=scenario.brokers)
    if scenario.brokers > 1:

        async def by_the_first() -> bool:
            rig.group = f"group-{uuid.uuid4().hex}"
            return await rig.coordinator() == 0

        # The first broker is the one that steps take away.
        await until(by_the_first, "a group that the first broker coordinates")
    if scenario.guarded:
        await this.broker.admit(rig)


async def _work(this: Running) -> None:
    """Produce, do what the steps say, and wait until every event is answered."""
    scenario, tasks = this.scenario, set[asyncio.Task[None]]()
    try:
        async with asyncio.timeout(scenario.expect.seconds):
            watching = [asyncio.create_task(_watch_answers(this)), asyncio.create_task(_watch_processes(this))]
            tasks.update(watching)
            feeding = asyncio.create_task(_feed(this))
            stepping = asyncio.create_task(_take_steps(this))
            tasks.update((feeding, stepping))
            await _all_done(feeding, stepping, watching)
            while not await _is_over(this):
                await asyncio.sleep(0.05)
                _raise_ended(watching)
    except TimeoutError:
        for number, process in enumerate(this.processes):
            reason = await process.get("/health/ready") if process.running else "not running"
            this.problems.append(Problem(Kind.STUCK, f"process {number}: {reason}"))
        text = (
            f"{len(this.answered)} of {scenario.events} events were answered in {scenario.expect.seconds:g} s, and "
            f"{await _lag(this)} are not committed"
        )
        this.problems.append(Problem(Kind.STUCK, text))
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        for link in this.links.values():
            link.restore()


async def _is_over(this: Running) -> bool:
    """Whether every event is answered, and the group knows: an event that is called again is not."""
    return this.produced >= this.scenario.events and await this.is_answered() and await _lag(this) == 0


async def _lag(this: Running) -> int | None:
    """How many events stand behind what the group has committed; None while the broker does not say."""
    try:
        committed, ends = await this.rig.committed(), await this.rig.ends()
    except KafkaError:
        return None
    return sum(end - committed.get(partition, 0) for partition, end in ends.items())


async def _all_done(
    feeding: asyncio.Task[None], stepping: asyncio.Task[None], watching: list[asyncio.Task[None]]
) -> None:
    """Wait for feed and steps; raise what any of the tasks raised."""
    waiting = {feeding, stepping}
    while waiting:
        done, _ = await asyncio.wait({*waiting, *watching}, return_when=asyncio.FIRST_COMPLETED)
        _raise_ended(done)
        waiting -= done


def _raise_ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _feed(this: Running) -> None:
    """Produce at the scenario's rate, so that every step meets events on their way."""
    scenario, events = this.scenario, this.scenario.make_events()
    chunk, started = 20, time.monotonic()
    for first in range(0, len(events), chunk):
        await asyncio.sleep(started + first / scenario.rate - time.monotonic())
        async with this.feeding:
            await this.rig.produce(events[first : first + chunk])
            this.produced += len(events[first : first + chunk])


async def _take_steps(this: Running) -> None:
    """Begin each step in its turn, and wait until all have ended."""
    async with asyncio.TaskGroup() as tasks:
        for step in this.scenario.steps:
            if step.first:
                continue
            while len(this.answered) < step.at * this.scenario.events:
                await asyncio.sleep(0.02)
            await asyncio.sleep(step.pause)
            this.happened[step.label] += 1
            tasks.create_task(act(step, this))


async def _watch_answers(this: Running) -> None:
    """Keep count of the events that are answered."""
    topics = {this.rig.output: 0, this.rig.letters: 0}
    for topic in topics:
        await this.rig.read(topic, 0)
    while True:
        for topic, known in topics.items():
            records = await this.rig.so_far(topic)
            this.answered.update(this.place_answered(record) for record in records[known:])
            topics[topic] = len(records)


async def _watch_processes(this: Running) -> None:
    """Note the most memory that each process had, and any that ended by itself."""
    while True:
        for number, process in enumerate(this.processes):
            lock = this.locks[f"process {number}"]
            if not process.running and not lock.locked() and number not in this.resting:
                this.resting.add(number)
                tail = process.lines()[-1500:]
                this.problems.append(Problem(Kind.UNCLEAN, f"process {number} ended by itself: {tail}"))
            with contextlib.suppress(psutil.Error):
                resident = psutil.Process(process.pid).memory_info().rss / 2**20
                this.peaks[number] = max(resident, this.peaks.get(number, 0.0))
        await asyncio.sleep(_SAMPLE)


async def _end(this: Running) -> None:
    """End every process in order."""
    await asyncio.gather(*[this.terminate(number) for number, process in enumerate(this.processes) if process.running])


async def _report(this: Running, started: float) -> Report:
    rig, scenario = this.rig, this.scenario
    results, letters = await rig.settled(rig.output, _QUIET), await rig.settled(rig.letters, _QUIET)
    lives = [*this.past, await this.read_input()]
    problems, repeated = [*this.problems, *_problems_of_processes(this)], 0
    for number, records in enumerate(lives):
        # Coordinates mean something within one life only.
        events = [_sent(record, scenario) for record in records]
        of_results, of_letters = (
            [_answer(record) for record in answers if this.life(record) == number] for answers in (results, letters)
        )
        repeated += checks.count_repeats(of_results, of_letters)
        problems += _problems(this, number, events, of_results, of_letters)
    problems += checks.repeats_are_bounded(repeated, scenario.repeats)
    if this.exits and all(one.code == 0 for one in this.exits):
        # Asked again, since a broker that has just come back may leave offsets out of its answer.
        with contextlib.suppress(AssertionError):
            await until(partial(_is_over, this), "the commits", 3.0)
        problems += checks.everything_is_committed(events, await rig.committed())
    return Report(
        name=scenario.name,
        seed=scenario.seed,
        delivery=scenario.delivery,
        events=sum(map(len, lives)),
        results=len(results),
        dead_letters=len(letters),
        repeated=repeated,
        happened=dict(this.happened),
        exits=len(this.exits),
        peak_mebibytes=max(this.peaks.values(), default=0.0),
        seconds=time.monotonic() - started,
        problems=tuple(problems),
    )


def _problems(
    this: Running, life: int, events: list[Sent], results: list[Answer], letters: list[Answer]
) -> Iterator[Problem]:
    scenario = this.scenario
    owed = [event for event in events if (life, event.place) not in this.excused]
    yield from checks.nothing_is_lost(owed, results, letters)
    yield from checks.answers_belong_to_their_events(events, results, letters)
    buried = list(checks.only_poison_is_dead_lettered(events, results, letters))
    if len(buried) > scenario.expect.buried:
        yield from buried
    yield from checks.first_results_are_in_order(events, results)
    yield from checks.ids_are_right(events, results, scenario.correlation)
    yield from checks.captures_tell_the_same(events, results, captures.read(this.rig.captures))


def _problems_of_processes(this: Running) -> Iterator[Problem]:
    yield from checks.exits_are_clean(this.exits, this.drain)
    yield from checks.memory_is_bounded(this.peaks, this.scenario.expect.mebibytes)


def _answer(record: ConsumerRecord) -> Answer:
    headers = dict(record.headers)
    return Answer(source(record), record.partition, record.offset, record.key, record.value, headers)


def _sent(record: ConsumerRecord, scenario: Scenario) -> Sent:
    value = record.value or b""
    oversized = scenario.oversized > 0 and len(value) > OVERSIZED
    return Sent(
        record.topic, record.partition, record.offset, record.key, record.value, POISON in value or oversized, oversized
    )
