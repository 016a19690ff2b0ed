"""The demo as a person runs it: what it prints, what its report notices, and that it leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

import psutil
import pytest
from rich.console import Console

from connector.core.routes.inference_id import key_id
from connector.errors import StartupError
from connector.local.demo.demo import Demo
from connector.local.demo.report import make_report
from connector.local.demo.workload import DEVICES, Item, workload
from connector.local.endpoint.captures import Capture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from connector.local.demo.report import Report

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Start = Callable[..., subprocess.Popen[str]]

LAST_ROW = "results found in capture files"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the demo with a folder of its own for temporary files, and a session of its own, as a terminal gives."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTOR_")}
    with ExitStack() as running:

        def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
            process = running.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "connector", "demo", *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={**own, "TMPDIR": str(tmp_path), **environment},
                    start_new_session=True,
                )
            )
            running.callback(process.kill)
            return process

        yield start


def read_until(process: subprocess.Popen[str], part: str) -> str:
    """What the demo prints up to the line that has `part`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return "".join(lines)
    pytest.fail("".join(lines) + (process.stderr.read() if process.stderr else ""))


def left_behind(folder: Path) -> list[str]:
    """Files of the demo, and processes that name its folder, some seconds after its end."""
    found: list[str] = []
    for _ in range(200):
        found = [str(path) for path in folder.iterdir()]
        for process in psutil.process_iter(["cmdline"]):
            found += [word for word in process.info["cmdline"] or () if str(folder) in word]
        if not found:
            break
        time.sleep(0.1)
    return found


def test_the_demo_agrees_with_itself_and_leaves_nothing_behind(tmp_path: Path, start: Start) -> None:
    # A person's own account and proxy are none of the demo's business.
    foreign = {"AWS_PROFILE": "no-such-profile", "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    process = start("--events", "120", CONNECTOR_KAFKA__GROUP_ID="other", **foreign)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, out + err
    rows = dict(re.findall(r"^(\S.*?) {2,}(.+)$", out, re.MULTILINE))
    assert rows["events produced"] == "123"
    assert rows["results"] == "120"
    assert float(rows["events a second"].replace(",", "")) > 1
    assert rows[LAST_ROW].startswith("120 of 120")
    assert rows["dead letters"] == "3 (empty 1, rejected_by_model 1, undecodable 1)"
    all_of_them = re.fullmatch(r"(\d+) of (\d+)", rows["capture lines whose inferenceId is a device"])
    assert all_of_them is not None
    assert all_of_them[1] == all_of_them[2] == rows["calls with results"]
    assert float(rows["accuracy against the labels"].split()[0]) > 85
    assert err == ""
    assert left_behind(tmp_path) == []


def test_who_lacks_the_extra_is_told_so_before_a_kafka_is_started(tmp_path: Path, start: Start) -> None:
    lacking = tmp_path / "lacking" / "sklearn"
    lacking.mkdir(parents=True)
    (lacking / "__init__.py").write_text("raise ModuleNotFoundError('No module named sklearn')\n")
    process = start(PYTHONPATH=str(lacking.parent))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert (
        err == "The demo needs scikit-learn, which is not installed: pip install 'sagemaker-kafka-connector[demo]'.\n"
    )


# The last row is when everything is taken down again: the loop is closed, and Kafka still stops.
@pytest.mark.parametrize(
    ("number", "line", "delay", "code"),
    [
        (signal.SIGINT, "Starting Apache Kafka", 0.0, 130),
        (signal.SIGINT, "Kafka serves at", 0.0, 130),
        (signal.SIGINT, "Training a classifier", 0.0, 130),
        (signal.SIGTERM, "Producing events", 0.2, 130),
        (signal.SIGTERM, LAST_ROW, 0.8, 0),
    ],
)
def test_a_signal_ends_it_at_any_moment_and_leaves_nothing_behind(
    tmp_path: Path, start: Start, number: signal.Signals, line: str, delay: float, code: int
) -> None:
    # As many events as it takes to be interrupted among them.
    process = start("--events", "50" if line is LAST_ROW else "5000", "--mode", "batch")
    printed = read_until(process, line)
    time.sleep(delay)
    process.send_signal(number)
    process.send_signal(number)  # nobody presses Ctrl-C only once
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, printed + out + err
    assert "Traceback" not in out + err
    assert left_behind(tmp_path) == []


def test_what_stays_up_can_be_tried_as_it_is_printed_and_ctrl_c_ends_it(tmp_path: Path, start: Start) -> None:
    process = start("--events", "20", "--keep")
    assert process.stdout is not None
    printed = read_until(process, "Try, in another terminal")
    commands: list[str] = []
    while "second process" not in (line := process.stdout.readline()):
        commands += [line] if line.startswith("  ") and not line.startswith("  #") else []
    assert "127.0.0.1" in printed
    answers = [subprocess.run(command, shell=True, capture_output=True, text=True, timeout=30) for command in commands]
    assert [answer.returncode for answer in answers] == [0] * len(commands), answers
    said = "".join(answer.stdout for answer in answers)
    for expected in ("ready", "connector_calls_total", "captureData", "produced 503 events"):
        assert expected in said
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert left_behind(tmp_path) == []


def test_a_connector_that_dies_ends_the_demo_with_the_end_of_its_log(tmp_path: Path, start: Start) -> None:
    process = start("--events", "5000")
    read_until(process, "Producing events")
    children = psutil.Process(process.pid).children()
    (worker,) = [child for child in children if "run" in child.cmdline()]
    worker.kill()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith("The connector ended by itself, with code -9.\nThe connector's last log lines:\n  ")
    assert "Traceback" not in err
    assert left_behind(tmp_path) == []


async def test_a_port_that_is_taken_between_its_choice_and_its_use_is_named(tmp_path: Path) -> None:
    one = Demo("127.0.0.1:1", lambda: None, tmp_path, "key", [], Console())
    one.url = "http://127.0.0.1:1"
    with socket.socket() as other:
        other.bind(("127.0.0.1", one.port))
        other.listen()
        async with one._connector() as connector:
            with pytest.raises(
                StartupError, match=rf"(?s)ended by itself.*Port {one.port} on 127\.0\.0\.1 cannot be used"
            ):
                await one._until_ready(connector)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path: Path, start: Start) -> None:
    (tmp_path / "file").touch()
    process = start(HOME=str(tmp_path / "file"), XDG_CACHE_HOME="")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.fullmatch(r".*/file/\.cache/.* cannot be written \(Not a directory\): set XDG_CACHE_HOME .*\n", err)
    assert left_behind(tmp_path) == [str(tmp_path / "file")]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with a parent that was killed")
