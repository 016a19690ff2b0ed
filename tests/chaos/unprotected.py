"""Unprotected: the connector with protections switched off by name, to show that a scenario needs them.

`python -m tests.chaos.unprotected NAME[,NAME] run --config FILE`
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from connector.commands.cli import main
from connector.core.calls import outcome
from connector.core.calls.guard import Guard
from connector.core.epochs import offset_map
from connector.core.epochs.lease import Lease
from connector.core.epochs.ledger import Ledger
from connector.core.reason import Reason
from connector.kafka import repairs
from connector.settings import endpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def _read_timeout_floor() -> None:
    """Take an `endpoint.read_timeout` that is shorter than a container may take."""
    vars(endpoint)["_CONTAINER_LIMIT"] = 0.0


def _unfinished_prefix() -> None:
    """Commit what was delivered, complete or not, as auto-commit does."""
    Ledger.committable = property(lambda ledger: None if ledger.dropped else ledger.next_offset)  # type: ignore[method-assign, assignment]


def _lost_partitions() -> None:
    """Treat partitions that were lost like those that are given up in order: drain, publish, commit.

    The lease would notice as well, so it is off too.
    """
    vars(repairs)["generation"] = lambda consumer: 1
    _lease()


def _transient_retries() -> None:
    """Take every failed call for the fault of its events."""
    vars(outcome)["classify"] = lambda failure: outcome._bisected(Reason.REJECTED_BY_MODEL)


def _guard() -> None:
    """Go on however many events are dead-lettered."""
    Guard._finished = lambda *arguments: False  # type: ignore[method-assign]


def _lanes() -> None:
    """Let events of one key be called side by side."""
    os.environ["CONNECTOR_KAFKA__ORDERING"] = "none"


def _lease() -> None:
    """Publish and commit whether or not the group takes us for a member."""
    Lease.holds = lambda self, now: True  # type: ignore[method-assign]


def _offset_map() -> None:
    """Find nothing in the metadata of commits."""
    vars(offset_map)["decode"] = lambda text, position: None


PROTECTIONS: Mapping[str, Callable[[], None]] = {
    "read_timeout_floor": _read_timeout_floor,
    "unfinished_prefix": _unfinished_prefix,
    "lost_partitions": _lost_partitions,
    "transient_retries": _transient_retries,
    "guard": _guard,
    "lanes": _lanes,
    "lease": _lease,
    "offset_map": _offset_map,
}
"""What can be switched off; each function does so in its own process."""


if __name__ == "__main__":
    for name in sys.argv.pop(1).split(","):
        PROTECTIONS[name]()
    main()
