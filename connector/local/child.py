"""Child: a process that does not outlive this one."""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Linux kills the child when the thread that started it ends. `prctl` runs between fork and exec in a small interpreter
# of its own rather than in a preexec_fn, which can deadlock in a process with threads; the comparison of parents covers
# a parent that died before the call. Elsewhere only an orderly exit of this process takes its children along.
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""

_starts: queue.SimpleQueue[tuple[Sequence[str], Path, Future[subprocess.Popen[bytes]]]] = queue.SimpleQueue()
_starter_lock = threading.Lock()
_starter: threading.Thread | None = None


class Child:
    """A running program in a session of its own, with what it prints in a file; `program` is an absolute path."""

    def __init__(self, program: str, arguments: Sequence[str], log: Path) -> None:
        """Start it; raises OSError when it cannot be started."""
        command = [program, *arguments]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
        self.log = log
        self._process = _start(command, log)
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended, paused or not."""
        return self._process.poll() is None

    def wait(self, time_limit: float) -> int | None:
        """Its exit code, or None when it still runs after `time_limit` seconds."""
        try:
            return self._process.wait(time_limit)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask it to end; a paused one is resumed, because it could not hear."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        atexit.unregister(self.kill)

    def pause(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._signal(signal.SIGCONT)

    def last_lines(self, count: int = 12) -> str:
        """The end of what it printed, without the frames of Java's stack traces."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if not line.startswith("\tat ")][-count:])

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def _start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process from the one thread that lives as long as this process; `_LAUNCHER` says why."""
    global _starter
    with _starter_lock:
        if _starter is None or not _starter.is_alive():  # a forked process has the variable but not the thread
            _starter = threading.Thread(target=_serve_starts, name="child-starter", daemon=True)
            _starter.start()
    started: Future[subprocess.Popen[bytes]] = Future()
    _starts.put((command, log, started))
    return started.result()


def _serve_starts() -> None:
    while True:
        command, log, started = _starts.get()
        try:
            with log.open("ab") as output:
                started.set_result(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        start_new_session=True,  # Ctrl-C in a terminal must not end it before its owner does
                    )
                )
        except OSError as error:
            started.set_exception(error)
