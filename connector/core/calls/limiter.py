"""Limiter: how many calls may be in flight, and how many bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from connector.core.reason import Reason


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """The right to have one call in flight: the bytes it was given for, and when it was taken, in seconds."""

    size: int
    started: float


class Limiter(Protocol):
    """Gives out slots; `finish` tells it how each call ended, so that it may change its limit.

    None of its methods block. Times are seconds of any clock that does not go back; sizes are bytes.
    """

    @property
    def limit(self) -> int:
        """The most calls in flight at this moment."""
        ...

    @property
    def in_flight(self) -> int:
        """The slots that are taken; above `limit` for a while after it shrank."""
        ...

    @property
    def bytes_in_flight(self) -> int:
        """The sizes of the slots that are taken."""
        ...

    @property
    def why(self) -> str:
        """Why the limit is what it is, in a sentence."""
        ...

    def free(self, size: int) -> bool:
        """Say whether a call of this size may start."""
        ...

    def start(self, size: int, now: float) -> Slot:
        """Take a slot; raises RuntimeError when none is free for this size."""
        ...

    def finish(self, slot: Slot, reason: Reason | None, now: float) -> None:
        """Give a slot back with the reason of the call's outcome, None for a call that was cancelled.

        Raises ValueError for a slot that is not taken.
        """
        ...


class FixedLimiter:
    """A Limiter whose limit is what the settings say.

    A call that is larger than the whole byte budget may start when it is alone: otherwise it could never start at all.
    """

    __slots__ = ("_max_bytes", "_taken", "bytes_in_flight", "limit")

    def __init__(self, max_in_flight: int, max_bytes: int) -> None:
        if max_in_flight < 1:
            raise ValueError(f"At least 1 call must be allowed in flight, not {max_in_flight}.")
        self.limit = max_in_flight
        self.bytes_in_flight = 0
        self._max_bytes = max_bytes
        self._taken: set[Slot] = set()

    @property
    def in_flight(self) -> int:
        """The slots that are taken."""
        return len(self._taken)

    @property
    def why(self) -> str:
        """Why the limit is what it is, in a sentence."""
        return f"The limit is {self.limit} calls because concurrency.max_in_flight says so."

    def free(self, size: int) -> bool:
        """Say whether a call of this size may start."""
        taken = len(self._taken)
        return taken < self.limit and (not taken or self.bytes_in_flight + size <= self._max_bytes)

    def start(self, size: int, now: float) -> Slot:
        """Take a slot; raises RuntimeError when none is free for this size."""
        if not self.free(size):
            raise RuntimeError(
                f"No slot is free for {size} bytes: {self.in_flight} of {self.limit} calls "
                f"and {self.bytes_in_flight} of {self._max_bytes} bytes are in flight."
            )
        slot = Slot(size, now)
        self._taken.add(slot)
        self.bytes_in_flight += size
        return slot

    def finish(self, slot: Slot, reason: Reason | None, now: float) -> None:
        """Give a slot back; raises ValueError for a slot that is not taken."""
        if slot not in self._taken:
            raise ValueError("This slot is not taken: it was given back before, or another limiter gave it.")
        self._taken.remove(slot)
        self.bytes_in_flight -= slot.size
