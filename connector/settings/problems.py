"""Problems: a validation error as sentences for the person who wrote the settings, each with its key."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from connector.core.redaction import without_user
from connector.settings.keys import fields, is_secret, nearest, required, variable
from connector.settings.renames import dissolved, renamed
from connector.settings.section import BROKEN_RULES, Required, legible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

_SAY: dict[str, str] = {
    "literal_error": "must be {expected}{written}",
    "greater_than": "must be above {gt:g}{written}",
    "greater_than_equal": "must be at least {ge:g}{written}",
    "less_than": "must be below {lt:g}{written}",
    "less_than_equal": "must be at most {le:g}{written}",
    "string_too_short": "is empty; give it a value, or leave the key out",
    "too_short": "is empty; give it a value, or leave the key out",
    "string_type": "must be text{written}; put it in quotes",
    "path_type": "must be the path of a file{written}",
    "int_type": "must be a whole number{written}",
    "int_parsing": "must be a whole number{written}",
    "int_from_float": "must be a whole number{written}",
    "float_type": "must be a number{written}",
    "float_parsing": "must be a number{written}",
    "bool_type": "must be true or false{written}",
    "bool_parsing": "must be true or false{written}",
    "model_type": "must hold keys of its own, one below the other",
    "value_error": "{error}",
}
"""What each of pydantic's errors means to a person; `written` says what stands there, unless it is a secret."""


_SHORTEST_SECRET = 6
"""Characters of a variable's value from which on it is not shown: what is shorter stands in too many words."""
_LONGEST = 500
"""Characters of a sentence that repeats what was written."""


def sentences(error: ValidationError, referenced: Mapping[str, str]) -> list[str]:
    """One sentence a problem, in the order of the keys, without pydantic's own words.

    `referenced` are variables of the environment that the settings name: what they hold may be a secret, so the sentences
    show the reference.
    """
    found = [
        _unresolved(without_user(sentence), referenced)
        for detail in error.errors(include_url=False)
        for sentence in _sentences(detail)
    ]
    return [sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]}..." for sentence in found]


def _unresolved(sentence: str, referenced: Mapping[str, str]) -> str:
    """The sentence with references in place of what they stand for, or of a part of it where commas are between."""
    for name, value in referenced.items():
        for part in (value, *value.split(",")):
            for written in (part, part.strip(), repr(part.strip())[1:-1]):
                if len(written) >= _SHORTEST_SECRET:
                    sentence = re.sub(re.escape(written), f"${{{name}}}", sentence, flags=re.IGNORECASE)
    return sentence


def needed(path: tuple[str, ...], mark: Required) -> str:
    """Say that a key must be given, and how."""
    return f"{_key(path)}: is needed; set it, or {variable(path)} in the environment, to a value like {mark.example}"


def unknown(path: tuple[str, ...]) -> str:
    """Say that there is no such key, and which one may be meant."""
    meant = nearest(path)
    hint = f"did you mean {'.'.join(meant)}?" if meant else "`connector config` lists every setting"
    return f"{_key(path)}: there is no such setting; {hint}"


def _stray(path: tuple[str, ...], value: object, follows: tuple[str, ...] | None = None) -> Iterator[str]:
    """Say what a key that is none is called, or which one may be meant.

    The keys of a section are said only when they went another way than the section did, to where they would `follow` it.
    """
    found = renamed(path)
    called, since = found or (None, "")
    if called is None and not dissolved(path):
        yield unknown(path)
        return
    if called is not None and called != follows:
        yield f"{_key(path)}: is called {_key(called)} since {since}; rename it"
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from _stray((*path, str(name)), inner, None if called is None else (*called, str(name)))


def _key(path: tuple[str, ...]) -> str:
    """The dotted key on one line, whatever a file has in its place."""
    return legible(".".join(path))


def _sentences(detail: ErrorDetails) -> Iterator[str]:
    path = tuple(str(part) for part in detail["loc"])
    kind, context = detail["type"], detail.get("ctx", {})
    key, field = _key(path), fields().get(path)
    if kind == "extra_forbidden":
        yield from _stray(path, detail["input"])
    elif kind == BROKEN_RULES:
        for sentence in context["sentences"].splitlines():
            yield f"{key}.{sentence}" if key else sentence
    elif (mark := required(field)) and detail["input"] in (None, ""):
        yield needed(path, mark)
    elif kind in _SAY:
        written = "" if field is not None and is_secret(field) else f", not {detail['input']!r}"
        yield f"{key}: {_SAY[kind].format(**context, written=written)}"
    else:
        yield f"{key}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
