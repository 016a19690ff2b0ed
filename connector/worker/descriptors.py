"""Descriptors: how many files and connections the process has open, of how many that it may."""

from __future__ import annotations

import errno
import math
import resource
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from connector.settings import Settings

_OPEN = Path("/dev/fd")
_RESERVE = 64
"""What brokers, pages, certificates and the log need beside the calls."""
_REMEDY = "raise the hard limit (ulimit -Hn, or LimitNOFILE of systemd), or lower concurrency.max_in_flight"
_SCARCE = 0.8
_ENOUGH = 0.7
"""Shares of the limit: above the first it is said, below the second it is forgotten."""


def raise_limit() -> None:
    """Raise the soft limit to the hard one, where the system lets us; the soft one is low for programs that use select()."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> float:
    """How many may be open; infinity when there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def count() -> float:
    """How many are open; 0 where the system does not tell."""
    try:
        # One of them is that of the folder itself.
        return len([*_OPEN.iterdir()]) - 1
    except OSError as error:
        return limit() if error.errno == errno.EMFILE else 0


def advice(settings: Settings, most: float) -> Iterator[str]:
    """Say as `key: sentence` when the calls that may be in flight do not fit into `most` descriptors."""
    calls = settings.concurrency.max_in_flight
    if calls + _RESERVE > most:
        yield (
            f"concurrency.max_in_flight: {calls} calls need a connection each, and the process may have {most:.0f} files "
            f"and connections open; {_REMEDY}"
        )


class Descriptors:
    """Whether they become scarce: said once, until they have become plenty again."""

    def __init__(self) -> None:
        self._scarce = False

    def look(self, used: float, most: float) -> str | None:
        """What is to be said of `used` descriptors of at most `most`, in a sentence; None when nothing is."""
        before, self._scarce = self._scarce, used > most * (_ENOUGH if self._scarce else _SCARCE)
        if before or not self._scarce:
            return None
        return (
            f"{used:.0f} of {most:.0f} files and connections are open, and without one more there is no call, no fetch and "
            f"no page; {_REMEDY}"
        )
