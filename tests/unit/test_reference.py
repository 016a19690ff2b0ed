"""The reference page is what the declarations say, and the declarations are what comes out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import prometheus_client
import pytest
from click.testing import CliRunner
from prometheus_client import Counter, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from connector.commands.cli import connector
from connector.commands.exit_codes import EXIT_CODES
from connector.commands.reference import page, shown_name
from connector.core.answers.headers import HEADERS
from connector.core.calls.outcome import Kind
from connector.core.reason import Reason
from connector.errors import ConnectorError, ExitCode
from connector.telemetry.log_events import FIELDS, LogEvent
from connector.telemetry.metrics import LABELS, Gauge, Metrics
from connector.telemetry.problems import Problem
from tests.unit.command_tree import commands, subcommand

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def rows() -> dict[str, list[list[str]]]:
    """The cells of every row of the page's tables, by section."""
    found: dict[str, list[list[str]]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = found[line.removeprefix("## ")] = []
        elif line.startswith("| ") and not line.startswith("| ---"):
            section.append([cell.strip(" `") for cell in line.strip("|").split(" | ")])
    return {title: cells[1:] for title, cells in found.items()}


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
    printed = CliRunner().invoke(connector, ["reference"])
    assert (printed.exit_code, printed.output) == (ExitCode.DONE, page())


def test_the_page_has_everything_that_the_code_declares_and_nothing_else() -> None:
    declared = {
        "Headers": {header.name for header in HEADERS},
        "Metrics": {shown_name(metric) for metric in Metrics(lambda: 0.0).declared},
        "Labels": set(LABELS),
        "Log events": set(LogEvent),
        "Fields of log lines": set(FIELDS),
        "Outcomes": {kind.value for kind in Kind},
        "Reasons": set(Reason),
        "Problems": set(Problem),
        "Exit codes": {f"connector {name}" for name, _ in commands(connector)},
    }
    assert {title: {row[0] for row in cells} for title, cells in rows().items()} == declared


def test_every_row_of_the_page_is_whole() -> None:
    for title, cells in rows().items():
        assert len({tuple(row) for row in cells}) == len(cells), title
        assert len({len(row) for row in cells}) == 1, title
        assert all(row[-1].endswith(".") for row in cells), title


@pytest.mark.parametrize("name", [name for name, _ in commands(connector)])
def test_every_command_says_in_its_help_what_it_can_end_with(name: str) -> None:
    helped = CliRunner().invoke(connector, [*name.split(), "--help"])
    assert helped.exit_code == ExitCode.DONE
    for code, meaning in EXIT_CODES[name].items():
        assert re.search(rf"^ .* {int(code)} +{re.escape(meaning)}$", helped.output, re.MULTILINE)


@pytest.mark.parametrize("name", EXIT_CODES)
def test_a_mistake_in_an_option_has_the_code_that_the_command_declares(name: str) -> None:
    assert CliRunner().invoke(connector, [*name.split(), "--no-such-option"]).exit_code == ExitCode.MISTAKEN
    assert ExitCode.MISTAKEN in EXIT_CODES[name]


def test_every_error_ends_a_command_with_a_declared_code() -> None:
    errors: list[type[ConnectorError]] = [ConnectorError, *ConnectorError.__subclasses__()]
    assert {error.exit_code for error in errors} <= set(ExitCode)
    assert set(ExitCode) == {code for codes in EXIT_CODES.values() for code in codes}


@pytest.fixture
def _no_created_samples() -> Iterator[None]:
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    yield
    prometheus_client.enable_created_metrics()  # type: ignore[no-untyped-call]


@pytest.mark.usefixtures("_no_created_samples")
def test_what_is_scraped_is_what_is_declared() -> None:
    metrics = Metrics(lambda: 0.0)
    labels = {one.name: one.labels for one in metrics.declared}
    for metric in vars(metrics).values():
        if isinstance(metric, Gauge):
            metric.reads(lambda: {0: 1.0})
        elif isinstance(metric, Counter) and (names := labels[metric._name]):
            metric.labels(*names).inc()
    scraped = {
        (family.name, family.type, family.documentation, label)
        for family in text_string_to_metric_families(generate_latest(metrics.registry).decode())
        for sample in family.samples
        for label in [tuple(name for name in sample.labels if name != "le")]
    }
    assert scraped == {(one.name, one.kind, one.sentence, one.labels) for one in metrics.declared}
    assert {label for one in metrics.declared for label in one.labels} == set(LABELS)


@pytest.mark.parametrize("name", connector.list_commands(click.Context(connector)))
def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with(name: str) -> None:
    command = subcommand(connector, name)
    assert command is not None
    listed = " ".join(connector.get_help(click.Context(connector)).split())
    first = " ".join((command.help or "").partition("\n\n")[0].split())
    assert f" {name} {first.partition('. ')[0].rstrip('.')}." in listed
