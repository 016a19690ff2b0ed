"""Broker: a Kafka of the suite's own, which sends its clients through a proxy, and can be taken away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from connector.local.kafka import LocalKafka
from tests.chaos.proxy import choose_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PROPERTIES = {
    # The transaction of a dead owner hides what comes after it until the broker has looked for it.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


class Broker:
    """One broker, a context manager; every scenario opens a proxy of its own at `proxy_port`."""

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self.proxy_port = choose_port()
        self._kafka = LocalKafka(proxies=[self.proxy_port], properties=_PROPERTIES, progress=progress)

    def __enter__(self) -> Self:
        self._kafka.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kafka.stop()

    @property
    def direct(self) -> str:
        """An address that no proxy stands before, host:port."""
        return self._kafka.admin_servers

    @property
    def client_port(self) -> int:
        """The port that the proxy passes connections on to."""
        return int(self._kafka.bootstrap_servers.rpartition(":")[2])

    async def restart(self, away: float, *, clean: bool) -> None:
        """Stop it, by SIGKILL unless `clean`, and start it `away` seconds later; also when cancelled in between."""
        try:
            await asyncio.to_thread(self._kafka.stop if clean else self._kafka.kill, 0)
            await asyncio.sleep(away)
        finally:
            await asyncio.shield(asyncio.create_task(asyncio.to_thread(self._kafka.restart, 0)))
