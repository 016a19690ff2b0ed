"""`connector reference`: what others can build on, as one page made of the declarations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import click

from connector.commands.exit_codes import EXIT_CODES, epilog
from connector.core.answers.headers import HEADERS
from connector.core.calls.outcome import Kind
from connector.core.reason import Reason
from connector.telemetry.log_events import FIELDS, LogEvent
from connector.telemetry.metrics import LABELS, Metrics
from connector.telemetry.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from connector.telemetry.metrics import Declaration

_HEAD = """\
# Reference

What others can build on: the headers of records, metrics, log lines, reasons, problems, exit codes. Settings are in
[config/connector.yaml](../config/connector.yaml), which also says how the environment overrides them.

Written by `connector reference > docs/reference.md`.
"""


class Section(NamedTuple):
    """One table of the page, with what is to be said before it."""

    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def lines(self) -> Iterator[str]:
        """The section in Markdown."""
        yield from ("", f"## {self.title}", "", self.text, "")
        for cells in (self.columns, ["---"] * len(self.columns), *self.rows):
            yield f"| {' | '.join(cells)} |"


def page() -> str:
    """The text of `docs/reference.md`."""
    metrics = Metrics(lambda: 0.0).declared
    sections = (
        Section(
            "Headers",
            "A result has its event's headers too, but for those of a name below, which it replaces. A dead letter has its "
            "event's headers untouched, and these behind them: of two with one name the last is the connector's.",
            ("header", "on", "when", "bytes", "example", "says"),
            [
                (
                    _code(header.name),
                    header.on.value,
                    "always" if header.always else "when known",
                    header.content.words,
                    _code(header.example),
                    header.sentence,
                )
                for header in HEADERS
            ],
        ),
        Section(
            "Metrics",
            "`/metrics` shows them in Prometheus' text format. A histogram gives `_bucket`, `_sum` and `_count`.",
            ("metric", "kind", "unit", "labels", "says"),
            [
                (_code(shown_name(one)), one.kind, one.unit, _codes(one.labels), one.sentence)
                for one in sorted(metrics, key=lambda one: one.name)
            ],
        ),
        Section("Labels", "What the values of a label are.", ("label", "says"), _named(LABELS.items())),
        Section(
            "Log events",
            "A line of `log.format: json` is one JSON object on stderr, with `timestamp`, `level`, `event` and `logger` "
            "before these fields. A field with a question mark is there where it is known or wanted. Lines of libraries "
            "have their text as `event`.",
            ("event", "fields", "says"),
            [
                (_code(event), _codes((*event.fields, *(f"{name}?" for name in event.sometimes))), event.sentence)
                for event in sorted(LogEvent)
            ],
        ),
        Section("Fields of log lines", "What each field says.", ("field", "says"), _named(FIELDS.items())),
        Section(
            "Outcomes",
            "What the end of a call means for its events: a label of `connector_calls_total`.",
            ("outcome", "says"),
            _named((kind.value, kind.meaning) for kind in Kind),
        ),
        Section(
            "Reasons",
            "Why an outcome is what it is: the header `inference-error`, a label of metrics, a field of log lines.",
            ("reason", "says", "what to do"),
            [(_code(reason), reason.meaning, reason.remedy) for reason in sorted(Reason)],
        ),
        Section(
            "Problems",
            "Why the process is not ready, the gravest first: `/health/ready` begins with its name and sentence. What is in "
            "braces is filled in.",
            ("problem", "says", "log event", "what to do"),
            [(_code(one), plain(one.sentence), _code(one.told_by), one.remedy) for one in Problem],
        ),
        Section(
            "Exit codes",
            "What a command ends with.",
            ("command", "code", "says"),
            [
                (_code(f"connector {command}"), str(int(code)), f"{meaning[0].upper()}{meaning[1:]}.")
                for command, codes in EXIT_CODES.items()
                for code, meaning in codes.items()
            ],
        ),
    )
    return _HEAD + "\n".join(line for section in sections for line in section.lines()) + "\n"


def shown_name(metric: Declaration) -> str:
    """The name of a metric on the page /metrics, where a counter's has an ending of its own."""
    return f"{metric.name}_total" if metric.kind == "counter" else metric.name


def plain(sentence: str) -> str:
    """A problem's sentence, its fields by their names alone."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", sentence)


def _named(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(_code(name), sentence) for name, sentence in pairs]


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(texts: Sequence[str]) -> str:
    return ", ".join(map(_code, texts))


@click.command(epilog=epilog("reference"))
def reference() -> None:
    """Print every record header, metric, log event, reason, problem and exit code, with what it means, in Markdown."""
    click.echo(page(), nl=False)
