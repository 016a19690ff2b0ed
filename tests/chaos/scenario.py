"""Scenario: what is produced, what goes wrong and when, and what is expected, all of it data."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from connector.local.endpoint.faults import Fault

Delivery = Literal["at_least_once", "exactly_once"]
Topic = Literal["input", "output", "letters"]
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

    Steps begin in their order; one that lasts does not hold up the next, unless both are about the same thing. With
    `first` it is over before the first event is produced.
    """

    at: float = 0.0
    pause: float = 0.0
    first: bool = False

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
    """The broker, or the first of them, goes, by SIGKILL unless `clean`, and comes back `seconds` later."""

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

    topic: Topic = "letters"
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recreate(Step):
    """The input topic is deleted and created again, between two events; `answered`: once all before are answered.

    What is not answered by then may go with the topic.
    """

    answered: bool = True

    @property
    def loses(self) -> bool:
        """What was called of the topic before a process knows that it is another is called again."""
        return True


@dataclass(frozen=True, slots=True)
class Expire(Step):
    """Retention takes all but the last `left` events of each partition of the input topic; they need no answers."""

    left: int = 10


@dataclass(frozen=True, slots=True)
class Access(Step):
    """Writes to a topic are denied to the processes, or `granted`; for a scenario that is `guarded`."""

    topic: Topic = "output"
    granted: bool = False

    @property
    def label(self) -> str:
        """Which of the two."""
        return "Grant" if self.granted else "Deny"


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

    `padding` is how many bytes each value has beyond its number. A share of the values, `oversized`, has `OVERSIZED`
    bytes more: their results must be refused by the output topic, for which `topics` or a step says so. `topics` are
    the settings that topics have from the beginning. The cluster has so many `brokers`, each topic a copy on each of
    them, and is reached through a link only when it is one that is not `guarded`; a guarded one lets a process write
    only what it may.

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
    oversized: float = 0.0
    topics: Mapping[Topic, Mapping[str, str]] = field(default_factory=dict)
    brokers: int = 1
    guarded: bool = False
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
            value = b"%d,%s" % (number, POISON if dice.random() < self.poison else b"7" * self.padding)
            # No draw without any, so that a seed's events are the same with and without the field.
            oversized = self.oversized > 0 and dice.random() < self.oversized
            made.append((key, value + b"7" * OVERSIZED if oversized else value))
        return made


POISON = b"poison"
"""What a payload holds that the model refuses."""
OVERSIZED = 9_000
"""How many bytes a value has more whose result is too large for its topic."""
