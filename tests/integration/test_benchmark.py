"""The benchmark runs, and says what it says it measures; its figures are nobody's business here."""

from __future__ import annotations

import asyncio

import pytest

from tests.benchmarks.throughput import CONTENDERS, run, summary

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def test_every_contender_empties_the_topic_and_costs_something(bootstrap_servers: str) -> None:
    said: list[str] = []
    async with asyncio.timeout(150):
        measured = await run(bootstrap_servers, 20_000, 1, said.append)
    assert [one.contender for one in measured] == list(CONTENDERS)
    assert all(one.events > 0 and one.cpu_seconds > 0 for one in measured)
    medians = summary(measured)
    assert medians["copy loop"]["cpu_ratio"] == 1
    assert medians["one event a call"]["cpu_us_per_event"] > medians["256-row batches"]["cpu_us_per_event"]
    assert len(said) == 1 + len(CONTENDERS)
