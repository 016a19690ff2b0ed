"""Invoker: makes calls, whatever carries them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from connector.core.calls.call import Call, Reply


class Invoker(Protocol):
    """Makes calls; one object serves all calls in flight."""

    async def start(self) -> None:
        """Make ready for calls."""
        ...

    async def invoke(self, call: Call) -> Reply:
        """Make one call, once, and give what came back; only cancellation is raised.

        It lasts as long as the read timeout at most, and takes cancellation at any moment.
        """
        ...

    async def renew_credentials(self) -> None:
        """Read the credentials anew from where they come from, because the service refused those in use."""
        ...

    async def stop(self) -> None:
        """Close what is open; calls in flight fail."""
        ...
