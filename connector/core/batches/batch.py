"""Batch: events of one route that go into one call."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connector.core.event import Event, Route


class Batch:
    """Events of one route that go into one call, or a part of such a batch that bisection made.

    `size` is the bytes of the body; `oldest` the arrival of its oldest event; `started` the calls made with exactly these
    events; `attempts` how often they failed, by reason; `calls` how many parts of this root were called. `waits` counts
    the parts that must be answered before this one may be called, `then` holds those that wait for it, `unanswered` counts
    its own parts that are not answered yet.
    """

    __slots__ = (
        "attempts",
        "calls",
        "events",
        "group",
        "mark",
        "number",
        "oldest",
        "open",
        "parent",
        "route",
        "size",
        "started",
        "then",
        "unanswered",
        "waits",
    )

    def __init__(self, number: int, route: Route, group: Any, oldest: float, parent: Batch | None = None) -> None:
        self.number = number
        self.route = route
        self.group = group
        self.oldest = oldest
        self.events: list[Event] = []
        self.size = 0
        self.open = parent is None
        self.started = 0
        self.attempts: Counter[Any] = Counter()
        self.mark: int | None = None
        self.parent = parent
        self.calls = 0
        self.waits = 0
        self.then: list[Batch] = []
        self.unanswered = 0

    @property
    def root(self) -> Batch:
        """The batch that this is a part of, or itself.

        A batch that held itself would keep its events until the next full garbage collection, which may be long in coming.
        """
        root = self
        while root.parent is not None:
            root = root.parent
        return root

    @property
    def tries(self) -> int:
        """How often its events were called, in any company."""
        tries, above = self.started, self.parent
        while above is not None:
            tries, above = tries + above.started, above.parent
        return tries

    def __repr__(self) -> str:
        return f"Batch({self.number}, {len(self.events)} events, {self.size} bytes, {self.started} calls)"

    def __lt__(self, other: Batch) -> bool:
        if self.oldest == other.oldest:
            return self.number < other.number
        return self.oldest < other.oldest
