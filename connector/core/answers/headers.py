"""Headers: what our records say about their events, each header declared once."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final


class On(Enum):
    """The records that have a header."""

    RESULTS = "results"
    DEAD_LETTERS = "dead letters"
    BOTH = "results and dead letters"


class Content(Enum):
    """What the bytes of a header are, in words and as a pattern of all of them."""

    ASCII = "ASCII text", rb"[ -~]+"
    DIGITS = "decimal digits", rb"-?[0-9]+"
    HEX = "16 hexadecimal digits", rb"[0-9a-f]{16}"
    TEXT = "text as the service or the container wrote it, as a rule UTF-8", rb"(?s:.*)"

    def __init__(self, words: str, pattern: bytes) -> None:
        self.words = words
        self.pattern = pattern


@dataclass(frozen=True, slots=True)
class Header:
    """A header as it is declared; `always` says that every record that can have it has it."""

    name: str
    on: On
    content: Content
    sentence: str
    example: str
    always: bool


_declared: list[Header] = []


def _header(name: str, on: On, content: Content, sentence: str, example: str, *, always: bool = True) -> str:
    """Declare a header; gives its name, a plain string, because every event's way out goes by these."""
    _declared.append(Header(name, on, content, sentence, example, always))
    return name


SOURCE: Final = _header(
    "inference-source",
    On.BOTH,
    Content.ASCII,
    "Where the event stands, as topic/partition/offset: the same for every repetition, so deduplicate by it.",
    "inference-requests/3/1207",
)
EVENT_TIMESTAMP: Final = _header(
    "inference-event-timestamp",
    On.BOTH,
    Content.DIGITS,
    "Kafka's timestamp of the event, in milliseconds.",
    "1735689600000",
)
INFERENCE_ID: Final = _header(
    "inference-id",
    On.BOTH,
    Content.ASCII,
    "The InferenceId of the call, as the capture files have it; a dead letter that made no call has none.",
    "device-17",
    always=False,
)
VARIANT: Final = _header(
    "inference-variant",
    On.BOTH,
    Content.TEXT,
    "The production variant that answered the call.",
    "AllTraffic",
    always=False,
)
CALL: Final = _header(
    "inference-call",
    On.RESULTS,
    Content.HEX,
    "The beginning of the SHA-256 of the call's body, which tells calls with one InferenceId apart.",
    "9f86d081884c7d65",
)
BATCH_INDEX: Final = _header(
    "inference-batch-index", On.RESULTS, Content.DIGITS, "The event's row in the call's body, from 0.", "0"
)
BATCH_SIZE: Final = _header("inference-batch-size", On.RESULTS, Content.DIGITS, "How many events the call had.", "64")
CONTENT_TYPE: Final = _header(
    "content-type", On.RESULTS, Content.TEXT, "The media type of the record's value.", "text/csv"
)
CUSTOM_ATTRIBUTES: Final = _header(
    "inference-custom-attributes",
    On.RESULTS,
    Content.TEXT,
    "What the container gave as CustomAttributes.",
    "trace=c0ffee",
    always=False,
)
NEW_SESSION: Final = _header(
    "inference-new-session",
    On.RESULTS,
    Content.TEXT,
    "The session that the call opened, and when it expires.",
    "session-5; Expires=2025-01-01T00:00:00Z",
    always=False,
)
CLOSED_SESSION: Final = _header(
    "inference-closed-session",
    On.RESULTS,
    Content.TEXT,
    "The session that the call closed.",
    "session-5",
    always=False,
)
ERROR: Final = _header(
    "inference-error", On.DEAD_LETTERS, Content.ASCII, "The reason, one of those below.", "rejected_by_model"
)
ERROR_MESSAGE: Final = _header(
    "inference-error-message",
    On.DEAD_LETTERS,
    Content.TEXT,
    "What the container said, else what the service or the connector says, without credentials and in 1 KiB at most; a "
    "container may repeat the payload.",
    "could not convert string to float: 'abc'",
)
ERROR_STATUS: Final = _header(
    "inference-error-status",
    On.DEAD_LETTERS,
    Content.DIGITS,
    "The container's HTTP status where it gave one, else the service's.",
    "400",
    always=False,
)
ERROR_LOG_STREAM: Final = _header(
    "inference-error-log-stream",
    On.DEAD_LETTERS,
    Content.TEXT,
    "The ARN of the log that the container writes to.",
    "arn:aws:logs:eu-west-1:123456789012:log-group:/aws/sagemaker/Endpoints/fraud-detector",
    always=False,
)
ATTEMPTS: Final = _header(
    "inference-attempts",
    On.DEAD_LETTERS,
    Content.DIGITS,
    "How many calls held the event before it was given up; 0 when none did.",
    "3",
)
FAILED_AT: Final = _header(
    "inference-failed-at", On.DEAD_LETTERS, Content.DIGITS, "When it was given up, in milliseconds.", "1735689600123"
)
VALUE_DROPPED: Final = _header(
    "inference-value-dropped",
    On.DEAD_LETTERS,
    Content.ASCII,
    "The dead-letter topic could not take the event's value and headers, so both are left out; says what they came to.",
    "the dead letter is 1048999 bytes",
    always=False,
)

HEADERS: Final = tuple(_declared)
"""Every header, in the order of its declaration."""
OF_RESULTS: Final = frozenset(header.name for header in HEADERS if header.on is not On.DEAD_LETTERS)
"""The headers of a result, which replace the event's own of the same name."""


def header_value(text: str) -> bytes:
    """A text of the service as a header's value; HTTP clients keep stray bytes as lone surrogates, JSON has any."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")
