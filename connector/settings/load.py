"""Load: settings from the defaults, a file and the environment, in rising priority."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from connector import FILE_VARIABLE
from connector.errors import SettingsError
from connector.settings import document, origins, problems, wrapping
from connector.settings.keys import (
    PREFIX,
    fields,
    may_come_from_a_header,
    nearest,
    required,
    section_of,
    variable,
)
from connector.settings.renames import renamed
from connector.settings.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from connector.settings.keys import Path as Key
    from connector.settings.origins import Origin

_NULL = "null"
"""What an environment variable says to be null."""
_SERVICE_LINK = re.compile(
    r"CONNECTOR_(?:[A-Z0-9_]*_)?"
    r"(?:SERVICE_HOST=|SERVICE_PORT(?:_[A-Z0-9_]+)?=|PORT=(?:tcp|udp|sctp)://|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_[A-Z]+)?=).*"
)
"""What Kubernetes puts into every pod about a Service whose name begins with `connector`."""


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """The settings of a file, if any, and of the environment, which overrides it; what is required is there.

    Raises SettingsError with one line a problem, each of which begins with the key.
    """
    return load_with_origins(path, environ)[0]


def load_with_origins(path: Path | None, environ: Mapping[str, str]) -> tuple[Settings, Mapping[Key, Origin]]:
    """The settings as `load` gives them, and where the value of each key comes from."""
    above = _environment(environ)
    given = document.read(path, environ) if path else document.Document({}, {}, {})
    tree = _merge(given.tree, above)
    wrong = list(_missing(tree))
    try:
        settings = parse(tree, given.referenced)
    except SettingsError as error:
        wrong.append(str(error))
    if wrong:
        raise SettingsError("\n".join(wrong))
    named = {key: name for name, key in variables().items() if name in environ}
    return settings, origins.trace(settings, str(path), given.places, named)


def parse(tree: Mapping[str, Any], referenced: Mapping[str, str] = MappingProxyType({})) -> Settings:
    """The settings of a tree of keys, durations and sizes as they are written in a file; the rest has its default.

    What is required is empty when it is not given. `referenced` are variables by name whose values stand in the tree, and
    are named instead of shown. Raises SettingsError.
    """
    # Settings would take these for its own options.
    if private := [key for key in tree if key not in Settings.model_fields and key.startswith("_")]:
        raise SettingsError("\n".join(problems.unknown((key,)) for key in private))
    try:
        return Settings(**_open(tree))
    except ValidationError as error:
        raise SettingsError("\n".join(problems.sentences(error, referenced))) from None


def _open(tree: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tree with an empty section where YAML, for a section without keys, has null."""
    opened: dict[str, Any] = {}
    for key, value in tree.items():
        field = fields().get((*above, key))
        if field is not None and section_of(field) is not None and (value is None or isinstance(value, dict)):
            opened[key] = _open(value or {}, (*above, key))
        else:
            opened[key] = value
    return opened


def variables() -> dict[str, tuple[str, ...]]:
    """Every environment variable that is a setting, with its key."""
    names = {}
    for path, field in fields().items():
        if section_of(field) is None:
            names[variable(path)] = path
        if may_come_from_a_header(field):
            names[variable((*path, "header"))] = (*path, "header")
    return names


def _unknown(name: str) -> str:
    capitals = name.upper()
    if name != capitals and capitals in {*variables(), FILE_VARIABLE}:
        return f"{name}: is not read; variables are written in capitals, so call it {capitals}"
    path = tuple(capitals.removeprefix(PREFIX).lower().split("__"))
    if (found := renamed(path)) and (called := variable(found[0])) in variables():
        return f"{name}: is called {called} since {found[1]}; rename it"
    single = {each.replace("__", "_"): each for each in variables()}
    if (known := single.get(capitals.replace("__", "_"))) is not None:
        return f"{name}: is no setting's variable; did you mean {known}, with two underscores after each section?"
    meant = nearest(path)
    if meant is None or section_of(fields()[meant]) is not None:
        return f"{name}: is no setting's variable; they are like {PREFIX}KAFKA__GROUP_ID for kafka.group_id"
    return f"{name}: is no setting's variable; did you mean {variable(meant)}?"


def _environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = variables()
    ours = {name: value for name, value in environ.items() if name in known}
    stray = sorted(name for name in environ if name.upper().startswith(PREFIX) and name not in {*known, FILE_VARIABLE})
    wrong = [_unknown(name) for name in stray if not _SERVICE_LINK.fullmatch(f"{name}={environ[name]}")]
    wrong += [
        f"{name}: is given together with {name}__HEADER; keep one of them" for name in ours if f"{name}__HEADER" in ours
    ]
    wrong += _wrapped(environ)
    if wrong:
        raise SettingsError("\n".join(wrong))
    source = EnvSettingsSource(Settings, case_sensitive=False, env_parse_none_str=_NULL)
    # The source reads the process's environment when it is made; what counts is the environment that was passed.
    source.env_vars = parse_env_vars(ours, parse_none_str=_NULL)
    return source()


def _wrapped(environ: Mapping[str, str]) -> Iterator[str]:
    """Say which values stand in quotes, or have a line end around them."""
    for name, key in {**variables(), FILE_VARIABLE: ()}.items():
        quotable = ".".join(key) in wrapping.QUOTABLE
        if name in environ and (wrong := wrapping.problem(f"{name}: the value", environ[name], quotable=quotable)):
            yield wrong


def _missing(tree: Mapping[str, Any]) -> Iterator[str]:
    """Say which keys that must be given are not there; what stands there instead of a section is said by `parse`."""
    for (*above, name), field in fields().items():
        section: Any = tree
        for part in above:
            section = section.get(part) if isinstance(section, dict) else section
            section = {} if section is None else section
        if isinstance(section, dict) and name not in section and (mark := required(field)):
            yield problems.needed((*above, name), mark)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], at: Key = ()) -> dict[str, Any]:
    """The tree below with what the tree above has in its place; `at` is the key of the two.

    What stands below instead of a section stays, for `parse` to refuse it.
    """
    merged = dict(below)
    for key, value in above.items():
        under, field = merged.get(key), fields().get((*at, key))
        if isinstance(value, dict) and isinstance(under, dict):
            merged[key] = _merge(under, value, (*at, key))
        elif under is None or field is None or section_of(field) is None:
            merged[key] = value
    return merged
