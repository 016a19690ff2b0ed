"""Dead letter: an event that cannot be answered, on its way to the dead-letter topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connector.core.answers.outgoing import Outgoing
from connector.core.answers.result import header_value

if TYPE_CHECKING:
    from connector.core.calls.outcome import Outcome
    from connector.core.event import Event

_DROPPED = "inference-value-dropped"


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
        ("inference-error", outcome.reason.value.encode()),
        ("inference-error-message", header_value(outcome.detail or outcome.message)),
        ("inference-source", event.source.encode()),
        ("inference-event-timestamp", str(event.timestamp).encode()),
        ("inference-attempts", str(attempts).encode()),
        ("inference-failed-at", str(now_ms).encode()),
    ]
    for name, text in (
        ("inference-error-status", None if outcome.status is None else str(outcome.status)),
        ("inference-error-log-stream", outcome.log_stream),
        ("inference-variant", variant),
        ("inference-id", inference_id),
    ):
        if text is not None:
            headers.append((name, header_value(text)))
    return Outgoing(event, event.key, event.value, headers, now_ms, outcome.reason)


def without_value(letter: Outgoing, size: int) -> Outgoing:
    """A dead letter that its topic cannot take, as coordinates and reason alone; `size` is what it would have taken.

    The letter itself when that was done already: nothing smaller says what must be said.
    """
    if letter.headers[-1][0] == _DROPPED:
        return letter
    own = len(letter.event.headers)
    headers = [*letter.headers[own:], (_DROPPED, f"the dead letter is {size} bytes".encode())]
    return letter._replace(value=None, headers=headers)
