"""Mix: a scenario of faults and signals that a seed chooses."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from connector.local.endpoint.faults import Fault
from tests.chaos.scenario import (
    AddPartitions,
    BrokerRestart,
    Expect,
    Freeze,
    Kill,
    Link,
    Scale,
    Scenario,
    Step,
    Terminate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.chaos.scenario import Delivery

_FAULTS = (
    "throttle",
    "throttle_untyped",
    "too_many_requests",
    "model_not_ready",
    "service_unavailable",
    "internal_dependency",
    "internal_failure",
    "reset",
    "truncate",
)
_SESSION = 4.0
"""Seconds of the session in the scenario's settings."""


def mix(seed: int, delivery: Delivery) -> Scenario:
    """The scenario of a seed: the same for the same seed, and for both deliveries."""
    dice = random.Random(f"mix {seed}")
    processes = dice.choice([1, 2, 2, 3])
    partitions = dice.choice([1, 4, 4, 8])
    events = dice.randrange(300, 700)
    return Scenario(
        name="mix",
        seed=seed,
        delivery=delivery,
        events=events,
        rate=events / 5,
        partitions=partitions,
        keys=dice.choice([5, 40, 200]),
        keyless=dice.choice([0.0, 0.1]),
        poison=dice.choice([0.0, 0.01, 0.05]),
        processes=processes,
        settings={
            "correlation": {"mode": dice.choice(["key", "batch"])},
            "batch": {"max_events": dice.choice([1, 4, 16])},
            "endpoint": {"read_timeout": "2s"},
        },
        faults=_faults(dice),
        steps=_steps(dice, processes),
        expect=Expect(repeats=40, seconds=90.0),
        without=("read_timeout_floor",),
    )


def _faults(dice: random.Random) -> tuple[Fault, ...]:
    faults = [Fault("delay", rate=0.5, seconds=0.03), Fault("delay", rate=0.05, seconds=0.4)]
    faults += [Fault(kind, rate=dice.uniform(0.02, 0.15)) for kind in dice.sample(_FAULTS, dice.randrange(1, 4))]
    if dice.random() < 0.3:
        faults.append(Fault("hang", rate=0.02, times=5))
    return tuple(faults)


def _steps(dice: random.Random, processes: int) -> tuple[Step, ...]:
    def process() -> int:
        return dice.randrange(processes)

    kinds: list[tuple[float, Callable[[float], Step]]] = [
        (6, lambda at: Kill(at=at, process=process(), seconds=dice.choice([0.0, 0.5]))),
        (3, lambda at: Terminate(at=at, process=process())),
        (2, lambda at: Freeze(at=at, process=process(), seconds=dice.choice([0.5, _SESSION + 1.5]))),
        (3, lambda at: Link(at=at, to="kafka", how="drop", seconds=dice.choice([1.0, _SESSION + 1.5]))),
        (3, lambda at: Link(at=at, to="kafka", how="cut", seconds=dice.choice([0.0, 1.0]))),
        (1, lambda at: Link(at=at, to="kafka", how="forget", seconds=0.1)),
        (2, lambda at: Link(at=at, to="kafka", how="delay", seconds=1.5, amount=0.1)),
        (2, lambda at: Link(at=at, to="endpoint", how="cut", seconds=dice.choice([0.0, 1.0]))),
        (2, lambda at: Link(at=at, to="endpoint", how="drop", seconds=1.0)),
        (1, lambda at: BrokerRestart(at=at, seconds=0.5, clean=dice.random() < 0.5)),
        (1, lambda at: AddPartitions(at=at, count=dice.choice([1, 3]))),
        (1, lambda at: Scale(at=at, by=1)),
    ]
    moments = sorted(dice.uniform(0.05, 0.9) for _ in range(dice.randrange(2, 5)))
    weights = [weight for weight, _ in kinds]
    return tuple(make(at) for at, (_, make) in zip(moments, dice.choices(kinds, weights, k=len(moments)), strict=True))
