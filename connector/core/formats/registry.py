"""Registry: the body formats by the names that `request.format` has for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.core.formats.body_format import BodyFormat

_Format = TypeVar("_Format", bound="BodyFormat")


class _Entry(NamedTuple):
    """How to make a format, and the dataclass of its options, None when it has none."""

    make: Callable[..., BodyFormat]
    options: type[Any] | None


_ENTRIES: dict[str, _Entry] = {}


def register(fmt: type[_Format]) -> type[_Format]:
    """Make a class known by its `name`; raises ValueError when another class has it."""
    entry = _Entry(fmt, getattr(fmt, "Options", None))
    if (other := _ENTRIES.setdefault(fmt.name, entry)) is not entry:
        raise ValueError(f"{fmt.name} is the name of two body formats, {other.make} and {fmt}; rename one of them.")
    return fmt


def names() -> tuple[str, ...]:
    """The name of every format, sorted."""
    return tuple(sorted(_ENTRIES))


def options_named(name: str) -> type[Any] | None:
    """The dataclass of the options that the format of that name has, None when it has none; raises as `format_named`."""
    return _entry(name).options


def format_named(name: str, options: object = None) -> BodyFormat:
    """A format by its name, with these options, or with their defaults.

    Raises SettingsError, naming those that exist, when there is none of that name.
    """
    make, declared = _entry(name)
    if declared is None:
        return make()
    return make(declared() if options is None else options)


def _entry(name: str) -> _Entry:
    try:
        return _ENTRIES[name]
    except KeyError:
        raise SettingsError(f"There is no body format {name!r}; there are {', '.join(names())}.") from None
