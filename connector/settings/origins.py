"""Origins: where the value of each setting comes from."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from connector.settings.effective import values
from connector.settings.keys import fields, is_secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.settings.document import Place
    from connector.settings.keys import Path
    from connector.settings.settings import Settings


class Kind(StrEnum):
    """What gave a value: nobody, the settings file, or the environment, be it through a `${NAME}` of the file."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"


class Origin(NamedTuple):
    """What gave a value, and where a person finds it.

    That is `connector.yaml:12`, `connector.yaml:12 ${NAME}`, the name of a variable, or the key that names a secret's file.
    """

    kind: Kind
    where: str


def trace(settings: Settings, file: str, places: Mapping[Path, Place], named: Mapping[Path, str]) -> dict[Path, Origin]:
    """The origin of every key that holds a value.

    `places` are the keys of the file, `named` the variables of the environment by their key, which override it.
    """
    shown = values(settings)
    return {path: _origin(path, shown, file, places, named) for path in shown}


def _origin(
    path: Path, shown: Mapping[Path, object], file: str, places: Mapping[Path, Place], named: Mapping[Path, str]
) -> Origin:
    *above, name = path
    secret_file = (*above, f"{name}_file")
    if is_secret(fields()[path]) and shown.get(secret_file) is not None:
        return Origin(Kind.FILE, ".".join(secret_file))
    for key in (path, (*path, "header")):
        if key in named:
            return Origin(Kind.ENVIRONMENT, named[key])
    if place := places.get(path):
        where = f"{file}:{place.line}"
        if place.names:
            return Origin(Kind.ENVIRONMENT, " ".join([where, *(f"${{{name}}}" for name in place.names)]))
        return Origin(Kind.FILE, where)
    return Origin(Kind.DEFAULT, Kind.DEFAULT.value)
