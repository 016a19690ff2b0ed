"""Entry: the first instructions of the process, before anything is imported that takes time."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command line; a signal ends the process from here on, also while it is still being imported.

    Python has no handler for SIGTERM, and the kernel delivers none to the first process of a container that has none.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    from connector.commands.cli import main as command_line

    command_line()


def _end(number: int, frame: object) -> None:
    """End at once: nothing has begun that would have to be ended in order, or it has a handler of its own."""
    # Of a worker that has consumed nothing, the drain is done.
    os._exit(0 if sys.argv[1:2] == ["run"] else 128 + number)
