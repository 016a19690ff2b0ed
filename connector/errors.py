"""The exceptions that leave a module of this project, and the codes that a process ends with.

ConnectorError
├── SettingsError        settings that cannot work
├── StartupError         the process cannot start for a reason outside the settings
└── MalformedResponse    a response that is not as many predictions as the call had rows
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a process ended, for the one that started it; `commands/exit_codes.py` says what each means of a command."""

    DONE = 0
    FAILED = 1
    MISTAKEN = 2
    INTERRUPTED = 130


class ConnectorError(Exception):
    """Any error of this project; its text is a sentence for the person who runs it."""

    exit_code = ExitCode.FAILED
    """What a command ends with that ends with this."""


class SettingsError(ConnectorError):
    """Settings that cannot work; the text names the key and what to do."""

    exit_code = ExitCode.MISTAKEN


class StartupError(ConnectorError):
    """The process cannot start, for a reason that is not in the settings."""


class MalformedResponse(ConnectorError):
    """A response body that is not as many predictions as the call had rows."""
