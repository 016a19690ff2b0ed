"""Protocol of a source: what a worker needs of whatever brings the events, and what that needs of the pipeline.

No client library is known here. `tests/contracts/test_source.py` holds every implementation to these promises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.core.event import Event
    from connector.kafka.topic import Topic


class Source(Protocol):
    """Brings the events of our partitions to a Downstream, and commits what is complete, unless the sink does.

    The events of a partition come in the order of their offsets, from what the group has committed. Whatever keeps the
    source from its work is set on the board of problems, and cleared there by the source: no method raises it.
    """

    async def find_topics(self) -> Mapping[str, Topic]:
        """The topics of the settings by name, once all of them exist; it creates none.

        Blocks for as long as Kafka is away or a topic is missing. Called before `run`.
        """
        ...

    async def run(self) -> None:
        """Bring events until cancelled, whatever becomes of Kafka; it ends by itself only after `stop`.

        Never blocks the event loop for longer than the Downstream takes for some thousand events.
        """
        ...

    async def stop(self, drain: float, limit: float) -> None:
        """Drain, commit what is complete, and leave the group, so that its other members have the partitions at once.

        Blocks for `drain` seconds at most until the epochs have ended, and for `limit` seconds at most to leave the group,
        also when Kafka is away. No event comes afterwards, and `run` is to be cancelled.
        """
        ...

    def gate(self) -> None:
        """Look again at what may be fetched: room was made, or consuming has stopped or goes on.

        Returns at once, and may be called while events are delivered.
        """
        ...

    def state(self) -> dict[str, object]:
        """What it is doing, for a person who must find out why nothing moves; it can be written as JSON."""
        ...

    @property
    def owes(self) -> bool:
        """Whether there are events to work on: delivered and not complete, or known to be readable and not fetched."""
        ...

    @property
    def partitions(self) -> int:
        """How many partitions are ours."""
        ...

    @property
    def unfinished(self) -> int:
        """How many events are delivered and not complete."""
        ...

    @property
    def bytes(self) -> int:
        """Bytes of the unfinished events, and of their results that wait for the broker."""
        ...

    @property
    def commit_age(self) -> float:
        """Seconds since nothing was left to commit, also where the sink commits."""
        ...

    def lag(self) -> dict[int, float]:
        """How many events of each of our partitions are not complete, as far as its end is known."""
        ...

    def ages(self) -> dict[int, float]:
        """Seconds since the delivery of each partition's oldest unfinished event; 0 where there is none."""
        ...

    def oldest(self) -> dict[int, float]:
        """The offset of each partition's oldest unfinished event, where there is one."""
        ...


class Downstream(Protocol):
    """What a source needs of the pipeline behind it."""

    @property
    def consuming(self) -> bool:
        """Whether events may be fetched: not halted, not guarded, not draining."""
        ...

    @property
    def growth(self) -> float:
        """Bytes that results take for each byte of their events."""
        ...

    def deliver(self, events: list[Event]) -> None:
        """Take the events of one partition; returns at once."""
        ...

    async def drain(self, calls_until: float, published_until: float) -> None:
        """Make no further call, and wait until those in flight have ended and their results are acknowledged.

        Blocks until these two moments of the loop's clock at most; nothing is fetched meanwhile, and the other members of
        the group wait.
        """
        ...

    def forget(self) -> None:
        """Drop every event, since its epoch has ended, drained or not; returns at once."""
        ...
