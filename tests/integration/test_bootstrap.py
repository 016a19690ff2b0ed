"""What the bootstrap servers are asked for: at the start, where some do not answer (22), and when all brokers moved (24)."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import aiokafka.conn
import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, ProducerClosed

from connector.kafka import clients, repairs, topics
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.chaos.proxy import Proxy
from tests.integration.answering import answering, each, exactly_once, sources
from tests.integration.clients import started
from tests.integration.stage import Stage, endless_lease, until
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from connector.settings import Settings
    from tests.integration.conftest import Certificates

pytestmark = pytest.mark.integration

both = pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])


@pytest.fixture(scope="module")
def kafka(certificates: Certificates) -> Iterator[LocalKafka]:
    """A broker with TLS where clients log in."""
    security = ListenerSecurity("SASL_SSL", users={"service": "secret"}, certificate=certificates.broker)
    with LocalKafka(security=security) as kafka:
        yield kafka


@pytest.fixture
async def stage(kafka: LocalKafka) -> AsyncIterator[Stage]:
    async with Stage.open(kafka.admin_servers) as stage:
        await stage.create()
        yield stage


@pytest.fixture(autouse=True)
def in_the_order_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let aiokafka not shuffle the servers."""
    monkeypatch.setattr(aiokafka.conn.random, "shuffle", lambda _: None)


@asynccontextmanager
async def hung(count: int) -> AsyncIterator[str]:
    """The addresses of so many servers that accept and never answer."""
    async with AsyncExitStack() as stack:
        proxies = [await stack.enter_async_context(Proxy(upstream=1)) for _ in range(count)]
        for proxy in proxies:
            proxy.drop()
        yield ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)


def secured(stage: Stage, certificates: Certificates, servers: str, **kafka: object) -> Settings:
    security = {
        "protocol": "SASL_SSL",
        "ca_file": str(certificates.authority),
        "mechanism": "SCRAM-SHA-512",
        "username": "service",
        "password": "secret",
    }
    return exactly_once(stage, bootstrap_servers=servers, security=security, **kafka)


@pytest.mark.parametrize("count", [1, 2])
async def test_servers_that_accept_and_never_answer_hold_nothing_up(
    kafka: LocalKafka, stage: Stage, certificates: Certificates, count: int
) -> None:
    await stage.produce(3)
    async with hung(count) as silent:
        began = time.monotonic()
        await answering(stage, secured(stage, certificates, f"{silent},{kafka.bootstrap_servers}"))
        await until(lambda: answered(stage, 3))
        assert time.monotonic() - began < 8


async def answered(stage: Stage, count: int) -> bool:
    return await sources(stage) == each(count)


@both
async def test_a_client_asks_the_next_server_while_one_does_not_answer(
    kafka: LocalKafka, stage: Stage, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "race_bootstraps", lambda: None)
        monkeypatch.setattr(AIOKafkaClient, "bootstrap", repairs._bootstrap)
    async with hung(2) as silent:
        settings = secured(stage, certificates, f"{silent},{kafka.bootstrap_servers}", request_timeout="4s")
        limit = 3.0
        began = time.monotonic()
        async with (
            started(clients.consumer(settings)),
            started(clients.producer(settings, endless_lease(), max_batch_size=100_000)),
        ):
            took = time.monotonic() - began
        assert took < limit if protected else took > 4 * limit


@pytest.mark.parametrize("count", [0, 1])
async def test_a_server_that_is_only_slow_is_waited_for(
    kafka: LocalKafka, stage: Stage, certificates: Certificates, count: int
) -> None:
    port = int(kafka.bootstrap_servers.rpartition(":")[2])
    async with hung(count) as silent, Proxy(port) as slow:
        slow.delay(0.4)
        servers = ",".join(filter(None, [f"127.0.0.1:{slow.port}", silent]))
        began = time.monotonic()
        async with started(clients.consumer(secured(stage, certificates, servers))):
            assert slow.connections == 1
        assert time.monotonic() - began > 2


async def test_a_denial_is_told_rather_than_a_silence(
    kafka: LocalKafka, stage: Stage, certificates: Certificates
) -> None:
    async with hung(1) as silent:
        settings = secured(stage, certificates, f"{silent},{kafka.bootstrap_servers}", request_timeout="4s")
        wrong = settings.model_copy(
            update={
                "kafka": settings.kafka.model_copy(
                    update={"security": settings.kafka.security.model_copy(update={"username": "stranger"})}
                )
            }
        )
        client = AIOKafkaClient(**clients.common(wrong))
        with pytest.raises(KafkaConnectionError) as caught:
            await client.bootstrap()
        assert "SaslAuthenticationFailed" in repr(caught.value.__cause__)
        await client.close()


async def test_a_look_up_that_is_given_up_leaves_no_connection(stage: Stage) -> None:
    async with hung(3) as silent:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            await topics.look_up({"bootstrap_servers": silent}, [stage.topic], limit=1.5)
        assert time.monotonic() - began < 3
        assert not [task for task in asyncio.all_tasks() if "_ask" in repr(task)]


@both
async def test_brokers_that_have_come_back_at_other_addresses_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protected: bool
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "return_to_bootstrap", lambda _: None)
    here, there = free_port(), free_port()
    with LocalKafka(data=tmp_path, proxies=[here]) as kafka:
        async with Stage.open(kafka.admin_servers) as stage:
            await stage.create()
            settings = stage.settings(
                bootstrap_servers=kafka.bootstrap_servers,
                session_timeout="3s",
                request_timeout="1500ms",
                revoke_drain="200ms",
            )
            upstream = int(kafka.bootstrap_servers.rpartition(":")[2])
            producer = clients.producer(settings, endless_lease(), max_batch_size=100_000)
            working = stage.work(settings)
            try:
                async with Proxy(upstream, here):
                    await producer.start()
                    await producer.send_and_wait(stage.topic, b"before")
                    await until(lambda: working.recorder.offsets() == [0])
                properties = tmp_path / "broker-0" / "server.properties"
                properties.write_text(properties.read_text().replace(str(here), str(there)))
                await asyncio.to_thread(kafka.restart)
                async with Proxy(upstream, there):
                    sent = await producer.send(stage.topic, b"after")
                    if protected:
                        await until(lambda: sent.done() and working.recorder.offsets() == [0, 1], limit=20)
                        assert (await sent).offset == 1
                    else:
                        await asyncio.sleep(12)
                        assert not sent.done()
                        assert working.recorder.offsets() == [0]
                        await repairs.abandon(producer)
                        assert isinstance(sent.exception(), ProducerClosed)
            finally:
                await repairs.abandon(producer)
