"""What a person must give, and what comes along with it: brokers and endpoint, quotes, line ends, small letters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from connector.errors import SettingsError
from connector.settings import Settings, load
from connector.settings.advice import sentences
from connector.settings.keys import Path as Key
from connector.settings.keys import fields, required, variable
from connector.settings.schema import schema
from connector.settings.wrapping import QUOTABLE
from tests.unit.needed import NEEDED, needed_but

REFERENCE = Path(__file__).parents[2] / "config/connector.yaml"
SCHEMA = Draft202012Validator(schema())
REQUIRED = {path: mark for path, field in fields().items() if (mark := required(field))}
SASL = {
    f"CONNECTOR_KAFKA__SECURITY__{name}": value
    for name, value in {"PROTOCOL": "SASL_SSL", "MECHANISM": "PLAIN", "PASSWORD": "x"}.items()
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "connector.yaml"


def said(file: Path | None, environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(file, environ)
    return str(caught.value)


def written(file: Path, key: str, value: str) -> Path:
    tree: Any = value
    for part in reversed(key.split(".")):
        tree = {part: tree}
    file.write_text(yaml.safe_dump(tree))
    return file


# What is required


@pytest.mark.parametrize("path", REQUIRED, ids=".".join)
@pytest.mark.parametrize("value", ["absent", "null", "''"])
def test_what_is_required_is_asked_for_with_the_key_the_variable_and_an_example(
    file: Path, path: Key, value: str
) -> None:
    file.write_text("web: {port: 80}" if value == "absent" else f"{path[0]}:\n  {path[1]}: {value}\n")
    assert said(file, needed_but(path)) == (
        f"{'.'.join(path)}: is needed; set it, or {variable(path)} in the environment, to a value like "
        f"{REQUIRED[path].example}"
    )


def test_the_brokers_and_the_endpoint_are_required_and_no_address_is_guessed() -> None:
    assert set(REQUIRED) == {("kafka", "bootstrap_servers"), ("endpoint", "name")}
    assert (Settings().kafka.bootstrap_servers, Settings().endpoint.name) == ("", "")


def test_everything_that_is_wrong_is_said_at_once(file: Path) -> None:
    file.write_text("kafka: {group_ids: x}\nendpoint:\n")
    keys = [line.split(": ")[0] for line in said(file, {}).splitlines()]
    assert keys == ["kafka.bootstrap_servers", "endpoint.name", "kafka.group_ids"]


@pytest.mark.parametrize("value", ["5", "[]", "false", "''", "[a]"])
def test_what_stands_instead_of_a_section_is_said_and_not_asked_for_keys(file: Path, value: str) -> None:
    file.write_text(f"kafka: {value}\nendpoint: {value}\n")
    for environ in ({}, NEEDED):
        keys = [line.split(": ")[0] for line in said(file, environ).splitlines()]
        assert keys == ["kafka", "endpoint"]


def test_a_copy_of_the_reference_asks_for_what_is_required_and_works_with_the_examples(file: Path) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    assert [line.split(": ")[0] for line in said(file, {}).splitlines()] == [".".join(path) for path in REQUIRED]
    for _, name in REQUIRED:
        text, found = re.subn(rf"(Required, such as:\n  )# ({name}: \S+\n)", r"\1\2", text)
        assert found == 1
    file.write_text(text, encoding="utf-8")
    assert list(sentences(load(file, {}))) == []


# The brokers' addresses


@pytest.mark.parametrize("value", ["[a:9092, b:9093]", "[a:9092, ' b:9093 ']", "a:9092,b:9093", "['a:9092,b:9093']"])
def test_brokers_are_a_text_or_a_list(file: Path, value: str) -> None:
    file.write_text(f"kafka:\n  bootstrap_servers: {value}\n")
    assert load(file, needed_but(("kafka", "bootstrap_servers"))).kafka.bootstrap_servers == "a:9092,b:9093"
    assert SCHEMA.is_valid(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("a", "a has no port; write a:9092 "),
        ("[a:1, 'b.example.com']", "b.example.com has no port; write b.example.com:9092 "),
        ("'[::1]'", "[::1] has no port; write [::1]:9092 "),
        ("[a:1, 2]", "must be HOST:PORT, or a list of such texts"),
        ("[]", "is needed; "),
    ],
)
def test_an_address_of_which_kafkas_client_would_guess_a_part_is_refused(file: Path, value: str, hint: str) -> None:
    file.write_text(f"kafka:\n  bootstrap_servers: {value}\n")
    assert said(file, needed_but(("kafka", "bootstrap_servers"))).startswith(f"kafka.bootstrap_servers: {hint}")
    assert not SCHEMA.is_valid(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("value", ["['${A}', b:9093]", "['${HOST}:9092', b:9093]", "${HOST}:9092,b:9093"])
def test_an_address_may_come_from_the_environment_in_whole_or_in_part(file: Path, value: str) -> None:
    file.write_text(f"kafka:\n  bootstrap_servers: {value}\n")
    environ = needed_but(("kafka", "bootstrap_servers")) | {"A": "a:9092", "HOST": "a"}
    assert load(file, environ).kafka.bootstrap_servers == "a:9092,b:9093"
    assert SCHEMA.is_valid(yaml.safe_load(file.read_text()))


# What comes along with a value of the environment


@pytest.mark.parametrize(
    "name", ["CONNECTOR_KAFKA__GROUP_ID", "CONNECTOR_KAFKA__SECURITY__PASSWORD", "CONNECTOR_CONFIG_FILE"]
)
@pytest.mark.parametrize(
    ("around", "what"),
    [
        ('"{}"', "stands in quotes, "),
        ("'{}'", "stands in quotes, "),
        ("{}\n", "begins or ends with a line end, "),
        ("{}\r\n", "begins or ends with a line end, "),
        ("\n{}", "begins or ends with a line end, "),
        ('"{}"\n', "stands in quotes and begins or ends with a line end, "),
    ],
)
def test_what_came_along_is_said_by_the_variable_and_without_the_value(name: str, around: str, what: str) -> None:
    sentence = said(None, NEEDED | {name: around.format("m4rked")})
    assert sentence.startswith(f"{name}: the value {what}")
    assert "m4rked" not in sentence


@pytest.mark.parametrize("around", ['"{}"', "{}\n"])
@pytest.mark.parametrize("key", ["kafka.group_id", "kafka.security.password"])
def test_what_came_along_with_a_reference_is_said_by_the_key_and_the_variable(
    file: Path, key: str, around: str
) -> None:
    sentence = said(written(file, key, "${NAME}"), NEEDED | {"NAME": around.format("m4rked")})
    assert sentence.startswith(f"{key}: the value of NAME in the environment ")
    assert "m4rked" not in sentence


@pytest.mark.parametrize("value", ['"', "it's", '"a" and b', "a\nb", '{"a": "b"}'])
def test_quotes_and_line_ends_inside_of_a_value_are_its_own(value: str) -> None:
    settings = load(None, NEEDED | SASL | {"CONNECTOR_KAFKA__SECURITY__USERNAME": value})
    assert settings.kafka.security.username == value


@pytest.mark.parametrize("key", sorted(QUOTABLE))
def test_quotes_that_can_be_meant_are_kept(file: Path, key: str) -> None:
    by_variable = load(None, NEEDED | {variable(tuple(key.split("."))): '"a"'})
    by_reference = load(written(file, key, "${A}"), NEEDED | {"A": '"a"'})
    assert by_variable == by_reference
    assert list(by_variable.endpoint.members().values()) == ['"a"']


def test_a_reference_within_a_text_may_bring_quotes_and_no_line_end(file: Path) -> None:
    written(file, "kafka.client_id", "a-${A}")
    assert load(file, NEEDED | {"A": '"b"'}).kafka.client_id == 'a-"b"'
    assert "begins or ends with a line end" in said(file, NEEDED | {"A": "b\n"})


def test_quotes_that_stand_in_the_file_are_meant(file: Path) -> None:
    assert load(written(file, "kafka.client_id", '"b"'), NEEDED).kafka.client_id == '"b"'


@pytest.mark.parametrize("key", ["password", "oauth_client_secret", "key_password"])
def test_the_line_end_of_a_secrets_file_is_no_part_of_it(tmp_path: Path, key: str) -> None:
    needs = {
        "password": {"MECHANISM": "PLAIN", "USERNAME": "me"},
        "oauth_client_secret": {"MECHANISM": "OAUTHBEARER", "OAUTH_TOKEN_URL": "https://a/", "OAUTH_CLIENT_ID": "me"},
        "key_password": {"MECHANISM": "AWS_MSK_IAM", "CERT_FILE": "/cert.pem"},
    }[key]
    (tmp_path / "secret").write_text("m4rked\r\n")
    own = {"PROTOCOL": "SASL_SSL", f"{key}_file".upper(): str(tmp_path / "secret")} | needs
    security = load(
        None, NEEDED | {f"CONNECTOR_KAFKA__SECURITY__{name}": value for name, value in own.items()}
    ).kafka.security
    assert getattr(security, key).get_secret_value() == "m4rked"


# Variables in small letters


@pytest.mark.parametrize(
    "name", ["connector_kafka__group_id", "Connector_Kafka__Group_Id", "CONNECTOR_kafka__group_id"]
)
def test_a_variable_in_small_letters_is_said_with_its_name(name: str) -> None:
    assert said(None, NEEDED | {name: "x"}) == (
        f"{name}: is not read; variables are written in capitals, so call it CONNECTOR_KAFKA__GROUP_ID"
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("connector_config_file", "so call it CONNECTOR_CONFIG_FILE"),
        ("connector_kafka__group", "did you mean CONNECTOR_KAFKA__GROUP_ID?"),
    ],
)
def test_a_variable_in_small_letters_is_said_whatever_it_was_meant_to_be(name: str, hint: str) -> None:
    sentence = said(None, NEEDED | {name: "x"})
    assert sentence.startswith(f"{name}: is ")
    assert sentence.endswith(hint)
