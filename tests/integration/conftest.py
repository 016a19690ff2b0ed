"""What the integration tests share: topics of their own, connectors, and certificates."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from tests.certificates import Authority
from tests.integration import administration
from tests.integration.clients import started
from tests.integration.rig import make_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.integration.rig import Rig


class MakeTopics(Protocol):
    """Creates topics that live as long as the test."""

    async def __call__(self, *labels: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> list[str]:
        """Create one topic for each label, with that label in its unique name; the names in the same order."""
        ...


@dataclass(frozen=True)
class Certificates:
    """PEM files: an authority, and key and certificate in one of a broker at 127.0.0.1 and of a client."""

    authority: Path
    broker: Path
    client: Path


@pytest.fixture
async def make_topics(bootstrap_servers: str) -> AsyncIterator[MakeTopics]:
    """Make topics with unique names; they are deleted after the test."""
    async with started(AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)) as admin:
        made: list[str] = []

        async def make(*labels: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> list[str]:
            names = [f"{label}-{uuid.uuid4().hex[:12]}" for label in labels]
            await administration.create_topics(admin, dict.fromkeys(names, partitions), config=config)
            made.extend(names)
            return names

        yield make
        if made:
            await admin.delete_topics(made)


@pytest.fixture
async def rig(bootstrap_servers: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """Topics, an endpoint that echoes rows, and connector processes."""
    async with make_rig(bootstrap_servers, tmp_path) as rig:
        await rig.make_topics()
        yield rig


@pytest.fixture
async def bare_rig(bootstrap_servers: str, tmp_path: Path) -> AsyncIterator[Rig]:
    """The same, without topics."""
    async with make_rig(bootstrap_servers, tmp_path) as rig:
        yield rig


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates that are good for a day."""
    authority = Authority(tmp_path_factory.mktemp("certificates"), "authority")
    return Certificates(authority.file, *(authority.sign_in_one_file(name) for name in ("broker", "client")))
