"""The JSON Schema of a settings file: it takes what the loader takes, and refuses wrong keys, choices, units and types."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import Field, TypeAdapter, ValidationError

from connector.errors import SettingsError
from connector.settings import load
from connector.settings.endpoint import MEMBER_KEYS
from connector.settings.keys import choices, fields, section_of
from connector.settings.schema import schema, section_schema
from connector.settings.section import Section
from tests.unit.needed import needed_but

if TYPE_CHECKING:
    from collections.abc import Iterator

CONFIG = Path(__file__).parents[2] / "config"
SCHEMA = schema()
VALIDATOR = Draft202012Validator(SCHEMA)
LEAVES = [path for path, field in fields().items() if section_of(field) is None]
SECTIONS = [(), *(path for path, field in fields().items() if section_of(field) is not None)]
TABLE = [
    *(45, 1.5, 1, 0, 2, -1, 1234, 1e3, True, False, None, {}, [], ["a"], {"header": "x"}, {"head": "x"}),
    *(
        {"header": ""},
        {"header": 5},
        {"header": "x", "or": "y"},
        "",
        " ",
        "45",
        "45s",
        "100ms",
        "1.5 h",
        "1e3s",
        "0",
        "0.0",
    ),
    *(
        "0s",
        "-1s",
        "5MiB",
        "6 KB",
        "1.5KiB",
        "0B",
        "45 parsecs",
        "true",
        "YES",
        "F",
        "t",
        "oN",
        "perhaps",
        "٣s",
        "sS",
        "5mib",
    ),
    *("info", "Warning", "ınfo", "json", "Json", "key", "SASL_SSL", "sasl_ssl", "nonsense"),
]
"""Values of every kind, but those of which only the loader can tell that they are too large or too small."""


def tree(path: tuple[str, ...], value: object) -> Any:
    for part in reversed(path):
        value = {part: value}
    return value


@cache
def alone(path: tuple[str, ...]) -> TypeAdapter[Any]:
    """What reads the key alone, whatever rules there are between keys."""
    field = fields()[path]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(kind)


def the_loader_takes(path: tuple[str, ...], value: object) -> bool:
    try:
        alone(path).validate_python(value)
    except ValidationError:
        return False
    return True


def properties(part: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    for name, inner in part["properties"].items():
        yield (*above, name), inner
        if "properties" in inner:
            yield from properties(inner, (*above, name))


PROPERTIES = dict(properties(SCHEMA))
DURATIONS = [path for path in LEAVES if the_loader_takes(path, "45s") and not the_loader_takes(path, "text")]
NUMBERS = [path for path in LEAVES if the_loader_takes(path, 1) and not the_loader_takes(path, "1B")]
TEXTS = [path for path in LEAVES if VALIDATOR.is_valid(tree(path, "any text"))]


def test_it_is_a_schema_of_2020_12_that_names_itself_and_nobodys_host() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"].startswith("urn:sagemaker-kafka-connector:")
    assert SCHEMA["title"]
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_key_has_its_sentence_and_its_default() -> None:
    defaults = yaml.safe_load((CONFIG / "connector.yaml").read_text(encoding="utf-8"))
    assert PROPERTIES.keys() == fields().keys()
    for path, field in fields().items():
        assert PROPERTIES[path]["description"] == field.description
    for path in LEAVES:
        section = defaults
        for part in path[:-1]:
            section = section[part]
        if path[-1] in section:
            assert PROPERTIES[path]["default"] == section[path[-1]]
        else:
            assert "default" not in PROPERTIES[path]
            assert VALIDATOR.is_valid(tree(path, PROPERTIES[path]["examples"][0]))


@pytest.mark.parametrize("file", sorted(CONFIG.rglob("*.yaml")), ids=lambda path: path.stem)
def test_the_reference_and_the_examples_are_valid(file: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", SECTIONS, ids=".".join)
def test_a_section_may_be_empty_or_null_and_holds_no_unknown_key(path: tuple[str, ...]) -> None:
    assert VALIDATOR.is_valid(tree(path, {}))
    assert VALIDATOR.is_valid(tree(path, None))
    mistakes: list[object] = [{"no_such_key": 1}, {"": None}, [], "text", 3]
    for wrong in mistakes:
        assert not VALIDATOR.is_valid(tree(path, wrong))


def test_a_number_without_a_unit_and_an_unknown_unit_are_no_durations() -> None:
    assert len(DURATIONS) > 15
    for path in DURATIONS:
        assert VALIDATOR.is_valid(tree(path, "45s"))
        for wrong in (45, "45", "45 parsecs"):
            assert not VALIDATOR.is_valid(tree(path, wrong)), path


def test_a_word_that_is_no_choice_is_refused() -> None:
    chosen = [path for path in LEAVES if choices(fields()[path].annotation)]
    assert len(chosen) > 8
    for path in chosen:
        for choice in choices(fields()[path].annotation):
            assert VALIDATOR.is_valid(tree(path, choice))
        assert not VALIDATOR.is_valid(tree(path, "none of them")), path


@pytest.mark.parametrize("key", MEMBER_KEYS)
def test_a_member_is_a_text_or_the_name_of_a_header(key: str) -> None:
    for right in ("text", {"header": "name"}, {"header": "${NAME}"}, None):
        assert VALIDATOR.is_valid(tree(("endpoint", key), right))
    for wrong in (5, {}, {"header": None}, {"head": "name"}, {"header": "name", "or": "text"}, ["text"]):
        assert not VALIDATOR.is_valid(tree(("endpoint", key), wrong))


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_key_takes_and_refuses_what_the_loader_does(path: tuple[str, ...]) -> None:
    for value in TABLE:
        taken = VALIDATOR.is_valid(tree(path, value))
        if isinstance(value, str) and (path in TEXTS or path in NUMBERS):
            # What a text says is left to the loader, and so are the bounds of a number between quotes.
            assert taken >= the_loader_takes(path, value), value
        else:
            assert taken == the_loader_takes(path, value), value


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_reference_to_the_environment_may_stand_in_any_place_of_a_value(
    path: tuple[str, ...], tmp_path: Path
) -> None:
    shown = PROPERTIES[path]
    default = shown["default"] if "default" in shown else shown["examples"][0]
    assert VALIDATOR.is_valid(tree(path, "${NAME}"))
    assert VALIDATOR.is_valid(tree(path, "a-$${NAME}"))
    if default is not None:
        file = tmp_path / "connector.yaml"
        file.write_text(json.dumps(tree(path, "${NAME}")))
        load(
            file,
            needed_but(path) | {"NAME": str(default).lower() if isinstance(default, bool) else str(default)},
        )


class Options(Section):
    """A section of a kind that a body format may have: lists are taken as lists, and as text from the environment."""

    columns: tuple[str, ...] = Field(default=("a", "b"), description="A list.")
    limit: Annotated[int, Field(ge=1)] | None = Field(default=None, description="A number or nothing.")
    mode: Literal["strict", "lax"] | None = Field(default="lax", description="A choice or nothing.")


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("columns", [["a"], [], ["${NAME}"], "a,b", "${NAME}"], [5, [5], [["a"]], {"a": "b"}, None]),
        ("limit", [1, None, "${NAME}", "7"], [0, -1, 1.5, "many", [1], True]),
        ("mode", ["strict", None, "${NAME}"], ["Strict", "", 1, ["lax"]]),
    ],
)
def test_a_section_made_of_other_types_has_a_schema_too(key: str, right: list[object], wrong: list[object]) -> None:
    made = section_schema(Options, Options().model_dump(mode="json"))
    validator = Draft202012Validator(made | {"$defs": SCHEMA["$defs"]})
    for value in right:
        assert validator.is_valid({key: value}), value
    for value in wrong:
        assert not validator.is_valid({key: value}), value
    assert validator.is_valid({key: made["properties"][key]["default"]})


def test_a_type_whose_form_nobody_says_is_an_error_of_ours() -> None:
    class Odd(Section):
        at: complex = Field(default=0j, description="A complex number.")

    with pytest.raises(TypeError, match=r"complex.*WithJsonSchema"):
        section_schema(Odd, {"at": 0})


NUMBER = st.text("0123456789.eE+-_ ", max_size=6)
UNITS = st.sampled_from(["", " ", "ms", "s", "m", "h", "B", "KB", "MiB", " GiB", "S", "days"])
WORDS = st.sampled_from(["true", "no", "off", "t", "Y", "debug", "ERROR", "csv", "none", "key", "event", "zstd", "SSL"])
IN_ANY_CASE = st.tuples(WORDS, st.integers(0, 31)).map(
    lambda word: "".join(c.upper() if word[1] >> n & 1 else c.lower() for n, c in enumerate(word[0]))
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 100)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.floats(-1, 2)
    | st.tuples(NUMBER, UNITS).map("".join)
    | IN_ANY_CASE
    | st.text(st.characters(exclude_characters="\x7f"), max_size=5)
    | st.dictionaries(st.sampled_from(["header", "name"]), st.none() | st.text(max_size=3), max_size=2)
    | st.lists(st.text(max_size=3), max_size=2)
)


@settings(max_examples=500)
@given(path=st.sampled_from([*LEAVES, *SECTIONS[1:]]), value=VALUES)
def test_what_the_schema_refuses_the_loader_refuses(
    path: tuple[str, ...], value: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "connector.yaml"
    # JSON is YAML, but for what YAML makes of some numbers.
    file.write_text(json.dumps(tree(path, value)))
    given_tree = yaml.safe_load(file.read_text())
    if not VALIDATOR.is_valid(given_tree):
        with pytest.raises(SettingsError):
            load(file, needed_but(path))
