"""Options: what a body format lets a person set, in the settings' section of the format's name.

A format declares them as its `Options`, a frozen dataclass whose fields are all made by `option`:

    @dataclass(frozen=True, slots=True)
    class Options:
        depth: int = option("How deep a row may be nested.", default=3, check=_positive)
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name and type as declared, its default, its sentence for people, and what else a value must meet.

    `check` says in a clause what is wrong with a value of that type, such as "must be above 0", or None when it will do;
    it is not asked about None.
    """

    name: str
    kind: Any
    default: object
    sentence: str
    check: Callable[[Any], str | None] | None


def option(sentence: str, *, default: T, check: Callable[[Any], str | None] | None = None) -> T:
    """A field of `Options`: a bool, int, float, str, Literal of texts or tuple[str, ...], or one of these or None."""
    made: T = field(default=default, metadata={"sentence": sentence, "check": check})
    return made


def options_of(declared: type[Any]) -> tuple[Option, ...]:
    """The options of a dataclass in the order of its fields; raises TypeError for a field that `option` has not made."""
    kinds = get_type_hints(declared)
    found = []
    for each in fields(declared):
        if "sentence" not in each.metadata:
            raise TypeError(f"{declared.__qualname__}.{each.name} has no sentence; declare it by option(...).")
        found.append(
            Option(each.name, kinds[each.name], each.default, each.metadata["sentence"], each.metadata["check"])
        )
    return tuple(found)
