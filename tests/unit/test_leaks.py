"""A leak fails the test that leaks, whatever it is, and never the one that comes after it."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SUITE = '''
import asyncio, socket, subprocess, tempfile, threading
import aiohttp, pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaConnectionError

KEPT = []


def lost(something):
    """Let only the collector find it."""
    cycle = [something]
    cycle.append(cycle)


@pytest.fixture(scope="module")
def lasting():
    child = subprocess.Popen(["sleep", "600"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener
    child.kill()
    child.wait()


async def connected(listener):
    return await asyncio.open_connection(*listener.getsockname())


def test_socket(lasting):
    lost(socket.create_connection(lasting.getsockname()))


def test_kept_socket(lasting):
    KEPT.append(socket.create_connection(lasting.getsockname()))


async def test_transport(lasting):
    lost(await connected(lasting))


async def test_failed_start_of_a_client():
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        address = "127.0.0.1:%d" % nobody.getsockname()[1]
    with pytest.raises(KafkaConnectionError):
        await AIOKafkaConsumer("any", bootstrap_servers=address).start()


async def test_session():
    lost(aiohttp.ClientSession())


def test_loop():
    lost(asyncio.new_event_loop())


async def test_task():
    KEPT.append(asyncio.create_task(asyncio.sleep(600)))


async def test_failed_task():
    async def fail():
        raise OSError("nobody asks")
    lost(asyncio.create_task(fail()))
    await asyncio.sleep(0)


async def test_coroutine():
    lost(asyncio.sleep(0))


def test_process():
    # It ends with this process.
    KEPT.append(subprocess.Popen(["cat", "-u"], stdin=subprocess.PIPE))


def test_thread():
    threading.Thread(target=threading.Event().wait, name="loose", daemon=True).start()


def test_temporary_file():
    tempfile.mkdtemp(prefix="forgotten")


def test_open_file(tmp_path):
    KEPT.append((tmp_path / "any").open("w"))


def test_that_fails(lasting):
    connection = socket.create_connection(lasting.getsockname())
    raise RuntimeError("while it is open")
'''
INNOCENT = """

async def test_innocent_{number}(lasting):
    _, writer = await connected(lasting)
    task = asyncio.create_task(asyncio.sleep(600))
    task.cancel()
    writer.close()
    await asyncio.to_thread(tempfile.TemporaryFile().close)
    subprocess.run(["true"])
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run says of each test of the suite, "" where it is content."""
    folder = tmp_path_factory.mktemp("suite")
    leaky, *others = SUITE.split("\n\n\n")
    for number, part in enumerate(others):
        leaky += "\n\n\n" + part + (INNOCENT.format(number=number) if "def test_" in part else "")
    (folder / "test_suite.py").write_text(leaky)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", ".", "-p", "tests.leaks", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, "--junitxml", "told.xml", "test_suite.py"]
    subprocess.run(command, cwd=folder, check=False, timeout=60, stdout=subprocess.DEVNULL)
    told: dict[str, str] = {}
    for case in ET.parse(folder / "told.xml").iter("testcase"):
        told[case.attrib["name"]] = told.get(case.attrib["name"], "") + "".join(part.text or "" for part in case)
    return told


@pytest.mark.parametrize(
    ("leak", "words"),
    [
        ("socket", "unclosed <socket"),
        ("kept_socket", "socket ('127.0.0.1'"),
        ("transport", "unclosed transport"),
        ("failed_start_of_a_client", "Unclosed AIOKafkaConsumer"),
        ("session", "Unclosed client session"),
        ("loop", "unclosed event loop"),
        ("task", "task <Task pending"),
        ("failed_task", "Task exception was never retrieved"),
        ("coroutine", "was never awaited"),
        ("process", "process cat -u"),
        ("thread", "thread loose"),
        ("temporary_file", "temporary file forgotten"),
        ("open_file", "test_open_file0/any"),
        ("that_fails", "unclosed <socket"),
    ],
)
def test_a_leak_fails_the_test_that_leaks_by_its_name(told: dict[str, str], leak: str, words: str) -> None:
    assert words in told[f"test_{leak}"]


def test_a_failed_test_still_says_why_it_failed(told: dict[str, str]) -> None:
    assert "while it is open" in told["test_that_fails"]


def test_no_innocent_test_is_blamed(told: dict[str, str]) -> None:
    innocent = [name for name in told if name.startswith("test_innocent")]
    assert len(innocent) == len(told) / 2
    assert {name: told[name] for name in innocent if told[name]} == {}
