"""Keys: the dotted name of every setting, and the nearest one to a name that is none."""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr

from connector.settings.endpoint import FromHeader
from connector.settings.section import Required
from connector.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

Path = tuple[str, ...]
"""The parts of a key: `("kafka", "group_id")`."""
PREFIX = "CONNECTOR_"
"""What the environment's settings begin with: `CONNECTOR_KAFKA__GROUP_ID`."""


def variable(path: Path) -> str:
    """The environment variable of a key."""
    return PREFIX + "__".join(path).upper()


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a key that holds other keys, None of a key that holds a value."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def is_secret(field: FieldInfo) -> bool:
    """Whether the value must never be shown."""
    return SecretStr in _types(field.annotation)


def may_come_from_a_header(field: FieldInfo) -> bool:
    """Whether the value may be written as `{header: NAME}`."""
    return FromHeader in _types(field.annotation)


def required(field: FieldInfo | None) -> Required | None:
    """The mark of a value that must be given; None of a value that has a default, or of no setting."""
    metadata = () if field is None else field.metadata
    return next((given for given in metadata if isinstance(given, Required)), None)


def choices(annotation: object) -> list[str]:
    """The texts that a value must be one of; none of a value that is free."""
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in choices(part)]


def walk(model: type[BaseModel] = Settings, above: Path = ()) -> Iterator[tuple[Path, FieldInfo]]:
    """Every key with its field, sections before the keys that they hold."""
    for name, field in model.model_fields.items():
        yield (*above, name), field
        if section := section_of(field):
            yield from walk(section, (*above, name))


@cache
def fields() -> Mapping[Path, FieldInfo]:
    """Every key's field, sections included."""
    return dict(walk())


def nearest(path: Path) -> Path | None:
    """The known key that an unknown one was probably meant to be: beside it, or of the same name elsewhere."""
    *above, last = path
    beside = [known[-1] for known in fields() if list(known[:-1]) == above]
    if close := difflib.get_close_matches(last, beside, n=1):
        return (*above, close[0])
    elsewhere = [known for known in fields() if known[-1] == last]
    return elsewhere[0] if elsewhere else None


def _types(annotation: object) -> set[object]:
    """The types that an annotation is made of."""
    inner = [kind for part in get_args(annotation) for kind in _types(part)]
    return {annotation, *inner} if getattr(annotation, "__hash__", None) else set(inner)
