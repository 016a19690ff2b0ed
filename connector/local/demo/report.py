"""Report: what the demo found, from its results, its dead letters and the capture files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING

from rich.table import Table

from connector.core.answers import headers

if TYPE_CHECKING:
    from aiokafka.structs import ConsumerRecord
    from rich.console import Console

    from connector.local.demo.workload import Item
    from connector.local.endpoint.captures import Capture


@dataclass(slots=True)
class Report:
    """What was produced and what came of it; `problems` are sentences about what does not agree."""

    events: int
    seconds: float
    results: int = 0
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
    seconds: float,
) -> Report:
    """Compare what came with what was produced; `items` are by `topic/partition/offset`.

    A result is joined with the capture line of its InferenceId whose input has the hash `inference-call`.
    `devices` are the InferenceIds that captures may have, None when they are not keys; `seconds` is how long it took from
    the first event that was produced to the last answer.
    """
    report = Report(events=len(items), seconds=seconds, results=len(results))
    lines = list(captures)
    rows = {
        (line.inference_id, sha256(line.input or b"").hexdigest()[:16]): (line.input or b"").split(b"\n")
        for line in lines
    }
    report.captures = len(lines)
    sources = Counter(_source(record) for record in results)
    for record in results:
        said = dict(record.headers)
        item = items[_source(record)]
        report.milliseconds.append(record.timestamp - int(said[headers.EVENT_TIMESTAMP]))
        report.correct += record.value.decode() == item.label
        call = said[headers.INFERENCE_ID].decode(), said[headers.CALL].decode()
        body, index = rows.get(call, []), int(said[headers.BATCH_INDEX])
        report.joined += index < len(body) and body[index] == item.value
    report.dead_letters.update(_reason(letter) for letter in letters)
    if devices is not None:
        report.keyed_captures = sum(line.inference_id in devices for line in lines)
    report.problems += [*_missing(items, sources, letters), *_misjudged(items, sources, letters), *_disjoint(report)]
    return report


def _missing(items: Mapping[str, Item], results: Counter[str], letters: Sequence[ConsumerRecord]) -> Iterable[str]:
    """What is said of events without an answer, or with more than one."""
    buried = Counter(_source(letter) for letter in letters)
    unanswered = [source for source in items if source not in results and source not in buried]
    if unanswered:
        yield f"{len(unanswered)} of {len(items)} events have neither a result nor a dead letter, {unanswered[0]} for one"
    repeated = [source for source, count in (results + buried).items() if count > 1]
    if repeated:
        yield f"{len(repeated)} events were answered more than once, {repeated[0]} for one"


def _misjudged(items: Mapping[str, Item], results: Iterable[str], letters: Sequence[ConsumerRecord]) -> Iterable[str]:
    """What is said of an event that got the other kind of answer, another reason, or a dead letter unlike itself."""
    for source in results:
        if items[source].label is None:
            yield f"the event {source} is broken, but it has a result instead of a dead letter"
    for letter in letters:
        source, reason, item = _source(letter), _reason(letter), items[_source(letter)]
        if reason != item.reason:
            message = dict(letter.headers)[headers.ERROR_MESSAGE].decode()
            yield f"the event {source} was dead-lettered as {reason} ({message}), not as {item.reason or 'any'}"
        if (letter.key, letter.value) != (item.key, item.value):
            yield f"the dead letter of {source} does not have the key and value of its event"


def _disjoint(report: Report) -> Iterable[str]:
    """What is said of results and captures that do not belong together."""
    if report.joined != report.results:
        yield f"only {report.joined} of {report.results} results were found in the capture files"
    if report.keyed_captures is not None and report.keyed_captures != report.captures:
        strange = report.captures - report.keyed_captures
        yield f"{strange} of {report.captures} capture lines have an inferenceId that is not a device name"


def _source(record: ConsumerRecord) -> str:
    source: bytes = dict(record.headers)[headers.SOURCE]
    return source.decode()


def _reason(letter: ConsumerRecord) -> str:
    reason: bytes = dict(letter.headers)[headers.ERROR]
    return reason.decode()


def _rows(report: Report) -> Iterable[tuple[str, str]]:
    times = sorted(report.milliseconds) or [0]
    yield "events produced", f"{report.events:,}"
    yield "results", f"{report.results:,}"
    yield "events a second", f"{report.events / max(report.seconds, 0.001):,.0f}"
    # One capture line a call that was answered; hashes of bodies would not do, because two calls may have equal bodies.
    yield "calls with results", f"{report.captures:,}"
    yield "events a call", f"{report.results / max(1, report.captures):.1f}"
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
