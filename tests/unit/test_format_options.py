"""The options of a body format as settings: what a declaration becomes, and which declarations are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from connector.core.formats.options import option, options_of
from connector.settings.format_options import section_of_options, with_format_options
from connector.settings.section import Section


def even(number: int) -> str | None:
    return "must be even" if number % 2 else None


@dataclass(frozen=True, slots=True)
class Options:
    flag: bool = option("A flag.", default=True)
    number: int = option("A number.", default=2, check=even)
    share: float = option("A share.", default=0.5, at_least=0, at_most=1)
    text: str = option("A text.", default="")
    choice: Literal["a", "b"] = option("A choice.", default="a")
    fields: tuple[str, ...] = option("Some fields.", default=())
    limit: int | None = option("A limit.", default=None, at_least=1, check=even)
    name: Literal["c", "d"] | None = option("A name.", default=None)


SECTION = section_of_options(Options, "The options of request.format: tried.")


def values(**given: Any) -> dict[str, Any]:
    return dict(SECTION(**given))


def test_without_values_an_option_has_its_default_and_always_its_sentence() -> None:
    assert Options(**values()) == Options()
    assert {name: field.description for name, field in SECTION.model_fields.items()} == {
        each.name: each.sentence for each in options_of(Options)
    }


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("flag", False, False),
        ("flag", "false", False),
        ("number", 4, 4),
        ("number", "4", 4),
        ("share", 1, 1.0),
        ("share", "0.25", 0.25),
        ("text", "a, b", "a, b"),
        ("choice", "b", "b"),
        ("fields", ["a", "b,c"], ("a", "b,c")),
        ("fields", "a, b", ("a", "b")),
        ("fields", " ", ()),
        ("limit", None, None),
        ("limit", "6", 6),
        ("name", "d", "d"),
    ],
)
def test_an_option_is_read_as_a_file_or_the_environment_writes_it(name: str, written: object, read: object) -> None:
    assert values(**{name: written})[name] == read


@pytest.mark.parametrize(
    ("name", "written", "said"),
    [
        ("flag", "perhaps", "bool_parsing"),
        ("number", True, "must be a number, not true"),
        ("number", 3, "must be even, not 3"),
        ("number", 2.5, "int_from_float"),
        ("share", True, "must be a number, not true"),
        ("share", float("nan"), "finite_number"),
        ("text", 1, "string_type"),
        ("choice", "c", "literal_error"),
        ("fields", 5, "must be a list of texts, not 5"),
        ("fields", [5], "string_type"),
        ("share", 1.5, "less_than_equal"),
        ("share", -0.5, "greater_than_equal"),
        ("limit", 5, "must be even, not 5"),
        ("limit", 0, "greater_than_equal"),
        ("name", "a", "literal_error"),
        ("nothing", 1, "extra_forbidden"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_refused(name: str, written: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SECTION(**{name: written})
    (error,) = caught.value.errors()
    assert error["loc"][0] == name
    assert said in (error["type"], str(error.get("ctx", {}).get("error")))


def test_the_schema_of_the_section_knows_types_defaults_and_sentences() -> None:
    schema = SECTION.model_json_schema()
    assert schema["additionalProperties"] is False
    assert schema["description"] == "The options of request.format: tried."
    assert schema["properties"]["choice"]["enum"] == ["a", "b"]
    assert schema["properties"]["fields"]["items"] == {"type": "string"}
    assert schema["properties"]["number"]["default"] == 2
    assert schema["properties"]["number"]["description"] == "A number."


def refused_types() -> list[Any]:
    @dataclass(frozen=True, slots=True)
    class OfBytes:
        field: bytes = option("Bytes.", default=b"")

    @dataclass(frozen=True, slots=True)
    class OfTwo:
        field: int | str = option("One of two.", default=1)

    @dataclass(frozen=True, slots=True)
    class OfNone:
        field: None = option("Nothing.", default=None)

    @dataclass(frozen=True, slots=True)
    class OfNumbers:
        field: Literal[1, 2] = option("A choice of numbers.", default=1)

    return [OfBytes, OfTwo, OfNone, OfNumbers]


@pytest.mark.parametrize("declared", refused_types(), ids=lambda declared: declared.__name__)
def test_an_option_of_a_type_that_no_setting_has_is_refused(declared: type[Any]) -> None:
    with pytest.raises(TypeError, match=rf"{declared.__name__}\.field is a .*, and no setting has that type\."):
        section_of_options(declared, "Refused.")


def test_an_option_without_a_sentence_is_refused() -> None:
    @dataclass(frozen=True, slots=True)
    class Options:
        depth: int = 3

    with pytest.raises(TypeError, match=r"Options\.depth has no sentence"):
        section_of_options(Options, "Refused.")


def test_no_format_can_take_the_name_of_a_setting() -> None:
    class Request(Section):
        csv: str = Field(default="", description="A setting.")

    with pytest.raises(TypeError, match=r"request\.csv is a setting"):
        with_format_options(Request)
