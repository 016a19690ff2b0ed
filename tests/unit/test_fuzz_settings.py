"""Settings against anyone: any text in a file or in the environment gives settings, or sentences that name what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.errors import SettingsError
from connector.settings import Settings, effective
from connector.settings.advice import sentences
from connector.settings.keys import fields
from connector.settings.load import load, parse, variables
from tests.unit.needed import NEEDED, needed_but

if TYPE_CHECKING:
    from pathlib import Path

KEYS = sorted({part for path in fields() for part in path})
ODD_KEYS = [
    "self",
    "__pydantic_self__",
    "_env_file",
    "_cli_parse_args",
    "_secrets_dir",
    "model_config",
    "",
    "<<",
    "\ud800",
]
SCALARS = st.sampled_from(
    [
        "",
        "~",
        "null",
        "0x" + "f" * 5000,
        "9" * 5000,
        "0b_",
        "0x_",
        "1_000",
        "2001-99-99",
        "2001-01-01T99:99:99Z",
        "190:20:30",
        ".nan",
        "-.inf",
        "1e999",
        '"\\ud800"',
        '"a\\0b"',
        "!!python/object:os.system {}",
        "!!binary ####",
        "!!int a",
        "!!float a",
        "!!timestamp a",
        "!!set {a, b}",
        "!!omap [a]",
        "!!pairs [a]",
        "!!bool perhaps",
        "*nobody",
        "&a [*a]",
        "&a {b: *a}",
        "${",
        "${NAME}",
        "$${NAME}",
        "${NOBODY}",
        "[a, [b]]",
        "{a: b}",
        "{? [a] : b}",
        "{? {a: b} : c}",
        "{header: a}",
        "{header: [a]}",
        "{1: a, header: b}",
        "45s",
        "5MiB",
        "http://[::1",
        "https://user:p@[x]/",
        "/nowhere",
    ]
)
LINES = st.tuples(st.sampled_from([0, 0, 2, 2, 4]), st.sampled_from([*KEYS, *ODD_KEYS]), SCALARS).map(
    lambda line: f"{' ' * line[0]}{line[1]}: {line[2]}"
)
SECTIONS = st.tuples(st.sampled_from([path for path in fields() if len(path) == 2]), SCALARS).map(
    lambda given: f"{given[0][0]}:\n  {given[0][1]}: {given[1]}"
)
TEXTS = (
    st.lists(LINES, max_size=5).map("\n".join)
    | SECTIONS
    | st.text(max_size=60)
    | st.text("ab:-[]{}&*!|>'\"%@`#,?~<. \n\t0_", max_size=40)
)
ENVIRONMENTS = st.dictionaries(
    st.sampled_from([*variables(), "CONNECTOR_KAFKA", "CONNECTOR_", "CONNECTOR_KAFKA__", "CONNECTOR___X", "NAME"]),
    st.sampled_from(["", "null", "[", "{}", '{"a":1}', "[1]", "1", "1s", "${NAME}", "\udcff", "9" * 5000])
    | st.text(st.characters(exclude_characters="\0"), max_size=20),
    max_size=3,
)


def outcome_of(make: Any) -> Settings | None:
    """The settings, or None when sentences say what is wrong; anything else that is raised is a fault."""
    try:
        made: Settings = make()
    except SettingsError as error:
        lines = str(error).splitlines()
        assert lines
        for line in lines:
            assert ":" in line, "it names where"
            assert "Traceback" not in line
            assert len(line) < 2000
        return None
    assert effective(made)
    assert list(sentences(made)) is not None
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "connector.yaml"


@settings(max_examples=250)
@given(text=TEXTS, environment=ENVIRONMENTS)
@example(text="", environment={"CONNECTOR_KAFKA__SECURITY__KEY_PASSWORD_FILE": "\udcff"})
@example(text="", environment={"CONNECTOR_KAFKA__SECURITY__PASSWORD_FILE": "\x1e\r"})
@example(text="kafka: " + "[" * 10_000, environment={})
@example(text="a: " * 10_000, environment={})
@example(text="- " * 10_000, environment={})
@example(
    text="kafka:\n  group_id:\n"
    "    a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"    a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
    environment={},
)
@example(
    text="kafka:\n  group_id:\n    a0: &a0 {x: y}\n"
    + "".join(f"    a{n}: &a{n} {{a: *a{n - 1}, b: *a{n - 1}}}\n" for n in range(1, 40)),
    environment={},
)
def test_any_file_and_environment_are_settings_or_sentences(file: Path, text: str, environment: dict[str, str]) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    outcome_of(lambda: load(file, NEEDED | environment))


@settings(max_examples=100)
@given(data=st.binary(max_size=60))
def test_any_bytes_of_a_file_are_settings_or_sentences(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    outcome_of(lambda: load(file, NEEDED))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150)
@given(path=st.sampled_from(sorted(fields())), value=VALUES)
def test_any_value_of_any_key_is_settings_or_sentences_that_begin_with_the_key(
    path: tuple[str, ...], value: Any
) -> None:
    tree = value
    for part in reversed(path):
        tree = {part: tree}
    try:
        made = parse(tree)
    except SettingsError as error:
        said = str(error)
    else:
        said = path[0]
        assert effective(made)
    assert said.startswith(path[0])


@settings(max_examples=100)
@given(path=st.sampled_from([path for path in fields() if len(path) > 1]), value=SCALARS)
def test_what_yaml_makes_of_any_scalar_is_settings_or_sentences(file: Path, path: tuple[str, ...], value: str) -> None:
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(path)]
    file.write_text("\n".join(lines) + f" {value}", encoding="utf-8")
    outcome_of(lambda: load(file, needed_but(path) | {"NAME": "value"}))


def test_an_alias_stands_for_a_value_and_for_nothing_larger(file: Path) -> None:
    file.write_text("kafka:\n  group_id: &a group\n  client_id: *a\n", encoding="utf-8")
    assert load(file, NEEDED).kafka.client_id == "group"
    file.write_text("endpoint:\n  accept: &a {header: x}\n  content_type: *a\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"line 3.*single value"):
        load(file, NEEDED)
