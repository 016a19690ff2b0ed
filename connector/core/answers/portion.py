"""Answers: results and dead letters of one partition that wait for a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from connector.core.answers.outgoing import Outgoing
    from connector.core.epochs.ledger import Commit, Ledger


class Portion(NamedTuple):
    """What goes into one transaction: results and dead letters in the order of their events, and what it commits."""

    outgoings: list[Outgoing]
    commit: Commit


class Answers:
    """Results and dead letters of one epoch, by the offset of their event.

    A transaction commits an offset, so it takes the answers of a prefix: an answer waits here until every event that was
    delivered before its own is answered.
    """

    __slots__ = ("_by_offset", "ledger")

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._by_offset: dict[int, Outgoing] = {}

    def __len__(self) -> int:
        return len(self._by_offset)

    def add(self, outgoing: Outgoing) -> None:
        """Keep an answer; a dead letter takes the place of a result that was too large."""
        self._by_offset[outgoing.event.offset] = outgoing

    def take_back(self, outgoing: Outgoing) -> None:
        """Forget an answer that cannot be sent, unless another has taken its place."""
        if self._by_offset.get(outgoing.event.offset) is outgoing:
            del self._by_offset[outgoing.event.offset]

    def portion(self, most: int, most_bytes: int) -> Portion | None:
        """The answers of the longest answered prefix within these bounds, at least one; None when nothing is to commit.

        A position that the group does not know is committed alone, before any answer: what the group still has may be an
        earlier topic's, and could be taken for our own commit.
        """
        ledger, answers = self.ledger, self._by_offset
        if ledger.committed is None:
            return None if ledger.due is None else Portion([], ledger.due)
        taken: list[Outgoing] = []
        size, end = 0, ledger.next_offset
        for offset in ledger.unfinished_offsets():
            outgoing = answers.get(offset)
            if outgoing is not None:
                size += len(outgoing.value or b"")
            if outgoing is None or len(taken) >= most or (taken and size > most_bytes):
                end = offset
                break
            taken.append(outgoing)
        if taken and end is not None:
            return Portion(taken, ledger.commit_at(end))
        return None if ledger.due is None else Portion([], ledger.due)

    def settle(self, offset: int) -> list[Outgoing]:
        """Give out the answers below an offset that is committed, in order, and forget them."""
        settled = sorted(below for below in self._by_offset if below < offset)
        return [self._by_offset.pop(below) for below in settled]
