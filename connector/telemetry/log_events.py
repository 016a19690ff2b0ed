"""LogEvent: every event that the connector logs with its fields, declared once."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACE = ("topic", "partition", "offset")

FIELDS: Final[Mapping[str, str]] = {
    "topic": "The topic of the event or the partition; of publish_failed at least once, the topic that is written to.",
    "partition": "The partition's number.",
    "offset": "The offset of the event, or the one that reading begins at or stood at.",
    "key": "The event's key as text, its stray bytes with backslashes.",
    "inference_id": "The InferenceId of the call; null when there was none.",
    "batch_id": "The number of the batch in this process.",
    "attempt": "How many calls there were with it.",
    "reason": "The reason, one of those below; of not_ready, source_problem and source_recovered the problem; of "
    "position_chosen the setting kafka.auto_offset_reset.",
    "error": "What failed: the type, or what the library or the broker says of it.",
    "events": "How many events the call had, or were left.",
    "exception": "The traceback.",
    "lost": "How many events were deleted.",
    "outcome": "The outcome, one of those below.",
    "part": "The part of the process: source, pipeline, sink or problems.",
    "partitions": "How many partitions this process has, or had before they were taken away.",
    "payload": "The event's value, with log.payloads alone.",
    "pending": "How many results and dead letters the broker has not acknowledged.",
    "pipeline": "The state of batches, calls and held dead letters.",
    "problem": "What is wrong and what to do, in a sentence.",
    "seconds": "For how long that has been so.",
    "server": "The host and port of a broker.",
    "settings": "Every setting, secrets hidden.",
    "signal": "The signal's name.",
    "source": "The state of the consumer and of each partition.",
    "state": "What that part is doing.",
    "version": "The version of the connector.",
}
"""What each field of a line says, whichever event the line is about."""


class LogEvent(StrEnum):
    """What a log line is about, and the fields that it has."""

    sentence: str
    """What happened."""
    fields: tuple[str, ...]
    """What every line of it says, by names of FIELDS."""
    sometimes: tuple[str, ...]
    """What a line of it says where it is known or wanted."""

    def __new__(
        cls, value: str, sentence: str, fields: tuple[str, ...] = (), sometimes: tuple[str, ...] = ()
    ) -> LogEvent:
        member = str.__new__(cls, value)
        member._value_ = value
        member.sentence = sentence
        member.fields = fields
        member.sometimes = sometimes
        return member

    STARTING = "starting", "The process starts with these settings.", ("settings", "version")
    ADVICE = "advice", "A setting works, but costs more or does less than it should.", ("problem",)
    READY = "ready", "Events are consumed."
    NOT_READY = "not_ready", "No events are consumed, for the reason given.", ("reason", "problem")
    DESCRIPTORS_SCARCE = (
        "descriptors_scarce",
        "The process has most of the files and connections open that it may.",
        ("problem",),
    )
    STOPPING = "stopping", "The process drains, and ends."
    CRASHED = "crashed", "A part of the process ended by a fault of ours; the process ends too.", ("error", "exception")
    STOPPED = "stopped", "The process has drained."
    ENDED_BY_FORCE = "ended_by_force", "Another signal ended the process before its drain.", ("signal",)
    STATE = "state", "What a part of the process is doing, which SIGUSR1 asks for.", ("part", "state")
    PARTITIONS_ASSIGNED = "partitions_assigned", "The group gave this process partitions.", ("partitions",)
    PARTITIONS_REVOKED = (
        "partitions_revoked",
        "The group takes partitions away in order; their drain begins.",
        ("partitions",),
    )
    PARTITIONS_LOST = (
        "partitions_lost",
        "The group gave the partitions away while this process was not heard of.",
        ("partitions",),
    )
    PARTITION_NEW = (
        "partition_new",
        "The input topic has a partition that the group has no offset for; it is read from its beginning.",
        _PLACE,
    )
    REBALANCE_FAILED = "rebalance_failed", "A partition could not be given up in order.", ("exception",)
    POSITION_CHOSEN = (
        "position_chosen",
        "A partition without a committed offset starts where kafka.auto_offset_reset says.",
        (*_PLACE, "reason"),
    )
    LOST_TO_RETENTION = (
        "lost_to_retention",
        "Events were deleted by the topic's retention before they were read.",
        (*_PLACE, "lost"),
    )
    TOPIC_RECREATED = (
        "topic_recreated",
        "The topic was deleted and created again, or its offsets went backwards.",
        ("topic", "partition"),
    )
    HEADER_NAME_REPLACED = (
        "header_name_replaced",
        "A header's name is not UTF-8: it is shown with backslashes from here on. Said once for each partition.",
        _PLACE,
    )
    SOURCE_FAILED = (
        "source_failed",
        "The consumer failed in a way that has no sentence of its own, and is replaced.",
        ("exception",),
    )
    SOURCE_PROBLEM = "source_problem", "Kafka cannot be read; the connector tries on.", ("reason", "problem")
    SOURCE_RECOVERED = "source_recovered", "A problem of reading Kafka is over.", ("reason",)
    SERVER_FAILED = (
        "server_failed",
        "A server of kafka.bootstrap_servers does not let a client in; the others are asked, and it is again later.",
        ("error", "server"),
    )
    SECURITY_RENEWED = (
        "security_renewed",
        "A file of kafka.security has changed: a client read them again to open a connection. Each client says it.",
    )
    SECURITY_UNREADABLE = (
        "security_unreadable",
        "A file of kafka.security has changed and cannot be used; a client goes on with what it had read before.",
        ("problem",),
    )
    COMMIT_FAILED = "commit_failed", "Offsets could not be committed; they are tried again.", ("error",)
    COMMIT_REFUSED = (
        "commit_refused",
        "The group refused a commit, because it has given the partitions away.",
        ("error",),
    )
    PUBLISH_FAILED = (
        "publish_failed",
        "Kafka did not take results or dead letters; they are sent again by another producer.",
        ("topic", "error", "pending"),
        ("partition",),
    )
    FENCED = (
        "fenced",
        "Another producer has our transactional id, or a transaction took too long; goes on while the partition is ours.",
        ("topic", "partition"),
    )
    CALL_FAILED = (
        "call_failed",
        "A call failed, and its events are called again; said once in some seconds for each reason.",
        ("batch_id", "attempt", "reason", "events", "outcome", "problem"),
    )
    CALL_BROKE = (
        "call_broke",
        "A fault of the connector itself while it made a call; the events are called again.",
        ("inference_id", "batch_id", "exception"),
    )
    DRAIN_INCOMPLETE = (
        "drain_incomplete",
        "A drain ended before everything was acknowledged; the next owner reads the rest again.",
        ("pending",),
    )
    LEFT_UNCOMMITTED = (
        "left_uncommitted",
        "Partitions were given up with results or dead letters published that no commit covers; they may be repeated.",
        ("events",),
    )
    DEAD_LETTERED = (
        "dead_lettered",
        "An event was given up, for the reason given.",
        (*_PLACE, "key", "inference_id", "attempt", "reason", "problem"),
        ("payload",),
    )
    STUCK = (
        "stuck",
        "There is work that nothing holds up, and nothing has moved for too long; the line has the state of every part.",
        ("pending", "pipeline", "seconds", "source"),
    )
    HALTED = "halted", "Consuming stopped because of settings or access.", ("reason", "problem")
    SIGNATURE_REFUSED = (
        "signature_refused",
        "For more than a minute the service has refused the signature of every call.",
        ("problem", "seconds"),
    )
    GUARD_TRIPPED = "guard_tripped", "Consuming stopped because too many events were dead-lettered.", ("problem",)
    RESUMED = "resumed", "Consuming goes on."
