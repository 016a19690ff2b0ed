"""Report: what the demo found, from its results, its dead letters and the capture files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord
    from rich.console import Console

    from connector.demo.workload import Item
    from connector.local.captures import Capture


@dataclass(slots=True)
class Report:
    """What was produced and what came of it; `problems` are sentences about what does not agree."""

    events: int
    results: int = 0
    calls: int = 0
    milliseconds: list[int] = field(default_factory=list)
    correct: int = 0
    dead_letters: Counter[str] = field(default_factory=Counter)
    joined: int = 0
    captures: int = 0
    keyed_captures: int | None = None
    problems: list[str] = field(default_factory=list)


def make_report(
    items: Mapping[str, Item],
    results: Sequence[ConsumerRecord],
    letters: Sequence[ConsumerRecord],
    captures: Iterable[Capture],
    devices: frozenset[str] | None,
) -> Report:
    """Compare what came with what was produced; `items` are by `topic/partition/offset`.

    `devices` are the InferenceIds that captures may have, None when they are not keys.
    """
    report = Report(events=len(items), results=len(results))
    lines = list(captures)
    rows = {sha256(line.input or b"").hexdigest()[:16]: (line.input or b"").split(b"\n") for line in lines}
    report.captures = len(lines)
    for record in results:
        headers = dict(record.headers)
        item = items[headers["inference-source"].decode()]
        report.milliseconds.append(record.timestamp - int(headers["inference-event-timestamp"]))
        report.correct += record.value.decode() == item.label
        body, index = rows.get(headers["inference-call"].decode(), []), int(headers["inference-batch-index"])
        report.joined += index < len(body) and body[index] == item.value
    report.calls = len({dict(record.headers)["inference-call"] for record in results})
    report.dead_letters.update(dict(record.headers)["inference-error"].decode() for record in letters)
    if devices is not None:
        report.keyed_captures = sum(line.inference_id in devices for line in lines)
    good = sum(item.label is not None for item in items.values())
    if report.results != good:
        report.problems.append(f"{good} events have a row to answer, but {report.results} results came")
    if len(letters) != len(items) - good:
        report.problems.append(f"{len(items) - good} events were broken, but {len(letters)} dead letters came")
    if report.joined != report.results:
        report.problems.append(f"only {report.joined} of {report.results} results were found in the capture files")
    if report.keyed_captures is not None and report.keyed_captures != report.captures:
        report.problems.append("some capture lines have an inferenceId that is not a device name")
    return report


def _rows(report: Report) -> Iterable[tuple[str, str]]:
    times = sorted(report.milliseconds) or [0]
    yield "events produced", f"{report.events:,}"
    yield "results", f"{report.results:,}"
    yield "calls with results", f"{report.calls:,}"
    yield "events a call", f"{report.results / max(1, report.calls):.1f}"
    yield "produced to result, p50", f"{times[len(times) // 2]:,} ms"
    yield "produced to result, p99", f"{times[min(len(times) - 1, len(times) * 99 // 100)]:,} ms"
    yield "accuracy against the labels", f"{100 * report.correct / max(1, report.results):.1f} %"
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(report.dead_letters.items()))
    yield "dead letters", f"{report.dead_letters.total()} ({reasons})"
    yield "results found in capture files", f"{report.joined:,} of {report.results:,}, each with its own input row"
    if report.keyed_captures is not None:
        yield "capture lines whose inferenceId is a device", f"{report.keyed_captures:,} of {report.captures:,}"


def show(report: Report, console: Console) -> None:
    """Print the table: with lines on a terminal, aligned text in a pipe."""
    if console.is_terminal:
        table = Table(title="What the demo measured", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        for name, value in _rows(report):
            table.add_row(name, value)
        console.print(table)
        return
    for name, value in _rows(report):
        console.print(f"{name:<45}{value}")
