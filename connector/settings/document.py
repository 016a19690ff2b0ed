"""Document: a settings file as a tree of keys, with the environment's values in place of `${NAME}`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from connector.errors import SettingsError
from connector.settings import wrapping

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)\}|\$\{")


_STR = "tag:yaml.org,2002:str"
_DATE = "tag:yaml.org,2002:timestamp"
_LARGEST = 128
"""Bits of a whole number; no setting is as large, and Python refuses to write the largest down."""


class _Loader(yaml.SafeLoader):
    """YAML as far as settings need it, each of whose errors is a sentence that repeats no value: it may be a secret.

    A key written twice is refused, because the first would be ignored. There are no dates, no tags but `!!str`, and an
    alias stands for a single value: nothing that is read is larger than the file.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in the class above
        first: [resolver for resolver in resolvers if resolver[0] != _DATE]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            anchored = self.anchors.get(event.anchor)
            if not isinstance(anchored, yaml.ScalarNode):
                what = "stands for nothing" if anchored is None else "can only stand for a single value"
                raise _refusal(f"an alias (*) {what}; put a text that begins with * in quotes", event.start_mark)
        elif getattr(event, "tag", None) not in (None, "!", _STR):
            raise _refusal("there are no tags (!) here; put a text that begins with ! in quotes", event.start_mark)
        return super().compose_node(parent, index)

    def parse_node(self, block: bool = False, indentless_sequence: bool = False) -> yaml.Event:
        token = self.peek_token()  # type: ignore[no-untyped-call]
        if isinstance(token, yaml.TagToken) and token.value[0] not in (None, "!", "!!"):
            raise _refusal("there are no tags (!) here; put a text that begins with ! in quotes", token.start_mark)
        event: yaml.Event = super().parse_node(block, indentless_sequence)
        return event

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or not key.value.isprintable():
                raise _refusal("a key is a single word", key.start_mark)
            if key.value in seen:
                raise _refusal(f"{key.value} is written twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number; what only looks like one is refused, and so is one that is too large for any setting."""
        whole = node.tag == "tag:yaml.org,2002:int"
        try:
            number: int | float = self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)
        except (ValueError, OverflowError):
            raise _refusal("this is no number; put a text that looks like one in quotes", node.start_mark) from None
        if isinstance(number, int) and number.bit_length() > _LARGEST:
            raise _refusal("this number is too large", node.start_mark)
        return number


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)


def _refusal(sentence: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=sentence, problem_mark=mark)


class Place(NamedTuple):
    """The line of a key, and the variables of the environment that its value names."""

    line: int
    names: tuple[str, ...]


class Document(NamedTuple):
    """A tree of keys, where each stands, and the variables of the environment that they name, with what they hold."""

    tree: dict[str, Any]
    places: dict[tuple[str, ...], Place]
    referenced: dict[str, str]


def read(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a YAML file; an empty one is an empty tree. Raises SettingsError with a sentence."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: the settings cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: the settings are not text in UTF-8") from None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        tree = None if root is None else loader.construct_document(root)
        places = dict(_places(root))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise SettingsError(f"{where}: the settings are no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"{path}: the settings are no YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise SettingsError(f"{path}: the settings are nested deeper than any setting is") from None
    if tree is None:
        return Document({}, {}, {})
    if not isinstance(tree, dict):
        raise SettingsError(f"{path}: the settings must be keys and values, like kafka: or batch:")
    referenced = {name: environ[name] for name in _names(text) if name in environ}
    return Document({str(key): _resolve(value, str(key), environ) for key, value in tree.items()}, places, referenced)


def _places(node: yaml.Node | None, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Place]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        path = (*above, key.value)
        yield path, Place(key.start_mark.line + 1, tuple(dict.fromkeys(_named_below(value))))
        yield from _places(value, path)


def _named_below(node: yaml.Node) -> list[str]:
    if isinstance(node, yaml.ScalarNode):
        return _names(node.value)
    inner = node.value if isinstance(node, yaml.SequenceNode) else [value for _, value in node.value]
    return [name for below in inner for name in _named_below(below)]


def _names(text: str) -> list[str]:
    return [match[1] for match in _REFERENCE.finditer(text) if match[1]]


def _resolve(value: Any, key: str, environ: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {str(name): _resolve(inner, f"{key}.{name}", environ) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolve(inner, key, environ) for inner in value]
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
        quotable = key in wrapping.QUOTABLE or match[0] != value
        if wrong := wrapping.problem(
            f"{key}: the value of {name} in the environment", environ[name], quotable=quotable
        ):
            raise SettingsError(wrong)
        return environ[name]

    return _REFERENCE.sub(replace, value)
