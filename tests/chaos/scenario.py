"""Scenario: what is produced, what goes wrong and when, and what is expected, all of it data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from connector.local.faults import Fault

Delivery = Literal["at_least_once", "exactly_once"]
Settings = Mapping[str, Mapping[str, Any]]

PROMPT: Settings = {
    "kafka": {
        "session_timeout": "4s",
        "rebalance_timeout": "6s",
        "request_timeout": "3s",
        "revoke_drain": "1s",
        "metadata_max_age": "500ms",
        "commit_interval": "100ms",
    },
    "endpoint": {"connect_timeout": "2s"},
    "batch": {"max_events": 8, "linger": "2ms"},
    "concurrency": {"max_in_flight": 8},
    "buffer": {"max_uncommitted": 100},
    "shutdown": {"drain": "6s"},
}
"""Time limits that a scenario can wait for, and bounds that few events reach."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something that happens once: when `at` of the events have been answered, and `pause` seconds later.

    Steps begin in their order; one that lasts does not hold up the next, unless both are about the same thing.
    """

    at: float = 0.0
    pause: float = 0.0

    @property
    def label(self) -> str:
        """What it counts as in a report."""
        return type(self).__name__

    @property
    def loses(self) -> bool:
        """Whether a process may lose partitions without a chance to commit."""
        return False


@dataclass(frozen=True, slots=True)
class Kill(Step):
    """SIGKILL for a process, which is started again `seconds` later."""

    process: int = 0
    seconds: float = 0.0

    @property
    def loses(self) -> bool:
        """Nothing is committed after a SIGKILL."""
        return True


@dataclass(frozen=True, slots=True)
class Terminate(Step):
    """SIGTERM for a process, which is started again once it has ended."""

    process: int = 0

    @property
    def loses(self) -> bool:
        """A call that outlasts the drain leaves answered events behind it uncommitted."""
        return True


@dataclass(frozen=True, slots=True)
class Freeze(Step):
    """SIGSTOP for a process, and SIGCONT `seconds` later."""

    process: int = 0
    seconds: float = 1.0

    @property
    def loses(self) -> bool:
        """The group gives its partitions away when it sleeps for longer than its session."""
        return True


@dataclass(frozen=True, slots=True)
class BrokerRestart(Step):
    """The broker goes, by SIGKILL unless `clean`, and comes back `seconds` later."""

    seconds: float = 0.0
    clean: bool = False

    @property
    def loses(self) -> bool:
        """The coordinator may come back after the session has ended."""
        return True


@dataclass(frozen=True, slots=True)
class Link(Step):
    """A link becomes slow (`amount` seconds), silent, broken or forgetful, and is good again `seconds` later."""

    to: Literal["kafka", "endpoint"] = "kafka"
    how: Literal["delay", "drop", "cut", "forget"] = "drop"
    seconds: float = 1.0
    amount: float = 0.1

    @property
    def label(self) -> str:
        """Which link, and what becomes of it."""
        return f"{self.to} {self.how}"

    @property
    def loses(self) -> bool:
        """A member that the coordinator does not hear of loses its partitions."""
        return self.to == "kafka" and self.how != "delay"


@dataclass(frozen=True, slots=True)
class AddPartitions(Step):
    """The input topic gets more partitions."""

    count: int = 1


@dataclass(frozen=True, slots=True)
class Scale(Step):
    """So many processes more, or fewer: the last ones end in order."""

    by: int = 1

    @property
    def loses(self) -> bool:
        """As with `Terminate`."""
        return True


@dataclass(frozen=True, slots=True)
class SetFaults(Step):
    """The endpoint's faults are replaced; poison stays poison."""

    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True)
class Configure(Step):
    """Settings of a topic, which may make it refuse what it is sent."""

    topic: Literal["input", "output", "letters"] = "letters"
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Expect:
    """Bounds on what comes out.

    `repeats` is how many answers may be repeated for each step that loses partitions and for each process, at least
    once; none may under exactly-once. `buried` is how many good events may be dead-lettered, by a model that rejects
    them all. `seconds` is how long everything but start and end may take, `mebibytes` the memory of a process.
    """

    repeats: int = 100
    buried: int = 0
    seconds: float = 60.0
    mebibytes: float = 200.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run: `events` at `rate` a second over `partitions` and `keys`, a share of them `poison` or `keyless`.

    `padding` is how many bytes each value has beyond its number.

    `without` names protections that are switched off in the processes (tests/chaos/unprotected.py).
    """

    name: str
    seed: int = 1
    delivery: Delivery = "at_least_once"
    events: int = 400
    rate: float = 100.0
    partitions: int = 4
    keys: int = 40
    keyless: float = 0.0
    poison: float = 0.0
    padding: int = 1
    processes: int = 2
    settings: Settings = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    steps: tuple[Step, ...] = ()
    expect: Expect = Expect()
    without: tuple[str, ...] = ()

    @property
    def correlation(self) -> str:
        """The mode of the InferenceId."""
        return str(self.settings.get("correlation", {}).get("mode", "key"))

    @property
    def repeats(self) -> int:
        """How many answers may be repeated in all."""
        if self.delivery == "exactly_once":
            return 0
        return self.expect.repeats * self.processes * sum(step.loses for step in self.steps)

    def connector_settings(self) -> dict[str, dict[str, Any]]:
        """The settings of its processes."""
        merged = {section: dict(values) for section, values in PROMPT.items()}
        if self.delivery == "exactly_once":
            merged["kafka"] |= {"delivery": "exactly_once", "transaction_timeout": "10s"}
        for section, values in self.settings.items():
            merged[section] = {**merged.get(section, {}), **values}
        return merged

    def make_events(self) -> list[tuple[bytes | None, bytes]]:
        """Keys and values in the order of production; each value begins with its number, so it proves whose it is."""
        dice = random.Random(f"events of {self.seed}")
        made: list[tuple[bytes | None, bytes]] = []
        for number in range(self.events):
            key = None if dice.random() < self.keyless else b"key-%03d" % dice.randrange(self.keys)
            made.append((key, b"%d,%s" % (number, POISON if dice.random() < self.poison else b"7" * self.padding)))
        return made


POISON = b"poison"
"""What a payload holds that the model refuses."""
