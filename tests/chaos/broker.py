"""Broker: a Kafka of the suite's own, which can be taken away; one alone sends its clients through a proxy."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from tests.chaos.scenario import Scenario
    from tests.integration.rig import Rig

_PROPERTIES = {
    # The transaction of a dead owner hides what comes after it until the broker has looked for it.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
    # A broker that comes back soon leads its share of partitions again.
    "leader.imbalance.check.interval.seconds": "1",
}
_USER, _WORD = "service", "service-secret"


class Broker:
    """A cluster of one broker or more, a context manager.

    One broker that is not `guarded` sends its clients through `proxy_port`, where every scenario opens a proxy of its
    own. A guarded one lets them do only what was allowed.
    """

    def __init__(
        self, progress: Callable[[str], None] | None = None, *, brokers: int = 1, guarded: bool = False
    ) -> None:
        self.kind = brokers, guarded
        self.proxy_port = free_port() if self.kind == (1, False) else None
        users = {"admin": "admin-secret", _USER: _WORD}
        self._kafka = LocalKafka(
            brokers,
            proxies=[] if self.proxy_port is None else [self.proxy_port],
            properties=_PROPERTIES,
            security=ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
            if guarded
            else None,
            progress=progress,
        )

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

    def client_settings(self) -> dict[str, object]:
        """What a process needs to reach it without a proxy, for the section `kafka`."""
        settings: dict[str, object] = {"bootstrap_servers": self._kafka.bootstrap_servers}
        if self._kafka.security.sasl:
            login = {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", "username": _USER, "password": _WORD}
            settings["security"] = login
        return settings

    async def admit(self, rig: Rig) -> None:
        """Let processes do what docs/guarantees.md says they need."""
        for resource, name, *operations in (
            ("topic", rig.input, "READ"),
            ("topic", rig.output, "WRITE"),
            ("topic", rig.letters, "WRITE"),
            ("group", rig.group, "READ"),
            ("transactional_id", "*", "WRITE", "DESCRIBE"),
        ):
            await asyncio.to_thread(self._kafka.allow, _USER, resource, name, *operations)

    async def let_write(self, topic: str, *, granted: bool) -> None:
        """Grant or deny writes to a topic."""
        change = self._kafka.allow if granted else self._kafka.disallow
        await asyncio.to_thread(change, _USER, "topic", topic, "WRITE")

    async def restart(self, away: float, *, clean: bool) -> None:
        """Stop the first broker, by SIGKILL unless `clean`, and start it `away` seconds later; also when cancelled."""
        try:
            await asyncio.to_thread(self._kafka.stop if clean else self._kafka.kill, 0)
            await asyncio.sleep(away)
        finally:
            await asyncio.shield(asyncio.create_task(asyncio.to_thread(self._kafka.restart, 0)))


class Brokers:
    """The cluster that a scenario needs, a context manager; one at a time, kept for the next that needs the same."""

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        self._progress = progress
        self._current: Broker | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    async def fitting(self, scenario: Scenario) -> Broker:
        """A running cluster of the kind that a scenario needs."""
        if self._current is None or self._current.kind != (scenario.brokers, scenario.guarded):
            await asyncio.to_thread(self._stop)
            broker = Broker(self._progress, brokers=scenario.brokers, guarded=scenario.guarded)
            await asyncio.to_thread(broker.__enter__)
            self._current = broker
        return self._current

    def _stop(self) -> None:
        if self._current is not None:
            self._current.__exit__(None, None, None)
            self._current = None
