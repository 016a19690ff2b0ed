"""Actions: what each kind of step does to a run; another kind needs its dataclass in scenario.py and a function here."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from functools import partial, singledispatch
from typing import TYPE_CHECKING

from tests.chaos.scenario import (
    Access,
    AddPartitions,
    BrokerRestart,
    Configure,
    Expire,
    Freeze,
    Kill,
    Link,
    Recreate,
    Scale,
    SetFaults,
    Step,
    Terminate,
)
from tests.integration.rig import until

if TYPE_CHECKING:
    from tests.chaos.running import Running
    from tests.integration.rig import Rig


@singledispatch
async def act(step: Step, run: Running) -> None:
    """Do what a step says, and return when it is over."""
    raise NotImplementedError(f"nobody knows how to {step}")


@act.register(Kill)
async def _kill(step: Kill, run: Running) -> None:
    async with run.locks[f"process {step.process}"]:
        process = run.processes[step.process]
        await process.kill()
        await asyncio.sleep(step.seconds)
        await process.start()


@act.register(Terminate)
async def _terminate(step: Terminate, run: Running) -> None:
    async with run.locks[f"process {step.process}"]:
        await run.terminate(step.process)
        await run.processes[step.process].start()


@act.register(Freeze)
async def _freeze(step: Freeze, run: Running) -> None:
    async with run.locks[f"process {step.process}"]:
        process = run.processes[step.process]
        process.signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(step.seconds)
        finally:
            process.signal(signal.SIGCONT)


@act.register(BrokerRestart)
async def _restart_broker(step: BrokerRestart, run: Running) -> None:
    async with run.outage("broker"):
        await run.broker.restart(step.seconds, clean=step.clean)


@act.register(Link)
async def _spoil_link(step: Link, run: Running) -> None:
    link = run.links[step.to]
    async with run.outage(step.to):
        match step.how:
            case "delay":
                link.delay(step.amount)
            case "drop":
                link.drop()
            case "cut":
                link.cut()
            case "forget":
                link.forget()
        await asyncio.sleep(step.seconds)
        link.restore()


@act.register(AddPartitions)
async def _add_partitions(step: AddPartitions, run: Running) -> None:
    await run.rig.add_partitions(step.count)


@act.register(Scale)
async def _scale(step: Scale, run: Running) -> None:
    for _ in range(step.by):
        await run.start_process(wait=False)
    for _ in range(-step.by):
        number = max(set(range(len(run.processes))) - run.resting)
        run.resting.add(number)
        async with run.locks[f"process {number}"]:
            await run.terminate(number)


@act.register(SetFaults)
async def _set_faults(step: SetFaults, run: Running) -> None:
    run.set_faults(step.faults)


@act.register(Configure)
async def _configure(step: Configure, run: Running) -> None:
    await run.rig.configure(run.topics[step.topic], step.config)


@act.register(Recreate)
async def _recreate(step: Recreate, run: Running) -> None:
    rig = run.rig
    async with run.feeding:
        if step.answered:
            await until(run.is_answered, "answers to all that was produced")
        records = await run.read_input()
        run.excused |= {run.place(record) for record in records} - run.answered
        await rig.delete_topics(rig.input)
        await until(partial(_is_created, rig), "the name of the deleted topic")
        run.past.append(records)
        run.beginnings.append(run.produced)


async def _is_created(rig: Rig) -> bool:
    with contextlib.suppress(AssertionError):
        await rig.make_topics(rig.input)
        return True
    return False


@act.register(Expire)
async def _expire(step: Expire, run: Running) -> None:
    async with run.feeding:
        before = {number: max(end - step.left, 0) for number, end in (await run.rig.ends()).items()}
        records = [record for record in await run.read_input() if record.offset < before[record.partition]]
        run.excused |= {run.place(record) for record in records} - run.answered
        await run.rig.delete_records(before)


@act.register(Access)
async def _change_access(step: Access, run: Running) -> None:
    await run.broker.let_write(run.topics[step.topic], granted=step.granted)
