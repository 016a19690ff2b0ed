"""Signature: whether the service takes the signatures of our calls, and since when it does not."""

from __future__ import annotations

from typing import Final

from connector.core.calls.outcome import Kind, Outcome
from connector.core.reason import Reason

PATIENCE: Final = 60.0
"""Seconds that credentials may take to be renewed, before their refusal is something that a person must mend."""
_UNSIGNED: Final = frozenset({Reason.CREDENTIALS, Reason.SERVICE_UNAVAILABLE, Reason.TIMEOUT})
"""Reasons of calls that say nothing for our signature: it was refused, or perhaps nobody looked at it."""


class Signature:
    """What the ends of calls say of their signatures; times are seconds of any clock that does not go back."""

    __slots__ = ("_since",)

    def __init__(self) -> None:
        self._since: float | None = None

    def note(self, outcome: Outcome, now: float) -> None:
        """Take a call's outcome into account."""
        if outcome.reason is Reason.CREDENTIALS and outcome.kind is Kind.RETRY:
            self._since = now if self._since is None else self._since
        elif outcome.reason not in _UNSIGNED:
            self._since = None

    def refused_for(self, now: float) -> float | None:
        """Seconds since the first of the refusals that no accepted call has followed; None when that is not too long."""
        if self._since is None or now - self._since <= PATIENCE:
            return None
        return now - self._since
