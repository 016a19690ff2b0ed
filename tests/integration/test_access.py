"""Kafka denies access: the connector stays up, says in a sentence to what, and goes on when it is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from connector.local.kafka.broker_settings import ListenerSecurity
from connector.local.kafka.cluster import LocalKafka
from tests.integration.rig import make_rig, source, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.integration.rig import Event, Rig, Settings

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka() -> Iterator[LocalKafka]:
    """A broker that lets a user do only what was allowed."""
    users = {"admin": "admin-secret", "service": "service-secret"}
    security = ListenerSecurity("SASL_PLAINTEXT", mechanisms=("PLAIN",), users=users, authorizer=True)
    with LocalKafka(security=security) as kafka:
        yield kafka


@pytest.fixture
async def rig(kafka: LocalKafka, tmp_path: Path) -> AsyncIterator[Rig]:
    async with make_rig(kafka.admin_servers, tmp_path) as rig:
        await rig.make_topics()
        yield rig


def login(kafka: LocalKafka, password: str = "service-secret", mechanism: str = "PLAIN") -> dict[str, Any]:
    """Settings of a user who may do nothing yet."""
    security = {"protocol": "SASL_PLAINTEXT", "mechanism": mechanism, "username": "service", "password": password}
    return {"bootstrap_servers": kafka.bootstrap_servers, "security": security}


async def test_what_is_denied_is_said_in_a_sentence_and_work_goes_on_when_it_is_allowed(
    kafka: LocalKafka, rig: Rig
) -> None:
    events: list[Event] = [(b"k%d" % (number % 5), b"%d,1" % number) for number in range(20)]
    places = await rig.produce([*events, (b"k", b"bad\nrow")])
    settings: Settings = {"kafka": login(kafka)}
    process = await rig.connector(settings, wait=False)
    for resource, name, operation, sentence in (
        ("topic", rig.input, "READ", f"access to topic {rig.input} is denied"),
        ("topic", rig.output, "DESCRIBE", f"access to topic {rig.output} is denied"),
        ("topic", rig.letters, "DESCRIBE", f"access to topic {rig.letters} is denied"),
        ("group", rig.group, "READ", f"access to group {rig.group} is denied"),
        ("topic", rig.output, "WRITE", f"publishing to {rig.output} fails: idempotent sends are denied"),
        ("topic", rig.letters, "WRITE", f"publishing to {rig.letters} fails: access to topic {rig.letters} is denied"),
    ):
        await process.unready(sentence)
        kafka.allow("service", resource, name, operation)
    await process.ready()
    results, letters = await rig.results(20), await rig.dead_letters(1)
    assert sorted(map(source, [*results, *letters])) == sorted(places)
    ends = await rig.ends()

    async def all_committed() -> bool:
        return await rig.committed() == ends

    await until(all_committed, "everything to be committed")
    assert "Traceback" not in process.lines()
    await process.stop()


@pytest.mark.parametrize(
    ("user", "sentence"),
    [
        ({"password": "wrong"}, "denies access: the broker refuses the login"),
        ({"mechanism": "SCRAM-SHA-256"}, "denies access: the broker does not take kafka.security.mechanism"),
    ],
)
async def test_a_login_that_is_refused_is_not_taken_for_a_broker_that_is_away(
    kafka: LocalKafka, rig: Rig, user: dict[str, str], sentence: str
) -> None:
    process = await rig.connector({"kafka": login(kafka, **user)}, wait=False)
    await process.unready(sentence)
    assert "Traceback" not in process.lines()
    await process.stop()
