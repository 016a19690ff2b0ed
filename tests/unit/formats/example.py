"""Example: what a format's own test says about it, for the claims that hold for every format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

from connector.core.formats.body_format import Answer, Body, BodyFormat
from connector.core.formats.known import Known


@dataclass(frozen=True, slots=True)
class Example:
    """Payloads of a format, and a model that answers them row by row, saying what it was asked.

    `payloads` are payloads that the format takes, and `sample` is a plain one; `rows_of` finds them in a body, as the
    model's container does, and may write them otherwise; `answer` is the response to rows, `prediction` the part of it
    that belongs to one.
    """

    payloads: st.SearchStrategy[bytes]
    sample: bytes
    rows_of: Callable[[bytes], list[bytes]]
    answer: Callable[[list[bytes]], Answer]
    prediction: Callable[[bytes], bytes]


def split(fmt: BodyFormat, body: bytes, content_type: str | None, rows: int) -> list[bytes]:
    """The predictions of a response to a body of so many rows, for a format that has to know nothing else."""
    return fmt.split(Answer(body, content_type), Body(b"", "", rows), Known())
