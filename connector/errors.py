"""The exceptions that leave a module of this project.

ConnectorError
├── SettingsError        settings that cannot work: exit code 2
├── StartupError         the process cannot start for a reason outside the settings: exit code 1
└── MalformedResponse    a response that is not as many predictions as the call had rows
"""

from __future__ import annotations


class ConnectorError(Exception):
    """Any error of this project; its text is a sentence for the person who runs it."""


class SettingsError(ConnectorError):
    """Settings that cannot work; the text names the key and what to do."""


class StartupError(ConnectorError):
    """The process cannot start, for a reason that is not in the settings."""


class MalformedResponse(ConnectorError):
    """A response body that is not as many predictions as the call had rows."""
