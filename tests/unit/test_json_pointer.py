"""What holds for JSON pointers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.routes.json_pointer import JsonPointer
from connector.errors import SettingsError
from tests.unit.formats.json_values import JSON_VALUES

RFC_6901_SECTION_5 = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", RFC_6901_SECTION_5),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_rfc_are_found(pointer: str, found: object) -> None:
    assert JsonPointer(pointer).find(RFC_6901_SECTION_5) == found


@given(st.lists(st.text() | st.integers(0, 3), max_size=5), JSON_VALUES)
@example(["~1", "/0"], 1)
def test_what_is_put_at_a_path_is_found_there(path: list[str | int], leaf: Any) -> None:
    document = leaf
    for step in reversed(path):
        document = {step: document} if isinstance(step, str) else [None] * step + [document]
    pointer = "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)
    assert JsonPointer(pointer).find(document) is leaf


@given(st.text(alphabet="/~01a-", max_size=8), JSON_VALUES)
def test_a_pointer_is_found_missing_or_refused(text: str, document: Any) -> None:
    try:
        JsonPointer(text).find(document)
    except (SettingsError, LookupError):
        return


@pytest.mark.parametrize("text", ["foo", "foo/bar", "/~", "/~2", "/a~"])
def test_what_is_no_pointer_is_refused_by_name(text: str) -> None:
    with pytest.raises(SettingsError, match=r"is not a JSON pointer"):
        JsonPointer(text)


@pytest.mark.parametrize("pointer", ["/2", "/-", "/-1", "/01", "/+1", "/1.0", "/x", "/1/0", f"/{'9' * 5000}", "/٣"])
def test_an_array_has_no_such_place(pointer: str) -> None:
    with pytest.raises(LookupError):
        JsonPointer(pointer).find([1, 2])
