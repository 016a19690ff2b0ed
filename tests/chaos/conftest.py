"""What the scenarios share: one broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.broker import Broker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A broker that scenarios may take away."""
    with Broker(progress=print) as broker:
        yield broker
