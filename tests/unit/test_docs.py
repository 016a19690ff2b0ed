"""The pages for people name files, scenarios, settings and metrics that exist."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from connector.settings import parse
from connector.telemetry.metrics import Metrics
from tests.chaos.named import NAMED

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/DESIGN.md", "docs/guarantees.md"]
SCENARIO = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+)+|kills)`")
NO_SCENARIOS = {"at_least_once", "exactly_once", "lost_to_retention", "read_committed", "read_uncommitted"}


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def test_every_scenario_that_the_guarantees_name_exists() -> None:
    rows = [line for line in text_of("docs/guarantees.md").splitlines() if line.startswith("|")]
    proofs = [row.split("|")[-2] for row in rows]
    named = {name for proof in proofs for name in SCENARIO.findall(proof)}
    assert len(named) > 10
    assert named <= set(NAMED)


@pytest.mark.parametrize("page", PAGES)
def test_every_test_file_that_a_page_names_exists(page: str) -> None:
    named = re.findall(r"`((?:tests/|unit/|integration/|chaos/)[\w/]+\.py)`", text_of(page))
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "tests" / name).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_a_page_names_exists(page: str) -> None:
    settings = parse({}).model_dump()
    for section, key in re.findall(r"`([a-z_]+)\.([a-z_]+)(?::[^`]*)?`", text_of(page)):
        if section in settings and key != "py":
            assert key in settings[section], f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES)
def test_every_counter_that_a_page_names_exists(page: str) -> None:
    known = {family.name for family in Metrics(time.monotonic).registry.collect()}
    for name in re.findall(r"`connector_(\w+)_total`", text_of(page)):
        assert f"connector_{name}" in known, name
