"""Running: a scenario while it is run: what steps act upon, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connector.local.endpoint.faults import Fault
from tests.chaos.checks import Exit, Problem
from tests.chaos.scenario import POISON, Scenario, Topic
from tests.integration.rig import Process, Rig, source, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aiokafka.structs import ConsumerRecord

    from tests.chaos.broker import Broker
    from tests.chaos.proxy import Proxy

Place = tuple[int, str]
"""Which life of the input topic an event belongs to, and its coordinates there."""

_POISONED = Fault("model_error", payload=POISON, status=400, message="this payload is poison")


@dataclass(slots=True)
class Running:
    """A scenario that is being run: what steps act upon, and what they leave behind."""

    scenario: Scenario
    rig: Rig
    broker: Broker
    links: dict[str, Proxy]
    produced: int = 0
    """How many events the input topic has been given, in all of its lives."""
    feeding: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while events are produced."""
    beginnings: list[int] = field(default_factory=lambda: [0])
    """The number of the first event of each life of the input topic."""
    past: list[list[ConsumerRecord]] = field(default_factory=list)
    """What the input topic held in each of its former lives."""
    answered: set[Place] = field(default_factory=set)
    excused: set[Place] = field(default_factory=set)
    """Events that were taken from the input topic before they were answered."""
    processes: list[Process] = field(default_factory=list)
    resting: set[int] = field(default_factory=set)
    """Processes that are meant not to run."""
    exits: list[Exit] = field(default_factory=list)
    happened: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    outages: int = 0
    """How many parts are out of reach at the moment."""
    peaks: dict[int, float] = field(default_factory=dict)
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    @property
    def topics(self) -> dict[Topic, str]:
        """The names of the topics."""
        return {"input": self.rig.input, "output": self.rig.output, "letters": self.rig.letters}

    def life(self, record: ConsumerRecord) -> int:
        """The life of the input topic that an event or an answer belongs to, by its number; without one the last."""
        number = (record.value or b"").partition(b",")[0]
        return bisect_right(self.beginnings, int(number)) - 1 if number.isdigit() else len(self.beginnings) - 1

    def place(self, record: ConsumerRecord) -> Place:
        """Where an event is."""
        return self.life(record), f"{record.topic}/{record.partition}/{record.offset}"

    def place_answered(self, record: ConsumerRecord) -> Place:
        """Where the event is that an answer says it is of."""
        return self.life(record), source(record)

    async def is_answered(self) -> bool:
        """Whether all that was produced is answered, or needs no answer."""
        return len(self.answered | self.excused) >= self.produced

    async def read_input(self) -> list[ConsumerRecord]:
        """What the input topic has held since it was created last."""
        return await self.rig.read(self.rig.input, sum((await self.rig.ends()).values()))

    async def start_process(self, *, wait: bool) -> None:
        """Start one process more."""
        scenario = self.scenario
        settings = scenario.connector_settings()
        kafka = self.broker.client_settings()
        if "kafka" in self.links:
            kafka["bootstrap_servers"] = f"127.0.0.1:{self.links['kafka'].port}"
        settings["kafka"] = {**kafka, **settings["kafka"]}
        settings["endpoint"] = {"url": f"http://127.0.0.1:{self.links['endpoint'].port}", **settings["endpoint"]}
        program = ("tests.chaos.unprotected", ",".join(scenario.without)) if scenario.without else ("connector",)
        self.processes.append(await self.rig.connector(settings, wait=wait, program=program))

    async def terminate(self, number: int) -> None:
        """Ask a process to end, wait until it has, and note how it did."""
        process = self.processes[number]

        async def listens() -> bool:
            return (await process.get("/health/live"))[0] != 0

        # A signal before its handlers are there would end it as it ends any program.
        await until(listens, f"process {number} to have started")
        calm, started = not self.outages, time.monotonic()
        process.signal(signal.SIGTERM)
        try:
            code = await process.ended(self.drain + 5)
        except TimeoutError:
            code = None
            await process.kill()
        self.exits.append(Exit(number, code, time.monotonic() - started, calm and not self.outages))

    @contextlib.asynccontextmanager
    async def outage(self, what: str) -> AsyncIterator[None]:
        """One part at a time is out of reach only once."""
        async with self.locks[what]:
            self.outages += 1
            try:
                yield
            finally:
                self.outages -= 1

    @property
    def drain(self) -> float:
        """The processes' `shutdown.drain`, in seconds."""
        return float(str(self.scenario.connector_settings()["shutdown"]["drain"]).removesuffix("s"))

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Let the endpoint go wrong like this, and refuse poison."""
        self.rig.endpoint.faults = [*faults, _POISONED]
