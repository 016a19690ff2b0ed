"""Journal: the reports of a long run, a line of JSON each, so that it can be resumed; and their sum."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from tests.chaos.checks import Kind, Problem
from tests.chaos.harness import Report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.chaos.scenario import Scenario

_PARTITIONS = ("kafka drop", "kafka cut", "kafka forget")


class Journal:
    """A file of reports; begins anew unless it is to be resumed."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self._path = path
        self.reports: list[Report] = []
        path.parent.mkdir(exist_ok=True)
        if resume and path.exists():
            # A line that was cut off by a crash is of a round that is run again.
            whole = path.read_text().rpartition("\n")[0]
            self.reports = [_parse(line) for line in whole.splitlines()]
        path.write_text("".join(_line(report) for report in self.reports))

    def add(self, report: Report) -> None:
        """Append a report."""
        self.reports.append(report)
        with self._path.open("a") as file:
            file.write(_line(report))

    def find(self, scenario: Scenario) -> Report | None:
        """The report of this scenario with this seed and delivery."""
        wanted = (scenario.name, scenario.seed, scenario.delivery)
        return next((one for one in self.reports if (one.name, one.seed, one.delivery) == wanted), None)


@dataclass(frozen=True, slots=True)
class Sum:
    """What the rounds of one delivery came to together."""

    delivery: str
    rounds: int
    failed: int
    kills: int
    partitions: int
    events: int
    lost: int
    wrong: int
    buried: int
    repeated: int

    @classmethod
    def of(cls, delivery: str, reports: Iterable[Report]) -> Sum:
        """Add up the reports of a delivery."""
        chosen = [report for report in reports if report.delivery == delivery]
        return cls(
            delivery=delivery,
            rounds=len(chosen),
            failed=sum(bool(report.problems) for report in chosen),
            kills=sum(report.happened.get("Kill", 0) for report in chosen),
            partitions=sum(report.happened.get(label, 0) for report in chosen for label in _PARTITIONS),
            events=sum(report.events for report in chosen),
            lost=sum(report.count(Kind.LOST) for report in chosen),
            wrong=sum(report.count(kind) for report in chosen for kind in (Kind.WRONG, Kind.MISNAMED, Kind.DISORDERED)),
            buried=sum(report.count(Kind.BURIED) for report in chosen),
            repeated=sum(report.repeated for report in chosen),
        )


def _line(report: Report) -> str:
    return json.dumps(asdict(report)) + "\n"


def _parse(line: str) -> Report:
    values = json.loads(line)
    values["problems"] = tuple(Problem(Kind(problem["kind"]), problem["text"]) for problem in values["problems"])
    return Report(**values)
