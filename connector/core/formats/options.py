"""Options: what a body format lets a person set, in the settings' section of the format's name.

A format declares them as its `Options`, a frozen dataclass whose fields are all made by `option`:

    @dataclass(frozen=True, slots=True)
    class Options:
        depth: int = option("How deep a row may be nested.", default=3, at_least=1)
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a value must meet beside its type; nothing of it is asked of None.

    `at_least` and `at_most` bound a number. `check` says in a clause what else is wrong with a value, such as "must be
    one character", or None when it will do.
    """

    at_least: float | None = None
    at_most: float | None = None
    check: Callable[[Any], str | None] | None = None


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name and type as declared, its default, its sentence for people, and its limits."""

    name: str
    kind: Any
    default: object
    sentence: str
    limits: Limits


def option(
    sentence: str,
    *,
    default: T,
    at_least: float | None = None,
    at_most: float | None = None,
    check: Callable[[Any], str | None] | None = None,
) -> T:
    """A field of `Options`: a bool, int, float, str, Literal of texts or tuple[str, ...], or one of these or None.

    For the rest see `Limits`; prefer bounds to a check, because the schema of the settings knows bounds.
    """
    made: T = field(default=default, metadata={"sentence": sentence, "limits": Limits(at_least, at_most, check)})
    return made


def options_of(declared: type[Any]) -> tuple[Option, ...]:
    """The options of a dataclass in the order of its fields; raises TypeError for a field that `option` has not made."""
    kinds = get_type_hints(declared)
    found = []
    for each in fields(declared):
        if "sentence" not in each.metadata:
            raise TypeError(f"{declared.__qualname__}.{each.name} has no sentence; declare it by option(...).")
        sentence, limits = each.metadata["sentence"], each.metadata["limits"]
        found.append(Option(each.name, kinds[each.name], each.default, sentence, limits))
    return tuple(found)
