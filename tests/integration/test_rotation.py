"""What proves the connector to Kafka, and Kafka to the connector, is replaced while it works (item 23)."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.certificates import Authority
from tests.integration.rig import Rig, make_rig, source

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.integration

DELIVERIES = ("at_least_once", "exactly_once")


async def rotate(
    kafka: LocalKafka,
    folder: Path,
    security: dict[str, Any],
    replace: Callable[[], None],
    replace_ours: Callable[[], None],
) -> None:
    """Let `replace` change what the broker takes, and let connectors of both deliveries work on after `replace_ours`."""
    rigs: list[Rig] = []
    async with make_rig(kafka.admin_servers, folder / "a") as one, make_rig(kafka.admin_servers, folder / "b") as two:
        rigs = [one, two]
        written: list[list[str]] = []
        for rig, delivery in zip(rigs, DELIVERIES, strict=True):
            await rig.make_topics()
            own = {
                "bootstrap_servers": kafka.bootstrap_servers,
                "delivery": delivery,
                "session_timeout": "6s",
                "request_timeout": "4s",
                "revoke_drain": "1s",
                "transaction_timeout": "10s",
                "security": security,
            }
            await rig.connector({"kafka": own})
            written.append(await rig.produce((b"%d" % n, b"1") for n in range(20)))
            await rig.results(20)
        await asyncio.to_thread(kafka.stop, 0)
        replace()
        await asyncio.to_thread(kafka.restart, 0)
        for rig, sources in zip(rigs, written, strict=True):
            sources += await rig.produce((b"%d" % n, b"1") for n in range(20))
            await rig.processes[0].unready("cut_off")
        replace_ours()
        for rig, sources, delivery in zip(rigs, written, DELIVERIES, strict=True):
            results = Counter(source(record) for record in await rig.results(40, limit=30))
            assert set(results) == set(sources)
            if delivery == "exactly_once":
                assert set(results.values()) == {1}
            await rig.processes[0].ready()
            await rig.processes[0].stop()


async def test_work_goes_on_with_the_certificates_of_another_authority(tmp_path: Path) -> None:
    for name in ("one", "two", "broker", "ours", "a", "b"):
        (tmp_path / name).mkdir()

    def give(name: str, *, broker: bool) -> None:
        """Let the authority `name` be the one that the broker, or that the connector has its files from."""
        authority = authorities[name]
        if broker:
            shutil.copy(authority.sign_in_one_file("broker"), tmp_path / "broker" / "broker.pem")
            shutil.copy(authority.file, tmp_path / "broker" / "authority.pem")
        else:
            certificate, key = authority.sign("client")
            shutil.copy(authority.file, tmp_path / "ours" / "ca.pem")
            shutil.copy(certificate, tmp_path / "ours" / "client.crt")
            shutil.copy(key, tmp_path / "ours" / "client.key")

    authorities = {name: Authority(tmp_path / name, "authority") for name in ("one", "two")}
    give("one", broker=True)
    give("one", broker=False)
    listener = ListenerSecurity(
        "SSL",
        certificate=tmp_path / "broker" / "broker.pem",
        client_authority=tmp_path / "broker" / "authority.pem",
    )
    security = {
        "protocol": "SSL",
        "ca_file": str(tmp_path / "ours" / "ca.pem"),
        "cert_file": str(tmp_path / "ours" / "client.crt"),
        "key_file": str(tmp_path / "ours" / "client.key"),
    }
    with LocalKafka(security=listener) as kafka:
        await rotate(kafka, tmp_path, security, lambda: give("two", broker=True), lambda: give("two", broker=False))


async def test_work_goes_on_with_another_password(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    password, data = tmp_path / "password", tmp_path / "kafka"
    password.write_text("first-secret")
    listener = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users={"service": "first-secret"})
    security = {
        "protocol": "SASL_PLAINTEXT",
        "mechanism": "PLAIN",
        "username": "service",
        "password_file": str(password),
    }

    def replace() -> None:
        properties = data / "broker-0" / "server.properties"
        properties.write_text(properties.read_text().replace("first-secret", "second-secret"))

    def replace_ours() -> None:
        password.write_text("second-secret")

    with LocalKafka(security=listener, data=data) as kafka:
        await rotate(kafka, tmp_path, security, replace, replace_ours)
