"""Ownership: waiting for the lease, without which nothing may be published."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector.core.epochs.lease import Lease

_TURN = 0.05
"""Seconds between two looks."""


async def owned(lease: Lease) -> None:
    """Wait until the lease holds."""
    while not lease.holds(time.monotonic()):  # noqa: ASYNC110 - it ends by the passing of time, which no event tells
        await asyncio.sleep(_TURN)
