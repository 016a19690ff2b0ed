"""The demo as a person runs it: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo with a folder of its own for temporary files."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTOR_")}
    return subprocess.Popen(
        [sys.executable, "-m", "connector", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "TMPDIR": str(folder), "HOME": environment.get("HOME", tempfile.gettempdir())},
    )


def left_behind(folder: Path) -> list[str]:
    """Files of the demo, and processes that name its folder, some seconds after its end."""
    found: list[str] = []
    for _ in range(50):
        found = [str(path) for path in folder.glob("connector-*")]
        for process in psutil.process_iter(["cmdline"]):
            found += [word for word in process.info["cmdline"] or () if str(folder) in word]
        if not found:
            break
        time.sleep(0.1)
    return found


@pytest.mark.parametrize("mode", ["key", "batch"])
def test_the_demo_agrees_with_itself_and_leaves_nothing_behind(tmp_path: Path, mode: str) -> None:
    process = start(tmp_path, "--events", "120", "--mode", mode)
    out, err = process.communicate(timeout=150)
    assert process.returncode == 0, out + err
    rows = dict(re.findall(r"^(\S.*?) {2,}(.+)$", out, re.MULTILINE))
    assert rows["events produced"] == "123"
    assert rows["results"] == "120"
    assert rows["results found in capture files"].startswith("120 of 120")
    assert rows["dead letters"] == "3 (empty 1, rejected_by_model 1, undecodable 1)"
    assert ("capture lines whose inferenceId is a device" in rows) is (mode == "key")
    assert float(rows["accuracy against the labels"].split()[0]) > 85
    assert err == ""
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("line", ["Starting Apache Kafka", "Training a classifier", "Everything stays up"])
def test_ctrl_c_ends_it_at_any_moment_and_leaves_nothing_behind(tmp_path: Path, line: str) -> None:
    process = start(tmp_path, "--events", "20", "--keep")
    assert process.stdout is not None
    for printed in process.stdout:
        if line in printed:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == (0 if line == "Everything stays up" else 130), out + err
    assert "Traceback" not in out + err
    assert left_behind(tmp_path) == []
