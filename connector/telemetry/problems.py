"""Problems: everything that keeps the process from being ready, declared once, and the board of what holds at present.

Each is set and cleared by the one part that knows of it, so that nobody takes back what somebody else has said.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from string import Formatter
from typing import Self

import structlog

from connector.telemetry.log_events import LogEvent


class Problem(StrEnum):
    """Why the process is not ready, the gravest first: its name, a sentence with fields, and what a person does.

    `told_by` is the log event that tells of it: the board logs the source's, the others are logged by whoever sets them,
    who knows more than the sentence.
    """

    sentence: str
    remedy: str
    told_by: LogEvent
    gravity: int

    def __new__(cls, name: str, sentence: str, remedy: str, told_by: LogEvent = LogEvent.SOURCE_PROBLEM) -> Self:
        """Make a member; the earlier it is declared, the graver it is."""
        problem = str.__new__(cls, name)
        problem._value_ = name
        problem.sentence = sentence
        problem.remedy = remedy
        problem.told_by = told_by
        problem.gravity = len(cls.__members__)
        return problem

    STOPPING = (
        "stopping",
        "the process drains, and ends",
        "Nothing: it ends within shutdown.drain.",
        LogEvent.STOPPING,
    )
    STARTING = (
        "starting",
        "the process begins to work",
        "Nothing: it takes a moment.",
        LogEvent.STARTING,
    )
    RIVAL = (
        "rival",
        "another process uses kafka.group_instance_id {name}: give each process a name of its own, or leave it out",
        "Give each process a kafka.group_instance_id of its own, or leave it out; the two throw each other out.",
    )
    ACCESS_DENIED = (
        "access_denied",
        "Kafka at {servers} denies access: {error}; trying again",
        "Mend kafka.security, or allow the user what the sentence names.",
    )
    KAFKA_UNREACHABLE = (
        "kafka_unreachable",
        "Kafka at {servers} cannot be reached: {error}; trying again",
        "Look at kafka.bootstrap_servers, at the network, and at the brokers.",
    )
    TOPIC_MISSING = (
        "topic_missing",
        "topic {topics} does not exist at {servers}: create it, and work begins",
        "Create the topic, or mend its name in the settings.",
    )
    TOPIC_GONE = (
        "topic_gone",
        "topic {topic} does not exist any more: create it, and work goes on",
        "Create the topic again; its events are read from the beginning.",
    )
    CONSUMER_FAILED = (
        "consumer_failed",
        "Kafka at {servers}: {error}; trying again",
        "Look at the brokers, at the network, and at what the user may do with the group.",
    )
    CONSUMER_BROKE = (
        "consumer_broke",
        "the Kafka consumer failed: {error}; replacing it",
        "Report it with the traceback of the log line 'source_failed'.",
    )
    FETCH_FAILS = (
        "fetch_fails",
        "events of {topic} cannot be read: {error}; trying again",
        "Look at the brokers, and at what the user may do with topic and group.",
    )
    TRANSACTIONS_CLOSED = (
        "transactions_closed",
        "the transactions of {group} cannot begin: {error}; trying again",
        "Look at the brokers, and at what the user may do with the transactional ids that begin with the group's name.",
    )
    OFFSETS_UNREADABLE = (
        "offsets_unreadable",
        "the offsets of {group} cannot be read: {error}; trying again",
        "Look at the brokers, and at what the user may do with the group.",
    )
    POSITIONS_BROKE = (
        "positions_broke",
        "no position was found: {error}; trying again",
        "Report it with the traceback of the log line 'source_failed'.",
    )
    NO_COMMIT = (
        "no_commit",
        (
            "group {group} has no committed offset for {partition}, and kafka.auto_offset_reset is fail: commit one, or "
            "set earliest or latest"
        ),
        "Commit an offset for the group, or set kafka.auto_offset_reset to earliest or latest.",
    )
    POSITION_GONE = (
        "position_gone",
        (
            "{partition} has events {begin} to {end}, but not what we stood at, and kafka.auto_offset_reset is fail: "
            "commit an offset that exists, or set earliest or latest"
        ),
        "Commit an offset that exists, or set kafka.auto_offset_reset to earliest or latest.",
    )
    UNREADABLE_BATCH = (
        "unreadable_batch",
        (
            "a batch cannot be read: {places}; it is fetched again every {seconds:g}s and never skipped: mend it at the "
            "broker, or delete the partition's records up to its end"
        ),
        "Mend the batch at the broker, or delete the partition's records up to its end; other partitions go on.",
    )
    HALTED = (
        "halted",
        "{reason}: {message}",
        "Mend the settings or the access that the sentence names; the endpoint is probed, and work goes on by itself.",
        LogEvent.HALTED,
    )
    SIGNATURE_REFUSED = (
        "signature_refused",
        (
            "the service refuses the signature of every call: {message}; look at this machine's clock, at endpoint.region, "
            "and at the credentials"
        ),
        "Set the machine's clock, make endpoint.region that of the endpoint, or renew the credentials; nothing is lost.",
        LogEvent.SIGNATURE_REFUSED,
    )
    GUARDED = (
        "guarded",
        "{hint}",
        "Do what the sentence says; the endpoint is probed, and work goes on by itself.",
        LogEvent.GUARD_TRIPPED,
    )
    PUBLISH_FAILS = (
        "publish_fails",
        "publishing to {topic} fails: {error}",
        "Look at the topic, at its brokers, and at what the user may do with it; nothing is lost meanwhile.",
        LogEvent.PUBLISH_FAILED,
    )
    TRANSACTION_FAILS = (
        "transaction_fails",
        "a transaction of {partition} fails: {error}",
        "Look at the topics, at their brokers, and at what the user may do with them; nothing is lost meanwhile.",
        LogEvent.PUBLISH_FAILED,
    )
    CUT_OFF = (
        "cut_off",
        "cut off from Kafka: the group coordinator does not answer",
        "Look at the brokers, the network, and the files of kafka.security, which the next connection reads again.",
    )
    NOT_JOINED = (
        "not_joined",
        "waiting for the first assignment of partitions",
        "Nothing, if it is soon over; else look at the group's other members, one of which may take long to drain.",
        LogEvent.NOT_READY,
    )
    STUCK = (
        "stuck",
        (
            "nothing has moved for {seconds:.0f}s although there is work; the log line 'stuck' has the state of every "
            "part, and a restart loses nothing"
        ),
        "Keep the log line 'stuck', restart the process, and report it.",
        LogEvent.STUCK,
    )

    @property
    def fields(self) -> tuple[str, ...]:
        """What the sentence is completed with."""
        return tuple(field for _, field, _, _ in Formatter().parse(self.sentence) if field)


@dataclass(frozen=True, slots=True)
class Held:
    """A problem that holds; `of` tells those of one kind apart, like the topic or the partition that has it."""

    problem: Problem
    of: str
    sentence: str


class Problems:
    """The problems of a process that hold at present."""

    def __init__(self) -> None:
        self._held: dict[tuple[Problem, str], Held] = {}
        self._log = structlog.get_logger("connector.problems")

    @property
    def held(self) -> list[Held]:
        """What holds, the gravest first, and of one kind what was set first."""
        return sorted(self._held.values(), key=attrgetter("problem.gravity"))

    @property
    def gravest(self) -> Held | None:
        """The first of what holds; None when nothing does."""
        return next(iter(self.held), None)

    def holds(self, problem: Problem, of: str = "", /) -> bool:
        """Whether it holds."""
        return (problem, of) in self._held

    def set(self, problem: Problem, of: str = "", /, **fields: object) -> bool:
        """It holds, with these fields; True when that is news, because it did not hold, or with others."""
        held = Held(problem, of, problem.sentence.format(**fields))
        if self._held.get((problem, of)) == held:
            return False
        self._held[problem, of] = held
        if problem.told_by is LogEvent.SOURCE_PROBLEM:
            self._log.warning(LogEvent.SOURCE_PROBLEM, reason=problem.value, problem=held.sentence)
        return True

    def clear(self, problem: Problem, of: str = "", /) -> None:
        """It does not hold."""
        if self._held.pop((problem, of), None) is not None and problem.told_by is LogEvent.SOURCE_PROBLEM:
            self._log.info(LogEvent.SOURCE_RECOVERED, reason=problem.value)
