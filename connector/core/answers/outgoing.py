"""Outgoing: a result or a dead letter on its way to the broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from connector.core.event import Event
    from connector.core.reason import Reason


class Outgoing(NamedTuple):
    """What will be one record of an output topic; `timestamp` in milliseconds, `reason` only of a dead letter.

    `headers` is a list because aiokafka's record builder takes no other sequence. It is shown without its data.
    """

    event: Event
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    timestamp: int
    reason: Reason | None = None

    def __repr__(self) -> str:
        return f"Outgoing({self.event.source}, {'result' if self.reason is None else self.reason.value})"
