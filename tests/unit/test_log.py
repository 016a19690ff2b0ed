"""Log: one form for every line, whoever writes it, and no flood."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from connector.telemetry.log import EVENT_FIELDS, FIELDS, RateLimit, configure
from connector.telemetry.log_events import LogEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

LIBRARIES = ("aiokafka", "aiobotocore", "aiohttp.access", "boto3", "botocore", "connector", "faust", "mode", "urllib3")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_is_one_json_object_that_begins_with_the_fixed_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    log = structlog.get_logger("connector.pipeline")
    log.warning(
        LogEvent.DEAD_LETTERED,
        extra=1,
        reason="rejected_by_model",
        attempt=2,
        batch_id="b",
        inference_id="i",
        key=b"k\xff",
        offset=7,
        partition=3,
        topic="t",
    )
    (line,) = lines(capsys)
    assert tuple(line)[: len(FIELDS) + len(EVENT_FIELDS)] == FIELDS + EVENT_FIELDS
    assert line["event"] == "dead_lettered"
    assert line["level"] == "warning"
    assert line["logger"] == "connector.pipeline"
    assert line["key"] == "k\\xff"
    assert line["extra"] == 1
    utc = datetime.fromisoformat(line["timestamp"]).utcoffset()
    assert utc is not None
    assert not utc


def test_a_librarys_line_has_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    logging.getLogger("aiokafka.conn").info("Authenticated as %s", "me", extra={"topic": "t"})
    (line,) = lines(capsys)
    assert tuple(line) == (*FIELDS, "topic")
    assert line["event"] == "Authenticated as me"
    assert line["logger"] == "aiokafka.conn"


def fail() -> None:
    hidden = "payload"
    raise ValueError(len(hidden))


@pytest.mark.parametrize("logger", ["structlog", "stdlib"])
def test_a_traceback_is_one_field_and_shows_no_values(capsys: pytest.CaptureFixture[str], logger: str) -> None:
    configure("INFO", "json")
    try:
        fail()
    except ValueError:
        (structlog.get_logger("a") if logger == "structlog" else logging.getLogger("a")).exception("failed")
    (line,) = lines(capsys)
    assert line["event"] == "failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: 7")


def test_whatever_a_field_holds_the_line_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    structlog.get_logger("a").info("odd", lone="\ud800", big=10**30, thing=object, nested={"key": b"\xff"}, nan=None)
    (line,) = lines(capsys)
    assert line["lone"] == "\ud800"
    assert line["big"] == 10**30


def test_a_second_configuration_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger("a")
    configure("INFO", "text")
    log.info("first")
    configure("WARNING", "json")
    log.info("too quiet")
    log.warning("second")
    first, second = capsys.readouterr().err.splitlines()
    assert "first" in first
    assert json.loads(second)["event"] == "second"


@pytest.mark.parametrize(("level", "aiokafka", "botocore"), [("DEBUG", "INFO", "WARNING"), ("ERROR", "ERROR", "ERROR")])
def test_libraries_are_quieter_than_the_connector(level: str, aiokafka: str, botocore: str) -> None:
    configure(level, "json")
    assert logging.getLogger("aiokafka.producer").getEffectiveLevel() == logging.getLevelName(aiokafka)
    assert logging.getLogger("botocore.auth").getEffectiveLevel() == logging.getLevelName(botocore)
    assert logging.getLogger("connector.process").getEffectiveLevel() == logging.getLevelName(level)


def test_text_has_colours_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr(sys, "stderr", stream)
        configure("INFO", "text")
        structlog.get_logger("a").info(LogEvent.READY, topic="t")
        written[stream.isatty()] = stream.getvalue()
    assert "\x1b[" in written[True]
    assert "\x1b[" not in written[False]
    assert "ready" in written[False]
    assert "topic=t" in written[False]


def test_text_shows_a_traceback_without_values(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "text")
    try:
        fail()
    except ValueError:
        structlog.get_logger("a").exception("failed")
    written = capsys.readouterr().err
    assert "ValueError: 7" in written
    assert "payload" not in written


def test_a_warning_is_a_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    configure("INFO", "json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        # pytest and catch_warnings have put back what configure had replaced.
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    (line,) = lines(capsys)
    assert line["logger"] == "py.warnings"
    assert "careful" in line["event"]


def test_every_log_event_is_in_snake_case_and_declared_once() -> None:
    assert len({event.value for event in LogEvent}) == len(LogEvent)
    for event in LogEvent:
        assert event.value == event.name.lower()


# The rate limit, in virtual time


class Limited:
    """A logger of aiokafka behind a rate limit whose clock the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.summaries: list[str] = []
        self.limit = RateLimit(
            "aiokafka", lambda record: self.summaries.append(record.getMessage()), clock=lambda: self.now
        )

    def write(self, template: str, *values: object, logger: str = "aiokafka.client", times: int = 1) -> int:
        """Write lines; how many of them passed."""
        return sum(
            bool(self.limit.filter(logging.LogRecord(logger, logging.ERROR, "", 0, template, values, None)))
            for _ in range(times)
        )


def test_a_template_passes_five_times_a_second_whatever_its_values() -> None:
    limited = Limited()
    assert sum(limited.write("node %s is away", node) for node in range(1000)) == 5
    limited.now += 1
    assert limited.write("node %s is away", 1, times=1000) == 5


def test_one_line_then_says_how_many_were_held_back() -> None:
    limited = Limited()
    limited.write("node %s is away", 1, times=1000)
    assert limited.summaries == []
    limited.now += 2.5
    limited.write("something else", logger="connector.process")
    limited.write("node %s is away", 1)
    assert limited.summaries == ["995 more lines like this were held back in 2.5 s: node %s is away"]


def test_nothing_is_said_when_nothing_was_held_back() -> None:
    limited = Limited()
    for _ in range(20):
        assert limited.write("node %s is away", 1, times=5) == 5
        limited.now += 1
    assert limited.summaries == []


def test_templates_and_loggers_are_counted_apart() -> None:
    limited = Limited()
    assert limited.write("a", times=10) + limited.write("b", times=10) == 10
    assert limited.write("a", logger="aiokafka.conn", times=10) == 5


def test_other_loggers_are_not_limited() -> None:
    limited = Limited()
    assert limited.write("a", logger="connector.process", times=1000) == 1000
    assert limited.write("a", logger="aiokafkaesque", times=1000) == 1000


def test_a_flood_of_aiokafka_reaches_stderr_as_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    configure("INFO", "json", clock=lambda: now[0])
    for node in range(100):
        logging.getLogger("aiokafka.client").error("Unable connect to node with id %s", node)
    now[0] = 1.0
    logging.getLogger("connector.process").info("on")
    events = [line["event"] for line in lines(capsys)]
    assert events[:5] == [f"Unable connect to node with id {node}" for node in range(5)]
    assert events[5:] == [
        "95 more lines like this were held back in 1.0 s: Unable connect to node with id %s",
        "on",
    ]


@pytest.mark.parametrize(
    "library", ["aiobotocore.credentials", "aiokafka.cluster", "botocore.credentials", "aiohttp.client"]
)
def test_every_library_that_repeats_itself_is_limited_in_the_log(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("INFO", "json", clock=lambda: 0.0)
    for number in range(500):
        try:
            raise OSError(number)
        except OSError:
            logging.getLogger(library).warning("Refreshing failed", exc_info=True)
    assert stream.getvalue().count("Refreshing failed") == 5
