"""Log: lines of JSON or text on stderr, with fixed fields, for this project and the libraries alike."""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger

FIELDS = ("timestamp", "level", "event", "logger")
"""What every line begins with."""
EVENT_FIELDS = ("topic", "partition", "offset", "key", "inference_id", "batch_id", "attempt", "reason")
"""What a line says next, in this order, when it is about an event, a batch or a call."""
_ORDER = {name: place for place, name in enumerate((*FIELDS, *EVENT_FIELDS))}

_AT_MOST = {
    "aiokafka": logging.INFO,
    "aiobotocore": logging.WARNING,
    "aiohttp.access": logging.WARNING,
    "boto3": logging.WARNING,
    "botocore": logging.WARNING,
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "urllib3": logging.WARNING,
}
"""The most talkative level of these libraries, INFO that of all others; aiokafka's DEBUG alone costs 7 us a record sent."""
_OURS = "connector"
_LIMITED = ("aiobotocore", "aiohttp", "aiokafka", "boto3", "botocore")
"""Libraries that say the same for as long as what they talk to is away: the SDK with a traceback for each try."""
_SUMMARY = "held_back"
"""Marks a summary, which no limit applies to."""


def configure(level: str, fmt: Literal["json", "text"], *, clock: Callable[[], float] = time.monotonic) -> None:
    """Send everything that is logged to stderr in one form; may be called again, and then replaces what was before.

    `level` is the name of the least severe level that is logged, DEBUG of the connector alone; `clock` gives seconds.
    Text has colours when stderr is a terminal.
    """
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _legible,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=_rendering(fmt, sys.stderr.isatty()))
    )
    for library in _LIMITED:
        handler.addFilter(RateLimit(library, handler.handle, clock=clock))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    ours = logging.getLogger(_OURS)
    ours.setLevel(level)
    # What libraries write at DEBUG shows requests, and so payloads and credentials.
    root.setLevel(max(logging.INFO, ours.level))
    logging.captureWarnings(capture=True)
    for name, least in _AT_MOST.items():
        logging.getLogger(name).setLevel(max(least, ours.level))


def traceback_of(error: BaseException) -> str:
    """Where an error came from and of which type it is, without its text: that may repeat a payload."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"Traceback (most recent call last):\n{frames}{type(error).__name__}"


class RateLimit(logging.Filter):
    """Lets a logger's lines of one template pass a few times a second, and then says how many it held back.

    aiokafka writes 10,000 lines a second while a broker is away. `name` is the logger whose lines, and those of the
    loggers below it, are limited; `emit` writes a summary; `clock` gives seconds. Summaries come with the next line
    of any logger, because a filter has no timer.
    """

    def __init__(
        self,
        name: str,
        emit: Callable[[logging.LogRecord], object],
        *,
        lines: int = 5,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name)
        self._emit = emit
        self._lines = lines
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[tuple[str, int, str], _Window] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; writes the summaries that are due before it."""
        if getattr(record, _SUMMARY, False):
            return True
        limited = super().filter(record)
        with self._lock:
            now = self._clock()
            due = self._close(now)
            passes = not limited or self._count(record, now)
        for summary in due:
            self._emit(summary)
        return passes

    def _count(self, record: logging.LogRecord, now: float) -> bool:
        key = (record.name, record.levelno, str(record.msg))
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(now)
        window.lines += 1
        return window.lines <= self._lines

    def _close(self, now: float) -> list[logging.LogRecord]:
        """End the windows that are over; the summaries of those that held lines back."""
        if not self._windows:
            return []
        over = [key for key, window in self._windows.items() if now - window.opened >= self._seconds]
        closed = [(key, self._windows.pop(key)) for key in over]
        return [
            self._summary(*key, held=window.lines - self._lines, seconds=now - window.opened)
            for key, window in closed
            if window.lines > self._lines
        ]

    def _summary(self, name: str, level: int, template: str, *, held: int, seconds: float) -> logging.LogRecord:
        message = "%d more lines like this were held back in %.1f s: %s"
        record = logging.LogRecord(name, level, __file__, 0, message, (held, seconds, template), None)
        setattr(record, _SUMMARY, True)
        return record


class _Window:
    __slots__ = ("lines", "opened")

    def __init__(self, opened: float) -> None:
        self.opened = opened
        self.lines = 0


def _rendering(fmt: Literal["json", "text"], colours: bool) -> list[Processor]:
    remove_meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if fmt == "text":
        # Not the tracebacks that show local variables: they would show payloads.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=plain, sort_keys=False)
        return [remove_meta, _ordered, renderer]
    return [
        remove_meta,
        structlog.processors.format_exc_info,
        _ordered,
        structlog.processors.JSONRenderer(default=repr),
    ]


def _legible(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Keys of events are bytes; a line shows them as text, whatever they are."""
    for name, value in line.items():
        if isinstance(value, bytes):
            line[name] = value.decode("utf-8", "backslashreplace")
    return line


def _ordered(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    return dict(sorted(line.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))))
