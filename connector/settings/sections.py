"""The sections that shape the path of an event: from its batch to its result, and the process around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from connector.settings.section import Section, Text
from connector.settings.units import Count, Duration, PositiveDuration, Size, upper, whole, write_duration

if TYPE_CHECKING:
    from collections.abc import Iterator

_SERVICE_LIMIT = 6 * 2**20
"""The largest body that InvokeEndpoint takes, in bytes, unless AWS raised the account's quota."""
_DRAIN_RESERVE = 5.0
"""Seconds of `shutdown.drain` that are kept for publishing and the commit."""


class Result(Section):
    """What is written for an event."""

    envelope: bool = Field(
        default=False,
        description="Whether a result's value is a JSON object around the prediction, instead of the prediction alone.",
    )
    timestamp: Literal["now", "event"] = Field(
        default="now", description="The timestamp of a result: when it was made, or the event's own."
    )


class Batch(Section):
    """When a batch is closed."""

    max_events: Count = Field(default=64, description="The most events in one call.")
    max_bytes: Size = Field(
        default=5 * 2**20, description="The largest body of a call; a single event above it is dead-lettered."
    )
    linger: Duration = Field(
        default=0.01,
        description="How long a batch waits for more events after its oldest; 0 closes it as soon as a slot is free.",
    )
    allow_over_6_mib: bool = Field(
        default=False, description="Whether max_bytes may be above the 6 MiB that SageMaker takes by default."
    )

    def broken(self) -> Iterator[str]:
        """Say when the service would refuse the largest batches."""
        if self.max_bytes > _SERVICE_LIMIT and not self.allow_over_6_mib:
            yield (
                "max_bytes: is above 6MiB, the largest body that SageMaker takes; lower it, or set "
                "batch.allow_over_6_mib: true when your endpoint takes more"
            )


class Correlation(Section):
    """How a call gets its InferenceId."""

    mode: Literal["key", "batch"] = Field(
        default="key",
        description="Whether a batch holds events of one key, which is its InferenceId, "
        "or mixes keys under an id made of its coordinates.",
    )


class Concurrency(Section):
    """How many calls run at a time."""

    max_in_flight: Count = Field(default=64, description="The most calls in flight at a time.")
    max_bytes: Size = Field(default=128 * 2**20, description="The most bytes of bodies and responses in flight.")


class Buffer(Section):
    """How much the process holds between delivery and completion."""

    max_events: Count = Field(default=20_000, description="The most unfinished events, shared by the partitions.")
    max_bytes: Size = Field(default=256 * 2**20, description="The most bytes of unfinished events.")
    max_uncommitted: Count = Field(
        default=50_000, description="How far a partition may read beyond its first unfinished event, in events."
    )


class Retry(Section):
    """How long to wait before a batch is called again."""

    initial: PositiveDuration = Field(
        default=0.1, description="The longest wait before the first retry; it doubles with each."
    )
    max: PositiveDuration = Field(default=20.0, description="The longest wait between retries.")
    max_age: PositiveDuration | None = Field(
        default=None,
        description="The age at which an event that still waits for an answer is dead-lettered; null retries for ever.",
    )

    def broken(self) -> Iterator[str]:
        """Say when the waits would have to shrink."""
        if self.initial > self.max:
            yield f"initial: must not be above retry.max ({write_duration(self.max)})"


class Bisect(Section):
    """How bad events are found in a batch that the model refused."""

    max_calls: Annotated[int, BeforeValidator(whole), Field(ge=0)] = Field(
        default=64, description="The most calls spent on halving one batch; after them its events go one by one."
    )


class DeadLetter(Section):
    """When events are given up, and when so many are that consuming stops."""

    max_ratio: Annotated[float, BeforeValidator(whole), Field(gt=0, le=1)] = Field(
        default=0.5, description="The share of dead letters in the window above which consuming stops."
    )
    window: Count = Field(default=200, description="How many of the last finished events that share is counted over.")
    timeouts: bool = Field(
        default=False, description="Whether a single event whose call timed out three times is dead-lettered."
    )


class Shutdown(Section):
    """How the process ends."""

    drain: PositiveDuration = Field(
        default=25.0,
        description="How long the process may take to end; calls in flight get it less 5s, which publishing and the "
        "commit need.",
    )

    def broken(self) -> Iterator[str]:
        """Say when the drain leaves calls no time at all."""
        if self.drain <= _DRAIN_RESERVE:
            yield "drain: must be above 5s, which are kept for publishing and the commit"


class Web(Section):
    """Where the health, metrics and status pages are."""

    host: Text = Field(default="0.0.0.0", description="The address that the pages listen on.")
    port: Annotated[int, BeforeValidator(whole), Field(ge=1, le=65535)] = Field(
        default=6066, description="The port that the pages listen on."
    )


class Log(Section):
    """What is logged, and how."""

    level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(upper)] = Field(
        default="INFO", description="The least severe level that is logged."
    )
    format: Literal["json", "text"] = Field(
        default="json", description="Whether a log line is a JSON object, or text for people."
    )
    payloads: bool = Field(
        default=False, description="Whether the log lines about dead letters may carry the event's payload."
    )
