"""The options of body formats as settings: a section for each format that declares some, made from its declaration."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from connector.core.formats import names, options_named
from connector.core.formats.options import options_of
from connector.settings.section import Section
from connector.settings.units import whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from connector.core.formats.options import Option

_Section = TypeVar("_Section", bound=Section)


def _texts(value: object) -> object:
    """A list as it is, and a text as its parts between commas: a variable of the environment holds no list."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"must be a list of texts, not {value!r}")


_TYPES: dict[Any, Any] = {
    bool: bool,
    int: Annotated[int, BeforeValidator(whole)],
    float: Annotated[float, BeforeValidator(whole), Field(allow_inf_nan=False)],
    str: str,
    tuple[str, ...]: Annotated[tuple[str, ...], BeforeValidator(_texts)],
}
"""The types that an option can have, and how the settings read them; a Literal of texts is read as it is."""


def with_format_options(request: type[_Section]) -> type[_Section]:
    """The section with one below it for each body format that has options, by the name of the format.

    Raises TypeError when a name is taken, or an option has a type that no setting has.
    """
    sections: dict[str, Any] = {}
    for name in names():
        if name in request.model_fields:
            raise TypeError(f"request.{name} is a setting, so no body format can have that name; rename it.")
        if (declared := options_named(name)) is not None:
            section = section_of_options(declared, f"The options of request.format: {name}.")
            sections[name] = (section, Field(default=section(), description=section.__doc__))
    return create_model(
        request.__name__, __base__=request, __module__=request.__module__, __doc__=request.__doc__, **sections
    )


def section_of_options(declared: type[Any], sentence: str) -> type[Section]:
    """The section whose keys are these options; raises TypeError when one has a type that no setting has."""
    fields: dict[str, Any] = {
        option.name: (_type(option, declared), Field(default=option.default, description=option.sentence))
        for option in options_of(declared)
    }
    return create_model(
        declared.__qualname__, __base__=Section, __module__=declared.__module__, __doc__=sentence, **fields
    )


def _type(option: Option, declared: type[Any]) -> Any:
    """What pydantic reads an option as."""
    kinds = get_args(option.kind) if get_origin(option.kind) in (Union, UnionType) else (option.kind,)
    read = [_TYPES.get(kind, kind if _is_choice(kind) else None) for kind in kinds if kind is not NoneType]
    if len(read) != 1 or read[0] is None:
        raise TypeError(f"{declared.__qualname__}.{option.name} is a {option.kind}, and no setting has that type.")
    made, limits = read[0], option.limits
    if limits.at_least is not None:
        made = Annotated[made, Field(ge=limits.at_least)]
    if limits.at_most is not None:
        made = Annotated[made, Field(le=limits.at_most)]
    if limits.check is not None:
        made = Annotated[made, AfterValidator(_checked(limits.check))]
    return made | None if NoneType in kinds else made


def _is_choice(kind: Any) -> bool:
    return get_origin(kind) is Literal and all(isinstance(choice, str) for choice in get_args(kind))


def _checked(check: Callable[[Any], str | None]) -> Callable[[Any], Any]:
    def validate(value: Any) -> Any:
        if (problem := check(value)) is not None:
            raise ValueError(f"{problem}, not {value!r}")
        return value

    return validate
