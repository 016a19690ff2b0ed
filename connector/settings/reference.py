"""The reference of all settings: `config/connector.yaml`, which `connector config` prints."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import yaml

from connector.settings import Settings
from connector.settings.keys import choices, required, section_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

_HEAD = """\
Every setting of the connector with its default. A file needs what is required, and what differs from its default.

The environment overrides the file: CONNECTOR_KAFKA__GROUP_ID is kafka.group_id. ${NAME} in a value is the
environment's NAME, and $${NAME} the text itself. Durations are written 100ms, 45s, 5m or 1h, sizes 256KiB, 5MiB, 50MB
or as a number of bytes. A key that is not listed here is an error.

Written by `connector config > config/connector.yaml`."""
_WIDTH = 118


def reference() -> str:
    """The text of `config/connector.yaml`: each setting, its sentence as a comment, and its default.

    What is required has an example instead, as a comment too: a copy of the whole does not start with it.
    """
    lines = [*_comment(_HEAD, "")]
    defaults = Settings().model_dump(mode="json")
    for name, field in Settings.model_fields.items():
        lines += ["", *_comment(field.description or "", ""), f"{name}:"]
        section = section_of(field)
        if section is not None:
            lines += _keys(section, defaults[name], "  ")
    return "\n".join(lines) + "\n"


def _keys(section: type[BaseModel], defaults: dict[str, Any], indent: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield from _comment(_sentence(field), indent)
        inner = section_of(field)
        if mark := required(field):
            yield f"{indent}# {name}: {mark.example}"
        elif inner is None:
            written = yaml.safe_dump({name: defaults[name]}, width=1000).rstrip("\n")
            yield indent + written
        else:
            yield f"{indent}{name}:"
            yield from _keys(inner, defaults[name], indent + "  ")


def _sentence(field: FieldInfo) -> str:
    names = choices(field.annotation)
    one_of = f" One of {', '.join(names)}." if len(names) > 1 else ""
    return f"{field.description}{one_of}" + (" Required, such as:" if required(field) else "")


def _comment(text: str, indent: str) -> Iterator[str]:
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, _WIDTH - len(indent), break_on_hyphens=False) or [""]:
            yield f"{indent}# {line}".rstrip()
