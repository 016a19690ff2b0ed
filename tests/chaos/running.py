"""Running: a scenario while it is run: what steps act upon, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connector.local.faults import Fault
from tests.chaos.checks import Exit, Problem
from tests.chaos.scenario import POISON, Scenario
from tests.integration.rig import Process, Rig, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tests.chaos.broker import Broker
    from tests.chaos.proxy import Proxy

_POISONED = Fault("model_error", payload=POISON, status=400, message="this payload is poison")


@dataclass(slots=True)
class Running:
    """A scenario that is being run: what steps act upon, and what they leave behind."""

    scenario: Scenario
    rig: Rig
    broker: Broker
    links: dict[str, Proxy]
    answered: set[str] = field(default_factory=set)
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

    async def start_process(self, *, wait: bool) -> None:
        """Start one process more."""
        scenario = self.scenario
        settings = scenario.connector_settings()
        settings["kafka"] = {"bootstrap_servers": f"127.0.0.1:{self.links['kafka'].port}", **settings["kafka"]}
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
