"""The body formats that `request.format` can name."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from connector.core.formats.csv import Csv
from connector.core.formats.json_array import JsonArray
from connector.core.formats.json_instances import JsonInstances
from connector.core.formats.json_lines import JsonLines
from connector.core.formats.raw import Raw
from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.core.formats.body_format import BodyFormat

_ALL: tuple[BodyFormat, ...] = (Raw(), Csv(), JsonLines(), JsonInstances(), JsonArray())

FORMATS: Mapping[str, BodyFormat] = MappingProxyType({fmt.name: fmt for fmt in _ALL})


def format_named(name: str) -> BodyFormat:
    """The body format of that name; raises SettingsError, naming those that exist, when there is none."""
    try:
        return FORMATS[name]
    except KeyError:
        raise SettingsError(f"There is no body format {name!r}; there are {', '.join(FORMATS)}.") from None
