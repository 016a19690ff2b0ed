"""Leaks: whatever a test opens is closed when it ends, and a leak fails the test that leaks, not a later one.

Python and asyncio tell of what was not closed when it is collected, which is in the middle of another test. So whatever
would be told later is told at the end of each test's teardown, and what this process has open is compared with what it
had open before the test. What fixtures of a larger scope open at their start is theirs.
"""

from __future__ import annotations

import asyncio
import asyncio.runners
import contextlib
import gc
import logging
import os
import re
import socket
import stat
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

_GRACE = 1.0
"""Seconds in which a task, a thread or a process that is ending may end."""
_OF_POOLS = re.compile(r"child-starter")
"""Names of threads that live as long as the process, however many tests use them."""
_OF_THE_LOOP = 1
"""What an event loop watches by itself: the pipe that wakes it."""
_cancel_all_tasks = asyncio.runners._cancel_all_tasks  # type: ignore[attr-defined]

Opened = set[tuple[Any, ...]]
"""What is open, each by its kind and what it is known by: "file", "thread", "process" or "temporary file"."""


def _opened() -> Opened:
    return {
        *_files(),
        *_threads(),
        *_processes(),
        *(("temporary file", entry.name) for entry in os.scandir(tempfile.gettempdir())),
    }


def _files() -> Iterator[tuple[str, int, int]]:
    """Descriptors of this process but for the standard ones, which pytest moves about."""
    for entry in list(os.scandir("/dev/fd")):
        with contextlib.suppress(OSError):  # that of the listing itself
            number = int(entry.name)
            if number > 2:
                yield "file", number, os.fstat(number).st_ino


def _threads() -> Iterator[tuple[str, threading.Thread]]:
    for thread in threading.enumerate():
        if not _OF_POOLS.fullmatch(thread.name):
            yield "thread", thread


def _processes() -> Iterator[tuple[str, str]]:
    """Child processes by their command, so that a broker which a test restarts is still its fixture's."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            ended = child.status() == psutil.STATUS_ZOMBIE
            yield "process", f"{child.pid} that has ended" if ended else " ".join(child.cmdline())


def _words(kind: str, known_by: Any, *_: int) -> str:
    match kind:
        case "file" if stat.S_ISSOCK(os.fstat(known_by).st_mode):
            with socket.socket(fileno=os.dup(known_by)) as same, contextlib.suppress(OSError):
                return f"socket {same.getsockname()} to {same.getpeername()}"
            return f"socket {known_by}"
        case "file":
            return f"file {os.path.realpath(f'/dev/fd/{known_by}')}"
        case "thread":
            return f"thread {known_by.name}"
    return f"{kind} {known_by}"


class Leaks(logging.Handler):
    """What this process has open, and what asyncio and Python have told of what was not closed."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._known: Opened = set()
        self._told: list[str] = []

    def begin(self) -> None:
        """Take all that is open for what may be."""
        gc.collect()
        # Everything that the imports have made is looked at no more, so that a collection costs what a test has made.
        gc.freeze()
        self._known = _opened()
        self._told.clear()

    def belongs_to_a_fixture(self, before: Opened) -> None:
        """Take what has been opened since for a fixture's that outlives the test."""
        self._known |= _opened() - before

    def end(self) -> list[str]:
        """What the test has left open, in words; each is told once."""
        self._collect()
        if self._left():
            gc.unfreeze()
            self._collect()
        end = time.monotonic() + _GRACE
        while (left := self._left()) and {kind for kind, *_ in left} & {"thread", "process"}:
            if time.monotonic() > end:
                break
            time.sleep(0.02)
        gc.freeze()
        told = [_words(*one) for one in left] + self._told
        self._told = []
        self._known = _opened()
        return told

    def _left(self) -> Opened:
        return _opened() - self._known

    def _collect(self) -> None:
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        try:
            gc.collect()
        finally:
            sys.unraisablehook = hook

    def _unraisable(self, unraisable: sys.UnraisableHookArgs) -> None:
        self._told.append(f"{unraisable.exc_value!r} of {unraisable.object!r}")

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what asyncio logs: a task's end that nobody took, or a client that was not closed."""
        self._told.append(record.getMessage())

    def cancel_all_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel what tasks a loop has at its end, as asyncio does, and keep those that were not ending."""
        ending = asyncio.all_tasks(loop)
        if ending:
            loop.run_until_complete(asyncio.wait(ending, timeout=_GRACE))
        self._told += [f"task {task!r}" for task in asyncio.all_tasks(loop)]
        _cancel_all_tasks(loop)
        # A connection with TLS is open until the other side has said goodbye too, and few clients wait for that.
        selector, end = getattr(loop, "_selector", None), time.monotonic() + _GRACE
        while selector is not None and len(selector.get_map()) > _OF_THE_LOOP and time.monotonic() < end:
            loop.run_until_complete(asyncio.sleep(0.01))


_leaks = Leaks()


@pytest.fixture(scope="session", autouse=True)
def _temporary_files_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for temporary files that no other process of the machine uses, so that what is left there is ours."""
    os.environ["TMPDIR"] = str(tmp_path_factory.mktemp("temporary"))
    tempfile.tempdir = None


def pytest_configure() -> None:
    """Listen."""
    asyncio.runners._cancel_all_tasks = _leaks.cancel_all_tasks  # type: ignore[attr-defined]
    logging.getLogger("asyncio").addHandler(_leaks)


def pytest_collection_finish() -> None:
    """Begin with what the imports have opened."""
    _leaks.begin()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Generator[None, object, object]:
    """Let what a fixture of a larger scope opens be known."""
    if fixturedef.scope == "function":
        return (yield)
    before = _opened()
    value = yield
    _leaks.belongs_to_a_fixture(before)
    return value


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Fail a test, after all of its fixtures have ended, when it has left something open."""
    try:
        yield
    except BaseException as error:
        for leak in _end(item):
            error.add_note(f"Left open: {leak}")
        raise
    if leaks := _end(item):
        pytest.fail("\n".join(["This test has left open:", *leaks]), pytrace=False)


def _end(item: pytest.Item) -> list[str]:
    # A failed test's frames, and the values of its fixtures, hold what it had opened.
    for name in ("last_exc", "last_value", "last_traceback"):
        vars(sys).pop(name, None)
    getattr(item, "funcargs", {}).clear()
    return _leaks.end()
