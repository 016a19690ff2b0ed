"""Position: where an epoch starts that has no commit, and where one goes on that cannot be read where it stood.

The policy is ours, not aiokafka's: its own jumps in silence, or raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from connector.core.epochs.ledger import Commit

NOWHERE = 2**63 - 1
"""Where we stood on a topic that was created again: beyond any offset of the topic that has its name."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where to read; without an `offset` a person must act."""

    offset: int | None
    commit: Commit | None = None
    """What the group has committed there, if that is about this topic."""
    another_epoch: bool = False
    """Whether another epoch begins there: what was delivered before says nothing about these offsets."""
    lost: int = 0
    """How many events retention took that were not delivered."""
    recreated: bool = False
    """Whether the topic was created again."""


@dataclass(frozen=True, slots=True)
class PositionPolicy:
    """What `kafka.auto_offset_reset` means for a partition."""

    reset: Literal["earliest", "latest", "fail"]

    def first(self, begin: int, end: int, *, known_group: bool) -> Position:
        """Where to start in a partition that the group has never committed; it knows the topic if it has another one."""
        if known_group:
            # A new partition of a topic that the group works on: its first events are as good as any.
            return Position(begin)
        if self.reset == "fail":
            return Position(None)
        return Position(begin if self.reset == "earliest" else end)

    def go_on(self, stood: int, committed: Commit | None, begin: int, end: int) -> Position:
        """Where to go on in a partition that cannot be read at `stood`, and has the events from `begin` to before `end`."""
        if begin <= stood <= end:
            return Position(stood)
        if self.reset == "fail":
            if committed is None or not begin <= committed.offset <= end:
                return Position(None)
            return Position(committed.offset, committed, another_epoch=True)
        if stood < begin:
            # What was delivered before is still ours to answer, so the epoch goes on.
            return Position(begin, lost=begin - stood)
        return Position(begin, another_epoch=True, recreated=True)
