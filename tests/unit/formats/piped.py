"""piped: rows between separators. No format of the connector's: test_adding_a_format.py puts it among them in a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from connector.core.formats.body_format import Answer, Body
from connector.core.formats.options import option
from connector.core.formats.registry import register
from connector.errors import MalformedResponse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from connector.core.formats.known import Known

_TEXT = "text/plain"


def _separator(written: str) -> str | None:
    return None if len(written) == 1 and written.isprintable() and written.isascii() else "must be one ASCII character"


@dataclass(frozen=True, slots=True)
class Sent:
    """Which rows a body has: how many, and for each payload, which."""

    rows: int
    row_of: tuple[int, ...]


@register
class Piped:
    """A response has the separators of the body, or blanks in their place, once the model is known to answer so."""

    @dataclass(frozen=True, slots=True)
    class Options:
        """What a person may choose."""

        separator: str = option("The character between two rows.", default="|", check=_separator)
        distinct: bool = option("Whether payloads that are the same are sent as one row.", default=False)
        evidence: int = option(
            "How many different numbers of rows must have been answered with blanks before that is believed.",
            default=2,
            at_least=1,
        )

    name = "piped"
    accept = _TEXT
    max_rows: int | None = None
    overhead = 0
    row_overhead = 1

    def __init__(self, options: Options) -> None:
        self._options = options
        self._separator = options.separator.encode()

    def check(self, payload: bytes) -> str | None:
        """Refuse what would be no row, or several."""
        if not payload or b" " in payload or self._separator in payload:
            return "The payload is empty, or holds a blank or a separator."
        return None

    def join(self, payloads: Sequence[bytes]) -> Body:
        """The payloads between separators; when each different one is sent once, the note says which row is whose."""
        if not self._options.distinct:
            return Body(self._separator.join(payloads), _TEXT, len(payloads))
        number = {payload: row for row, payload in enumerate(dict.fromkeys(payloads))}
        note = Sent(len(number), tuple(number[payload] for payload in payloads))
        return Body(self._separator.join(number), _TEXT, len(payloads), note)

    def split(self, answer: Answer, request: Body, known: Known) -> list[bytes]:
        """One part a row, given to each payload that the row stands for."""
        sent = request.note if isinstance(request.note, Sent) else None
        rows = sent.rows if sent else request.rows
        parts = answer.body.split(self._separator)
        if len(parts) == 1 < rows and len(parts := answer.body.split()) == rows:
            known.saw("blanks", rows)
            if len(known.sizes("blanks")) < self._options.evidence:
                raise MalformedResponse("The response is one part, which may be a prediction with blanks in it.")
        if len(parts) != rows or not all(parts):
            raise MalformedResponse(f"The response has {len(parts)} parts, and the body had {rows} rows.")
        return [parts[row] for row in sent.row_of] if sent else parts

    def prediction_type(self, content_type: str | None) -> str:
        """Text."""
        return _TEXT
