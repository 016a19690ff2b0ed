"""Protocol of a sink: what a worker needs of whatever publishes the answers, and what that needs of the pipeline.

No client library is known here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.core.answers.outgoing import Outgoing
    from connector.kafka.topic import Topic


class Sink(Protocol):
    """Publishes results and dead letters, and says to an Upstream when they are published for good.

    What shares a key is published in the order in which it was given. Nothing is published for partitions that are not ours
    any more. Whatever keeps the sink from its work is set on the board of problems, and cleared there by the sink: no
    method raises it.
    """

    def learn(self, topics: Mapping[str, Topic]) -> None:
        """Take the sizes that the topics allow. Called before `run`."""
        ...

    async def run(self) -> None:
        """Publish until cancelled, whatever becomes of Kafka; it never ends by itself."""
        ...

    def publish(self, results: list[Outgoing]) -> None:
        """Queue results, in order; returns at once."""
        ...

    def bury(self, dead_letters: list[Outgoing]) -> None:
        """Queue dead letters, in order; returns at once."""
        ...

    @property
    def pending(self) -> int:
        """How many results and dead letters are not published for good."""
        ...

    async def flushed(self) -> None:
        """Wait until everything that can be published is; blocks for as long as Kafka does not take it."""
        ...

    def discard(self) -> None:
        """Forget what is queued and not on its way: its epochs have ended; returns at once."""
        ...


class Upstream(Protocol):
    """What a sink needs of the pipeline before it; all of it returns at once."""

    def published(self, results: list[Outgoing]) -> None:
        """The broker has these results for good."""
        ...

    def buried(self, letters: list[Outgoing]) -> None:
        """The broker has these dead letters for good."""
        ...

    def result_too_large(self, result: Outgoing, size: int) -> None:
        """A result's topic can never take it; `size` in bytes."""
        ...
