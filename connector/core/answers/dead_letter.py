"""Dead letter: an event that cannot be answered, on its way to the dead-letter topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.answers.headers import (
    ATTEMPTS,
    ERROR,
    ERROR_LOG_STREAM,
    ERROR_MESSAGE,
    ERROR_STATUS,
    EVENT_TIMESTAMP,
    FAILED_AT,
    INFERENCE_ID,
    SOURCE,
    VALUE_DROPPED,
    VARIANT,
    header_value,
)
from connector.core.answers.outgoing import Outgoing

if TYPE_CHECKING:
    from connector.core.calls.outcome import Outcome
    from connector.core.event import Event


def dead_letter(
    event: Event,
    outcome: Outcome,
    *,
    now_ms: int,
    attempts: int = 0,
    inference_id: str | None = None,
    variant: str | None = None,
) -> Outgoing:
    """The event's key, value and headers untouched, plus headers that say why and where; `now_ms` is the wall clock."""
    headers = [
        *event.headers,
        (ERROR, outcome.reason.value.encode()),
        (ERROR_MESSAGE, header_value(outcome.detail or outcome.message)),
        (SOURCE, event.source.encode()),
        (EVENT_TIMESTAMP, str(event.timestamp).encode()),
        (ATTEMPTS, str(attempts).encode()),
        (FAILED_AT, str(now_ms).encode()),
    ]
    for name, text in (
        (ERROR_STATUS, None if outcome.status is None else str(outcome.status)),
        (ERROR_LOG_STREAM, outcome.log_stream),
        (VARIANT, variant),
        (INFERENCE_ID, inference_id),
    ):
        if text is not None:
            headers.append((name, header_value(text)))
    return Outgoing(event, event.key, event.value, headers, now_ms, outcome.reason)


def without_value(letter: Outgoing, size: int) -> Outgoing:
    """A dead letter that its topic cannot take, as coordinates and reason alone; `size` is what it would have taken.

    The letter itself when that was done already: nothing smaller says what must be said.
    """
    if letter.headers[-1][0] == VALUE_DROPPED:
        return letter
    own = len(letter.event.headers)
    headers = [*letter.headers[own:], (VALUE_DROPPED, f"the dead letter is {size} bytes".encode())]
    return letter._replace(value=None, headers=headers)
