"""Every way to prove oneself to Kafka, with the connector's own clients, and what is said when it fails."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import OAuthAuthenticator
from aiokafka.errors import KafkaConnectionError, OutOfOrderSequenceNumber, TopicAuthorizationFailedError
from aiokafka.protocol.metadata import MetadataResponse_v1

from connector.core.answers.outgoing import Outgoing
from connector.kafka import clients, repairs, topics
from connector.kafka.sink.outbox import Outbox
from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem
from tests.certificates import Authority
from tests.integration.stage import Stage, Working, make_outbox, said, until
from tests.tokens import json_web_token
from tests.unit.factories import make_event, make_ledger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from connector.kafka.topic import Topic
    from connector.settings import Settings
    from tests.integration.conftest import Certificates

pytestmark = pytest.mark.integration

PASSWORDS = {"admin": "admin-secret", "service": "service-secret"}


@pytest.fixture(scope="module")
def sasl(certificates: Certificates) -> Iterator[LocalKafka]:
    """A broker with TLS where clients log in, by every mechanism, and `service` may do only what it is allowed."""
    security = ListenerSecurity("SASL_SSL", users=PASSWORDS, certificate=certificates.broker, authorizer=True)
    with LocalKafka(security=security) as kafka:
        yield kafka


@pytest.fixture(scope="module")
def tls(certificates: Certificates) -> Iterator[LocalKafka]:
    """A broker with TLS that knows a client by its certificate, where it has one; without, it may do everything."""
    security = ListenerSecurity(
        "SSL", certificate=certificates.broker, client_authority=certificates.authority, authorizer=True
    )
    with LocalKafka(security=security, properties={"listener.name.client.ssl.client.auth": "requested"}) as kafka:
        yield kafka


@pytest.fixture
async def sasl_stage(sasl: LocalKafka) -> AsyncIterator[Stage]:
    async with Stage.open(sasl.admin_servers) as stage:
        await stage.create()
        yield stage


@pytest.fixture
async def tls_stage(tls: LocalKafka) -> AsyncIterator[Stage]:
    async with Stage.open(tls.admin_servers) as stage:
        await stage.create()
        yield stage


def results(*values: bytes) -> list[Outgoing]:
    """Results of one key."""
    event, now = make_event(make_ledger(), 0), time.time_ns() // 1_000_000
    return [Outgoing(event, b"key", value, [], now) for value in values]


def publish(settings: Settings, topic: str, *values: bytes) -> tuple[Outbox, list[Outgoing], asyncio.Task[None]]:
    """An outbox at work with results of one key."""
    acknowledged: list[Outgoing] = []
    outbox = make_outbox(settings, topic, acknowledged.extend)
    outbox.append(results(*values))
    return outbox, acknowledged, asyncio.create_task(outbox.run())


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@dataclass(frozen=True, slots=True)
class AtWork:
    """A source, an outbox that publishes one event to it, and what of that is acknowledged."""

    working: Working
    outbox: Outbox
    acknowledged: list[Outgoing]
    publishing: asyncio.Task[None]


@asynccontextmanager
async def at_work(stage: Stage, settings: Settings) -> AsyncIterator[AtWork]:
    """A source and an outbox, until both have ended."""
    working = stage.work(settings)
    outbox, acknowledged, task = publish(settings, stage.topic, b"event")
    try:
        yield AtWork(working, outbox, acknowledged, task)
    finally:
        await end(task)
        # A source that went on could take the only partition from the next one of its group.
        await working.stop()


async def pass_one_event(stage: Stage, settings: Settings) -> None:
    """Publish an event with our producer, and read it with our consumer."""
    async with at_work(stage, settings) as ours:
        await passed(stage, ours)


async def passed(stage: Stage, ours: AtWork) -> None:
    """Wait until the event has come through, and is committed."""
    await until(lambda: ours.acknowledged)
    await until(lambda: [event.value for event in ours.working.recorder.events] == [b"event"])
    await until(lambda: committed(stage))


async def committed(stage: Stage) -> bool:
    return await stage.committed() == 1


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_user_with_a_password_publishes_and_reads(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates, mechanism: str
) -> None:
    await pass_one_event(sasl_stage, with_password(sasl, sasl_stage, certificates, mechanism=mechanism))


def with_password(kafka: LocalKafka, stage: Stage, certificates: Certificates, **security: object) -> Settings:
    user = {"username": "admin", "password": PASSWORDS[str(security.get("username", "admin"))], "mechanism": "PLAIN"}
    trust = {"protocol": "SASL_SSL", "ca_file": str(certificates.authority)}
    return stage.settings(bootstrap_servers=kafka.bootstrap_servers, security=trust | user | security)


async def test_a_token_of_a_file_publishes_and_reads(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(json_web_token("admin") + "\n")
    await pass_one_event(sasl_stage, with_token(sasl, sasl_stage, certificates, oauth_token_file=tmp_path / "token"))


def with_token(kafka: LocalKafka, stage: Stage, certificates: Certificates, **security: object) -> Settings:
    trust = {"protocol": "SASL_SSL", "ca_file": str(certificates.authority), "mechanism": "OAUTHBEARER"}
    return stage.settings(bootstrap_servers=kafka.bootstrap_servers, security=trust | security)


async def test_a_token_of_a_server_publishes_and_reads(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates
) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.headers["Authorization"])
        return web.json_response({"access_token": json_web_token("admin"), "expires_in": 600})

    app = web.Application()
    app.router.add_post("/token", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        settings = with_token(
            sasl,
            sasl_stage,
            certificates,
            oauth_token_url=f"http://127.0.0.1:{port}/token",
            oauth_client_id="connector",
            oauth_client_secret="client-secret",
        )
        await pass_one_event(sasl_stage, settings)
    finally:
        await runner.cleanup()
    assert set(asked) == {"Basic " + base64.b64encode(b"connector:client-secret").decode()}


async def test_without_a_client_certificate_a_client_publishes_and_reads(
    tls: LocalKafka, tls_stage: Stage, certificates: Certificates
) -> None:
    await pass_one_event(tls_stage, with_certificate(tls, tls_stage, certificates))


def with_certificate(kafka: LocalKafka, stage: Stage, certificates: Certificates, **security: object) -> Settings:
    trust = {"protocol": "SSL", "ca_file": str(certificates.authority)}
    return stage.settings(bootstrap_servers=kafka.bootstrap_servers, security=trust | security)


async def test_a_client_is_known_by_its_certificate_and_publishes_and_reads_when_it_may(
    tls: LocalKafka, tls_stage: Stage, certificates: Certificates
) -> None:
    settings = with_certificate(tls, tls_stage, certificates, cert_file=str(certificates.client))
    working = tls_stage.work(settings)
    await until(lambda: "denie" in (working.problem or ""))
    for topic in (tls_stage.topic, tls_stage.output, tls_stage.letters):
        await asyncio.to_thread(tls.allow, "CN=client", "topic", topic, "READ", "WRITE")
    await asyncio.to_thread(tls.allow, "CN=client", "group", tls_stage.group, "READ")
    await until(lambda: working.problem is None and working.joined)
    await working.stop()
    await pass_one_event(tls_stage, settings)


def publish_fails(outbox: Outbox) -> str | None:
    """Why nothing can be published, in a sentence; None while all is well."""
    return said(outbox._problems, Problem.PUBLISH_FAILS)


async def refused(ours: AtWork, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> str:
    """What source and outbox say when they are not let in, once, without a traceback or a secret; they keep trying."""
    working, outbox = ours.working, ours.outbox
    attempts = 0
    look_up = topics.look_up

    async def counted(*args: Any) -> dict[str, Topic]:
        nonlocal attempts
        attempts += 1
        return await look_up(*args)

    monkeypatch.setattr(topics, "look_up", counted)
    with structlog.testing.capture_logs() as lines:
        await until(lambda: attempts >= 3 and working.problem and publish_fails(outbox))
    assert not ours.publishing.done()
    assert ours.acknowledged == []
    problem = working.problem
    assert problem is not None
    assert [line["problem"] for line in lines if line["event"] == LogEvent.SOURCE_PROBLEM] == [problem]
    assert not [line for line in lines if line.get("exc_info")]
    assert not [record for record in caplog.records if record.exc_info]
    said = " ".join([problem, str(publish_fails(outbox)), *(str(line) for line in lines), caplog.text])
    assert not [word for word in ("wrong-secret", "Traceback") if word in said]
    return problem


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_a_sentence(
    sasl: LocalKafka,
    sasl_stage: Stage,
    certificates: Certificates,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mechanism: str,
) -> None:
    settings = with_password(sasl, sasl_stage, certificates, mechanism=mechanism, password="wrong-secret")
    async with at_work(sasl_stage, settings) as ours:
        problem = await refused(ours, caplog, monkeypatch)
    assert f"Kafka at {sasl.bootstrap_servers} denies access: the broker refuses the login" in problem


async def test_a_broker_of_another_authority_is_a_sentence(
    tls: LocalKafka,
    tls_stage: Stage,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = Authority(tmp_path, "strangers").file
    settings = tls_stage.settings(
        bootstrap_servers=tls.bootstrap_servers, security={"protocol": "SSL", "ca_file": str(stranger)}
    )
    async with at_work(tls_stage, settings) as ours:
        problem = await refused(ours, caplog, monkeypatch)
    assert "certificate is not trusted" in problem


async def test_a_client_certificate_of_another_authority_is_a_sentence(
    tls: LocalKafka,
    tls_stage: Stage,
    certificates: Certificates,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stranger = Authority(tmp_path, "strangers").sign_in_one_file("stranger")
    settings = with_certificate(tls, tls_stage, certificates, cert_file=str(stranger))
    async with at_work(tls_stage, settings) as ours:
        problem = await refused(ours, caplog, monkeypatch)
    assert "TLS fails" in problem


async def test_a_refused_token_is_a_sentence_and_the_next_one_is_taken(
    sasl: LocalKafka,
    sasl_stage: Stage,
    certificates: Certificates,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    token = tmp_path / "token"
    token.write_text(json_web_token("admin", life=-600))
    settings = with_token(sasl, sasl_stage, certificates, oauth_token_file=token)
    async with at_work(sasl_stage, settings) as ours:
        problem = await refused(ours, caplog, monkeypatch)
        assert "denies access: the broker refuses the login: the token is refused" in problem
        token.write_text(json_web_token("admin"))
        await passed(sasl_stage, ours)
        assert ours.working.problem is None
        assert publish_fails(ours.outbox) is None


async def test_aiokafka_itself_takes_a_refused_token_for_an_empty_cluster(
    sasl: LocalKafka,
    sasl_stage: Stage,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(repairs, "hear_refused_tokens", lambda: None)
    monkeypatch.setattr(OAuthAuthenticator, "step", repairs._step)
    (tmp_path / "token").write_text(json_web_token("admin", life=-600))
    settings = with_token(sasl, sasl_stage, certificates, oauth_token_file=tmp_path / "token")
    client = AIOKafkaClient(**clients.common(settings))
    try:
        await client.bootstrap()
        assert not client.cluster.brokers()
    finally:
        await client.close()


async def test_a_start_goes_on_with_a_password_that_is_mended_in_its_file(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("wrong-secret")
    settings = with_password(sasl, sasl_stage, certificates, password=None, password_file=str(file))
    async with at_work(sasl_stage, settings) as ours:
        await until(lambda: "refuses the login" in (ours.working.problem or ""))
        file.unlink()
        await until(lambda: "password_file" in (ours.working.problem or ""))
        file.write_text(PASSWORDS["admin"])
        await passed(sasl_stage, ours)
        assert ours.working.problem is None


@pytest.mark.parametrize("protected", [True, False], ids=["protected", "unprotected"])
async def test_a_connection_is_opened_with_what_the_files_hold_then(
    tls: LocalKafka,
    tls_stage: Stage,
    certificates: Certificates,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    protected: bool,
) -> None:
    if not protected:
        monkeypatch.setattr(repairs, "renew_security", lambda *_: None)
    file, trusted = tmp_path / "ca.pem", certificates.authority.read_bytes()
    file.write_bytes(Authority(tmp_path, "strangers").file.read_bytes())
    settings = with_certificate(tls, tls_stage, certificates, ca_file=str(file))
    consumer = clients.consumer(settings)
    client = repairs.client(consumer)
    try:
        with pytest.raises(KafkaConnectionError):
            await client.bootstrap()
        client.cluster.update_metadata(broker_of(tls))
        assert not await client.ready(0)
        file.write_bytes(trusted)
        assert await client.ready(0) is protected
    finally:
        await repairs.stop_consumer(consumer, 1.0)


def broker_of(kafka: LocalKafka) -> Any:
    """Metadata that names broker 0 at its client listener."""
    port = int(kafka.bootstrap_servers.rpartition(":")[2])
    return MetadataResponse_v1(brokers=[(0, "127.0.0.1", port, None)], controller_id=0, topics=[])


async def test_what_was_denied_is_published_in_order_when_it_is_allowed(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates
) -> None:
    settings, topic = with_password(sasl, sasl_stage, certificates, username="service"), sasl_stage.output
    await asyncio.to_thread(sasl.allow, "service", "topic", topic, "DESCRIBE", "WRITE")
    bare = AIOKafkaProducer(**clients.common(settings), enable_idempotence=True)
    outbox, acknowledged, task = publish(settings, topic, b"0")
    try:
        await until(lambda: acknowledged)
        await bare.start()
        await bare.send_and_wait(topic, b"allowed", partition=0)
        await asyncio.to_thread(sasl.disallow, "service", "topic", topic, "WRITE")
        with pytest.raises(TopicAuthorizationFailedError):
            await send_for_ever(bare, topic)
        outbox.append(results(b"1", b"2"))
        await until(lambda: f"access to topic {topic} is denied" in (publish_fails(outbox) or ""))
        await asyncio.to_thread(sasl.allow, "service", "topic", topic, "WRITE")
        await until(lambda: [outgoing.value for outgoing in acknowledged] == [b"0", b"1", b"2"])
        assert publish_fails(outbox) is None
        # Access is back for this producer too, but the send that was denied has used up a sequence number.
        with pytest.raises(OutOfOrderSequenceNumber):
            await bare.send_and_wait(topic, b"allowed again", partition=0)
    finally:
        await end(task)
        await bare.stop()


async def send_for_ever(producer: AIOKafkaProducer, topic: str) -> None:
    async with asyncio.timeout(10):
        while True:
            await producer.send_and_wait(topic, b"until it is denied", partition=0)


async def test_a_denied_topic_is_an_error_and_denied_limits_are_none(
    sasl: LocalKafka, sasl_stage: Stage, certificates: Certificates
) -> None:
    settings = with_password(sasl, sasl_stage, certificates, username="service")
    client = AIOKafkaClient(**clients.common(settings))
    try:
        await client.bootstrap()
        with pytest.raises(TopicAuthorizationFailedError, match=sasl_stage.topic):
            await topics.describe(client, [sasl_stage.topic])
        await asyncio.to_thread(sasl.allow, "service", "topic", sasl_stage.topic, "READ")
        await until(lambda: described(client, sasl_stage.topic))
        found = await topics.describe_with_limits(client, [sasl_stage.topic])
        assert found[sasl_stage.topic].max_message_bytes is None
        await asyncio.to_thread(sasl.allow, "service", "topic", sasl_stage.topic, "DESCRIBE_CONFIGS")
        await until(lambda: limited(client, sasl_stage.topic))
    finally:
        await client.close()


async def described(client: AIOKafkaClient, topic: str) -> bool:
    try:
        return topic in await topics.describe(client, [topic])
    except TopicAuthorizationFailedError:
        return False


async def limited(client: AIOKafkaClient, topic: str) -> bool:
    return (await topics.describe_with_limits(client, [topic]))[topic].max_message_bytes == 1_048_588