def test_no_process_outlives_a_demo_that_was_killed(tmp_path: Path, start: Start) -> None:
    process = start("--events", "5000")
    read_until(process, "Producing events")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.communicate(timeout=30)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []


def test_a_reader_that_goes_away_ends_it(tmp_path: Path, start: Start) -> None:
    process = start("--events", "20")
    read_until(process, "Kafka serves")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr as errors:
        err = errors.read()
    assert process.wait(60) == 1
    assert err == ""
    assert left_behind(tmp_path) == []


def test_a_terminal_shows_progress_and_a_table_with_lines_also_in_mode_batch(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TMPDIR": str(tmp_path), "TERM": "xterm", "COLUMNS": "100"}
    arguments = [sys.executable, "-m", "connector", "demo", "--events", "200", "--mode", "batch"]
    with subprocess.Popen(arguments, stdout=theirs, stderr=theirs, env=environment, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        try:
            while select.select([ours], [], [], 120)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # Linux, once nobody holds the other side
                    break
                if process.poll() is not None and not select.select([ours], [], [], 0)[0]:
                    break
            assert process.wait(30) == 0, shown
        finally:
            os.close(ours)
            process.kill()
    text = shown.decode()
    assert "203/203" in text
    assert "3 dead letters" in text
    assert re.search(rf"│.*{LAST_ROW}.*│.*200 of 200", text)
    assert "inferenceId" not in text  # no call has a device's name


@pytest.mark.parametrize("events", [1, 2, 3, 60, 899, 2000])
def test_the_workload_has_as_many_good_events_as_asked_for_and_three_broken_ones(events: int) -> None:
    items = workload(events)
    assert len([item for item in items if item.label is not None and item.reason is None]) == events
    assert {item.reason for item in items if item.label is None} == {"undecodable", "empty", "rejected_by_model"}
    assert {item.key.decode() for item in items} <= set(DEVICES)


def test_device_names_are_their_own_inference_ids() -> None:
    assert len(set(DEVICES)) == 60
    assert [key_id(name.encode()) for name in DEVICES] == list(DEVICES)


@dataclass(frozen=True)
class Record:
    """What the report reads of a result or a dead letter."""

    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    timestamp: int = 1_030


@dataclass
class Run:
    """One run in which everything agrees: two events in one call, and a broken one."""

    items: dict[str, Item]
    results: list[Record]
    letters: list[Record]
    captures: list[Capture]

    def report(self, devices: frozenset[str] | None = frozenset(DEVICES)) -> Report:
        """What is said of it."""
        results: list[Any] = list(self.results)
        letters: list[Any] = list(self.letters)
        return make_report(self.items, results, letters, self.captures, devices, 2.0)


@pytest.fixture
def run() -> Run:
    body, device = b"1,1\n2,2", b"device-07"
    good = [Item(device, b"1,1", "1"), Item(device, b"2,2", "2")]
    broken = Item(device, None, reason="empty")
    results = [
        Record(
            device,
            b"1",
            (
                ("inference-id", device),
                ("inference-source", b"in/0/%d" % row),
                ("inference-event-timestamp", b"1000"),
                ("inference-batch-index", b"%d" % row),
                ("inference-call", sha256(body).hexdigest()[:16].encode()),
            ),
        )
        for row in range(2)
    ]
    reason = (("inference-source", b"in/0/2"), ("inference-error", b"empty"), ("inference-error-message", b"no value"))
    capture = Capture("digits", "AllTraffic", "event", datetime.now(UTC), inference_id="device-07", input=body)
    items = {f"in/0/{offset}": item for offset, item in enumerate([*good, broken])}
    return Run(items, results, [Record(device, None, reason)], [capture])


def test_the_report_of_a_run_that_agrees_has_no_problems(run: Run) -> None:
    report = run.report()
    assert report.problems == []
    assert (report.events, report.results, report.joined, report.captures, report.correct) == (3, 2, 2, 1, 1)
    assert report.milliseconds == [30, 30]


def _duplicate_one_and_lose_one(run: Run) -> None:
    run.results[1] = run.results[0]


def _swap_rows(run: Run) -> None:
    run.captures[0] = replace(run.captures[0], input=b"2,2\n1,1")


def _other_id(run: Run) -> None:
    run.captures[0] = replace(run.captures[0], inference_id="b-0")


def _other_reason(run: Run) -> None:
    run.letters[0] = replace(run.letters[0], headers=(*run.letters[0].headers, ("inference-error", b"too_large")))


def _other_value(run: Run) -> None:
    run.letters[0] = replace(run.letters[0], value=b"")


def _good_one_buried(run: Run) -> None:
    run.results.pop()
    run.letters.append(replace(run.letters[0], headers=(("inference-source", b"in/0/1"), *run.letters[0].headers[1:])))


def _broken_one_answered(run: Run) -> None:
    run.letters.clear()
    headers = tuple((name, b"in/0/2" if name == "inference-source" else was) for name, was in run.results[0].headers)
    run.results.append(replace(run.results[0], headers=headers))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_duplicate_one_and_lose_one, "1 of 3 events have neither"),
        (_duplicate_one_and_lose_one, "answered more than once, in/0/0"),
        (_swap_rows, "only 0 of 2 results were found"),
        (_other_id, "only 0 of 2 results were found"),
        (_other_id, "1 of 1 capture lines"),
        (lambda run: run.captures.clear(), "only 0 of 2 results were found"),
        (lambda run: run.letters.clear(), "1 of 3 events have neither"),
        (_other_reason, r"dead-lettered as too_large \(no value\), not as empty"),
        (_other_value, "does not have the key and value"),
        (_good_one_buried, "in/0/1 was dead-lettered as empty"),
        (_broken_one_answered, "in/0/2 is broken, but it has a result"),
    ],
)
def test_the_report_notices(run: Run, spoil: Callable[[Run], object], problem: str) -> None:
    spoil(run)
    assert re.search(problem, "\n".join(run.report().problems))
