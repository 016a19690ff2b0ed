"""A short choice of scenarios; `make chaos` runs the long form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.chaos import scenario
from tests.chaos.actions import act
from tests.chaos.checks import Kind
from tests.chaos.harness import run
from tests.chaos.mix import mix
from tests.chaos.named import NAMED, PROOFS
from tests.chaos.unprotected import PROTECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.chaos.broker import Broker


@pytest.mark.integration
@pytest.mark.parametrize(
    "name",
    [
        "network_drop_between_connector_and_kafka",
        "frozen_process",
        "endpoint_away",
        "throttling_503_530_resets_timeouts_at_30_percent",
    ],
)
async def test_nothing_is_lost_wrong_or_stuck(name: str, broker: Broker, tmp_path: Path) -> None:
    report = await run(NAMED[name], broker, tmp_path)
    assert not report.problems


@pytest.mark.integration
async def test_kills_repeat_little_and_lose_nothing_unless_unfinished_events_are_committed(
    broker: Broker, tmp_path: Path
) -> None:
    kills = NAMED["kills"]
    for folder in ("protected", "unprotected"):
        (tmp_path / folder).mkdir()
    report = await run(kills, broker, tmp_path / "protected")
    assert not report.problems
    careless = replace(kills, without=("unfinished_prefix",), expect=replace(kills.expect, seconds=15.0))
    report = await run(careless, broker, tmp_path / "unprotected")
    assert report.count(Kind.LOST) > 0


def test_a_seed_gives_the_same_scenario_and_another_seed_another() -> None:
    for seed in range(50):
        assert mix(seed, "at_least_once") == mix(seed, "at_least_once")
        assert replace(mix(seed, "exactly_once"), delivery="at_least_once") == mix(seed, "at_least_once")
    assert len({repr(replace(mix(seed, "at_least_once"), seed=0)) for seed in range(50)}) == 50


def test_every_kind_of_step_has_an_action() -> None:
    kinds = [kind for kind in vars(scenario).values() if isinstance(kind, type) and issubclass(kind, scenario.Step)]
    assert len(kinds) > 5
    assert set(kinds) - {scenario.Step} == set(act.registry) - {object, scenario.Step}


def test_every_protection_that_is_named_exists() -> None:
    used = {name for one in (*NAMED.values(), mix(1, "at_least_once")) for name in one.without}
    assert used | set(PROOFS) == set(PROTECTIONS)
    assert set(PROOFS.values()) <= set(NAMED)
