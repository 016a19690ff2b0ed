"""Settings: everything that a person can set, where it comes from, and what is wrong with it in sentences.

`load` reads them, `Settings` holds them, `effective` shows them; each section is a frozen model of its own.
"""

from connector.settings.effective import effective
from connector.settings.endpoint import Endpoint, FromHeader
from connector.settings.kafka import Kafka
from connector.settings.load import load, parse
from connector.settings.request import Request
from connector.settings.sections import (
    Batch,
    Bisect,
    Buffer,
    Concurrency,
    Correlation,
    DeadLetter,
    Log,
    Result,
    Retry,
    Shutdown,
    Web,
)
from connector.settings.security import Security
from connector.settings.settings import Settings

__all__ = [
    "Batch",
    "Bisect",
    "Buffer",
    "Concurrency",
    "Correlation",
    "DeadLetter",
    "Endpoint",
    "FromHeader",
    "Kafka",
    "Log",
    "Request",
    "Result",
    "Retry",
    "Security",
    "Settings",
    "Shutdown",
    "Web",
    "effective",
    "load",
    "parse",
]
