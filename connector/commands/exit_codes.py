"""Exit codes: what each command ends with, and what that means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from connector.errors import ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping

_USAGE: Final = "an option that does not exist, or a value that it does not take"

EXIT_CODES: Final[Mapping[str, Mapping[ExitCode, str]]] = {
    "run": {
        ExitCode.DONE: "drained after a signal",
        ExitCode.FAILED: "cannot start, crashed, or ended by force",
        ExitCode.MISTAKEN: "wrong settings; stderr names each key and what to do",
    },
    "config": {
        ExitCode.DONE: "printed",
        ExitCode.FAILED: "the installation lacks its examples",
        ExitCode.MISTAKEN: "wrong settings, or " + _USAGE + "; stderr names each key and what to do",
    },
    "demo": {
        ExitCode.DONE: "everything agrees",
        ExitCode.FAILED: "something does not, or cannot start; a sentence says what",
        ExitCode.MISTAKEN: _USAGE,
        ExitCode.INTERRUPTED: "Ctrl-C before the table",
    },
    "local kafka": {
        ExitCode.DONE: "stopped by Ctrl-C or SIGTERM",
        ExitCode.FAILED: "cannot start, or a broker ended; a sentence says why",
        ExitCode.MISTAKEN: _USAGE,
    },
    "local endpoint": {
        ExitCode.DONE: "stopped by Ctrl-C or SIGTERM",
        ExitCode.FAILED: "cannot start; a sentence says why",
        ExitCode.MISTAKEN: "faults that cannot be read, or " + _USAGE,
    },
    "reference": {
        ExitCode.DONE: "printed",
        ExitCode.MISTAKEN: _USAGE,
    },
}
"""Every command with all that it can end with."""


def epilog(command: str) -> str:
    """The end of a command's --help."""
    codes = EXIT_CODES[command]
    width = max(len(str(int(code))) for code in codes)
    lines = [f"{int(code):<{width}}  {meaning}" for code, meaning in codes.items()]
    return "\b\nExit codes:  " + "\n             ".join(lines)
