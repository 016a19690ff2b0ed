"""Held: dead letters that the guard keeps from their topic."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector.core.answers.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter with what its log line tells: how often it was called, by which id at last, and the problem."""

    outgoing: Outgoing
    attempts: int
    inference_id: str | None
    problem: str


class Held:
    """Dead letters in the order in which they came, until a probe says whether their events are to blame."""

    __slots__ = ("_letters",)

    def __init__(self) -> None:
        self._letters: deque[Letter] = deque()

    def __len__(self) -> int:
        return len(self._letters)

    def hold(self, letter: Letter) -> None:
        """Keep a dead letter."""
        self._letters.append(letter)

    def release(self) -> Letter:
        """Give the first one out; raises IndexError when there is none."""
        return self._letters.popleft()

    def forget(self) -> None:
        """Keep none: their epochs have ended, and the next owner finds out again."""
        self._letters.clear()
