"""Memory: a backlog of any size takes the buffer's bytes, and a stated overhead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.memory import measure

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.integration

_MIB = 2**20
_BUFFER = 32 * _MIB
_AWAY = 64 * _MIB
"""What a process takes beside the buffer while the endpoint is away: the bodies in flight, 64 of 640 KB, and the SDK's."""
_CATCHING_UP = 128 * _MIB
"""The same while it catches up: responses too, and results, as large as their events, that wait for Kafka."""


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
async def test_a_backlog_takes_the_buffer_and_no_more_while_the_endpoint_is_away(
    bootstrap_servers: str, tmp_path: Path, delivery: str
) -> None:
    events = 20_000
    taken = await measure(
        bootstrap_servers,
        tmp_path,
        events,
        {
            "kafka": {"delivery": delivery, "transaction_timeout": "30s"},
            "correlation": {"mode": "batch"},
            "buffer": {"max_bytes": "32MiB"},
        },
        away=2.0,
    )
    assert 0.8 * _BUFFER < taken.held < _BUFFER + 4 * _MIB, "a fetch of each partition is the most above the bound"
    assert taken.away < taken.idle + _BUFFER + _AWAY, str(taken)
    assert taken.peak < taken.idle + _BUFFER + _CATCHING_UP, str(taken)
    assert (taken.answered, taken.dead_letters) == (events, 0)
    if delivery == "exactly_once":
        assert taken.repeated == 0
