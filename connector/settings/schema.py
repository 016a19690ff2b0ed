"""The JSON Schema of a settings file as people write it, for editors and for checks before a deployment.

It takes whatever `load` takes, and refuses wrong keys, choices, units and types. What it cannot say, such as rules between
keys, is left to `load`.
"""

from __future__ import annotations

import re
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin

from pydantic import BeforeValidator, SecretStr, WithJsonSchema
from pydantic.fields import FieldInfo

from connector import __version__
from connector.settings.endpoint import FromHeader
from connector.settings.keys import choices, required, section_of
from connector.settings.settings import Settings
from connector.settings.units import upper

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import BaseModel

_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{",
    "description": "${NAME} in a text is the environment's NAME, and $${NAME} the text itself.",
}
_BOUNDS = (
    ("gt", "exclusiveMinimum"),
    ("ge", "minimum"),
    ("lt", "exclusiveMaximum"),
    ("le", "maximum"),
    ("min_length", "minLength"),
)
_TRUTHS = ("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "1", "0")
"""How pydantic lets a text say true or false, in any case; so it stands in the environment, or between quotes."""
_WHOLE = r"^\s*[+-]?[0-9_]+(\.0*)?\s*$"
_REAL = r"^\s*[+-]?([0-9_]+\.?[0-9_]*|\.[0-9_]+)([eE][+-]?[0-9]+)?\s*$"


def schema() -> dict[str, Any]:
    """The schema of the file, in the dialect of 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:sagemaker-kafka-connector:settings:{__version__}",
        "title": "Settings of the connector",
        "description": "A key that is left out comes from the environment, or has its default. What is required, and "
        "rules between keys, are checked by `connector config --effective`.",
        **section_schema(Settings, Settings().model_dump(mode="json")),
        "$defs": {"reference": _REFERENCE},
    }


def section_schema(section: type[BaseModel], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a section: a mapping of its keys, or null, which YAML has for a section without keys."""
    properties = {name: _key(field, defaults[name]) for name, field in section.model_fields.items()}
    return {"type": ["object", "null"], "properties": properties, "additionalProperties": False}


def _key(field: FieldInfo, default: Any) -> dict[str, Any]:
    about = {"description": field.description}
    if section := section_of(field):
        return about | section_schema(section, default)
    forms = list(_forms(field))
    if not any(form.get("type") == "string" and "pattern" not in form for form in forms):
        forms.append({"$ref": "#/$defs/reference"})
    mark = required(field)
    value = {"examples": [mark.example]} if mark else {"default": default}
    return about | value | (forms[0] if len(forms) == 1 else {"anyOf": forms})


def _forms(field: FieldInfo) -> Iterator[dict[str, Any]]:
    """Each form that the value may have; a type that is read in a way of its own says its form itself."""
    annotation: Any = field.annotation
    if own := [given.json_schema for given in field.metadata if isinstance(given, WithJsonSchema)]:
        written = own[-1] or {}
        yield from written.get("anyOf", [written])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _forms(FieldInfo.from_annotation(part))
    elif words := choices(annotation):
        yield {"enum": words}
        if any(isinstance(given, BeforeValidator) and given.func is upper for given in field.metadata):
            yield {"type": "string", "pattern": _in_any_case(words)}
    elif annotation is FromHeader:
        name = FromHeader.model_fields["header"]
        header = {"description": name.description, **next(_forms(name))}
        yield {
            "type": "object",
            "properties": {"header": header},
            "required": ["header"],
            "additionalProperties": False,
        }
    elif annotation == tuple[str, ...]:
        # The environment holds no list: there it is a text.
        yield from ({"type": "array", "items": {"type": "string"}}, {"type": "string"})
    else:
        bounds = {
            word: getattr(given, name) for given in field.metadata for name, word in _BOUNDS if hasattr(given, name)
        }
        yield from _plain(annotation, bounds)


def _plain(kind: type, bounds: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if kind is NoneType:
        yield {"type": "null"}
    elif kind is bool:
        yield from ({"type": "boolean"}, {"enum": [0, 1]}, {"type": "string", "pattern": _in_any_case(_TRUTHS)})
    elif kind is int:
        yield from ({"type": "integer", **bounds}, {"type": "string", "pattern": _WHOLE})
    elif kind is float:
        yield from ({"type": "number", **bounds}, {"type": "string", "pattern": _REAL})
    elif kind in (str, SecretStr, Path):
        yield {"type": "string", **bounds}
    else:
        raise TypeError(f"{kind}: say with WithJsonSchema how this is written in a file")


def _in_any_case(words: Iterable[str]) -> str:
    letters = re.compile("[A-Za-z]")
    either = (letters.sub(lambda letter: f"[{letter[0].upper()}{letter[0].lower()}]", word) for word in words)
    return f"^({'|'.join(either)})$"
