"""Wrapping: quotes and line ends that came along with a value of the environment, where they count as part of it.

A shell takes the quotes of `NAME="value"` away; `docker run --env-file` and a manifest do not. A secret that was made of a
file has the line end of the file.
"""

from __future__ import annotations

_LINE_ENDS = "\r\n"
_QUOTES = ('"', "'")

QUOTABLE = frozenset({"endpoint.custom_attributes", "endpoint.enable_explanations"})
"""Keys whose value may be meant to stand in quotes: a text in JSON, an expression."""


def problem(subject: str, value: str, *, quotable: bool) -> str | None:
    """Say what is around the value, without the value; None when nothing is. `subject` says whose value it is."""
    bare = value.strip(_LINE_ENDS)
    quoted = len(bare) > 1 and bare[0] == bare[-1] and bare[0] in _QUOTES and not quotable
    found = [*(["stands in quotes"] if quoted else []), *(["begins or ends with a line end"] if bare != value else [])]
    if not found:
        return None
    meant = "; quotes that are meant can stand in the settings file" if quoted else ""
    return f"{subject} {' and '.join(found)}, which would be part of it; take that away{meant}"
