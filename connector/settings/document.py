"""Document: a settings file as a tree of keys, with the environment's values in place of `${NAME}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, of which the first would be ignored."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read(path: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read a YAML file; an empty one is an empty tree. Raises SettingsError with a sentence."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: the settings cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: the settings are not text in UTF-8") from None
    try:
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise SettingsError(f"{where}: the settings are no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: the settings are no YAML: {' '.join(str(error).split())}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: the settings must be keys and values, like kafka: or batch:")
    return {str(key): _resolve(value, str(key), environ) for key, value in tree.items()}


def _resolve(value: Any, key: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {str(name): _resolve(inner, f"{key}.{name}", environ) for name, inner in value.items()}
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name = match[1]
        if name is None:
            raise SettingsError(f"{key}: a reference to the environment is written ${{NAME}}, and a plain ${{ as $${{")
        if name not in environ:
            raise SettingsError(
                f"{key}: the environment has no {name}; set it, or write $${{{name}}} for the text itself"
            )
        return environ[name]

    return _REFERENCE.sub(replace, value)
