"""Settings: what they take, what they refuse in a sentence, and where they come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from connector.core.routes.router import HeaderRef
from connector.errors import SettingsError
from connector.settings import Settings, document, effective, load, parse
from connector.settings.advice import sentences
from connector.settings.endpoint import MEMBER_KEYS, member_name
from connector.settings.keys import fields, is_secret, required, section_of
from connector.settings.load import variables
from connector.settings.reference import reference
from connector.settings.units import parse_duration, parse_size, write_duration, write_size
from tests.unit.needed import BARE, NAME, NEEDED, SERVERS

CONFIG = Path(__file__).parents[2] / "config"
LEAVES = [path for path, field in fields().items() if section_of(field) is None]
REQUIRED = [path for path, field in fields().items() if required(field)]


def tree(key: str, value: object) -> dict[str, Any]:
    """A tree of settings with one key."""
    name, _, below = key.partition(".")
    return {name: tree(below, value) if below else value}


def refused(given_tree: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(given_tree)
    return str(caught.value)


def refused_file(path: Path, text: str, **environ: str) -> str:
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(path, NEEDED | environ)
    return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "connector.yaml"


# Durations and sizes


@pytest.mark.parametrize(
    ("written", "seconds"), [("45s", 45), ("100ms", 0.1), ("5m", 300), ("1h", 3600), ("1.5s", 1.5), (0, 0), ("0", 0)]
)
def test_a_duration_is_read_in_seconds(written: object, seconds: float) -> None:
    assert parse_duration(written) == seconds


@pytest.mark.parametrize("seconds", [45.0, 0.1, 300.0, 0.01, 60.0, 0.5, 0.0, 7200.0])
def test_a_duration_is_written_as_people_write_it(seconds: float) -> None:
    expected = {45.0: "45s", 0.1: "100ms", 300.0: "5m", 0.01: "10ms", 60.0: "60s", 0.5: "500ms", 0.0: "0s"}
    assert write_duration(seconds) == expected.get(seconds, "2h")


@given(st.decimals(min_value=0, max_value=8000, places=6), st.sampled_from(["ms", "s", "m", "h"]))
def test_a_written_duration_reads_back_to_the_same_number(number: object, unit: str) -> None:
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(write_duration(seconds)) == seconds


@given(st.integers(min_value=0, max_value=2**50))
def test_a_written_size_reads_back_to_the_same_number(size: int) -> None:
    assert parse_size(write_size(size)) == size


@pytest.mark.parametrize(
    ("written", "size"), [("5MiB", 5 * 2**20), ("256KiB", 2**18), ("50MB", 50_000_000), (1234, 1234), ("1.5KiB", 1536)]
)
def test_a_size_is_read_in_bytes(written: object, size: int) -> None:
    assert parse_size(written) == size
    assert parse_size(write_size(size)) == size


@pytest.mark.parametrize("written", [45, 1.5, "45"])
def test_a_duration_without_a_unit_is_refused_with_how_to_write_it(written: object) -> None:
    message = refused(tree("batch.linger", written))
    assert message.startswith("batch.linger: has no unit; write ")
    assert f"{written}s" in message


@pytest.mark.parametrize("written", ["fast", "-5s", "5 parsecs", True, None, [], "9000h", "1e3s", "٣s"])
def test_what_is_no_duration_is_refused(written: object) -> None:
    assert refused(tree("kafka.session_timeout", written)).startswith("kafka.session_timeout: ")


@pytest.mark.parametrize("written", ["big", "-1", "5 parsecs", True, None, "1.5", "0.3KiB"])
def test_what_is_no_size_is_refused(written: object) -> None:
    assert refused(tree("batch.max_bytes", written)).startswith("batch.max_bytes: ")


# Sentences


@given(
    st.sampled_from(LEAVES), st.sampled_from([[], {}, {"x": 1}, -1, "", "\x00", object(), 10**30, float("nan"), True])
)
def test_a_wrong_value_gets_sentences_that_name_its_key(path: tuple[str, ...], value: object) -> None:
    key = ".".join(path)
    try:
        parse(tree(key, value))
    except SettingsError as error:
        section = ".".join(path[:-1])
        for line in str(error).splitlines():
            assert line.startswith(f"{section}.")
            assert "pydantic" not in line
            assert "validation" not in line


@pytest.mark.parametrize(
    ("given_tree", "sentence"),
    [
        (
            {"kafka": {"bootstrap_server": "a:1"}},
            "kafka.bootstrap_server: there is no such setting; did you mean kafka.bootstrap_servers?",
        ),
        ({"kafka": {"linger": "1s"}}, "kafka.linger: there is no such setting; did you mean batch.linger?"),
        ({"batches": {}}, "batches: there is no such setting; did you mean batch?"),
        ({"zzz": 1}, "zzz: there is no such setting; `connector config` lists every setting"),
        (
            {"kafka": {"delivery": "exactly_once", "transaction_timeout": "20s"}},
            (
                "kafka.transaction_timeout: must be at least 40s, twice kafka.request_timeout plus kafka.revoke_drain, or "
                "the brokers abort transactions that are still being worked on"
            ),
        ),
        ({"log": {"format": "xml"}}, "log.format: must be 'json' or 'text', not 'xml'"),
        ({"kafka": {"client_id": 5}}, "kafka.client_id: must be text, not 5; put it in quotes"),
        ({"kafka": {"group_id": ""}}, "kafka.group_id: is empty; give it a value, or leave the key out"),
        ({"kafka": 3}, "kafka: must hold keys of its own, one below the other"),
        ({"batch": {"max_events": "many"}}, "batch.max_events: must be a whole number, not 'many'"),
        ({"batch": {"max_events": True}}, "batch.max_events: must be a number, not true"),
        ({"batch": {"max_events": 0}}, "batch.max_events: must be above 0, not 0"),
        ({"result": {"envelope": "maybe"}}, "result.envelope: must be true or false, not 'maybe'"),
        ({"dead_letter": {"max_ratio": 1.5}}, "dead_letter.max_ratio: must be at most 1, not 1.5"),
        ({"endpoint": {"accept": 4}}, "endpoint.accept: must be a text or {header: NAME}, not 4; put a text in quotes"),
        ({"endpoint": {"accept": {"head": "x"}}}, "endpoint.accept: must be a text or {header: NAME}"),
    ],
)
def test_a_mistake_is_answered_with_one_sentence(given_tree: dict[str, Any], sentence: str) -> None:
    assert refused(given_tree) == sentence


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kafka.bootstrap_servers", "kafka:99999"),
        ("kafka.bootstrap_servers", "https://kafka:9092"),
        ("kafka.bootstrap_servers", "a:9092,,b:9092"),
        ("kafka.input_topic", "in/out"),
        ("kafka.input_topic", ".."),
        ("kafka.request_timeout", "25h"),
        ("kafka.fetch_max_bytes", "2GiB"),
        ("endpoint.url", "runtime.sagemaker"),
        ("endpoint.region", "Frankfurt!"),
        ("endpoint.name", "under_score"),
        ("endpoint.read_timeout", "59s"),
        ("request.payload", "features"),
        ("shutdown.drain", "5s"),
        ("dead_letter.max_ratio", 0),
        ("web.port", 65536),
        ("concurrency.max_in_flight", 0),
        ("retry.initial", "21s"),
    ],
)
def test_what_cannot_work_is_refused(key: str, value: object) -> None:
    lines = refused(tree(key, value)).splitlines()
    assert any(line.startswith(f"{key}: ") for line in lines)


@pytest.mark.parametrize("key", MEMBER_KEYS)
def test_a_constant_that_breaks_its_members_rule_is_refused(key: str) -> None:
    message = refused(tree(f"endpoint.{key}", "line\nbreak"))
    assert message.startswith(f"endpoint.{key}: {member_name(key)} ")


def test_several_mistakes_are_said_in_a_line_each() -> None:
    lines = refused({"batch": {"linger": 5, "max_events": 0}, "web": {"prot": 1}}).splitlines()
    assert [line.split(":")[0] for line in lines] == ["batch.max_events", "batch.linger", "web.prot"]


# Rules between keys


@pytest.mark.parametrize(
    ("given_tree", "key", "other"),
    [
        ({"kafka": {"revoke_drain": "15s"}}, "kafka.revoke_drain", "kafka.request_timeout"),
        ({"kafka": {"rebalance_timeout": "10s"}}, "kafka.revoke_drain", "kafka.rebalance_timeout"),
        ({"kafka": {"max_poll_interval": "10s"}}, "kafka.max_poll_interval", "kafka.revoke_drain"),
        ({"kafka": {"session_timeout": "15s"}}, "kafka.request_timeout", "kafka.session_timeout"),
        ({"kafka": {"output_topic": "inference-requests"}}, "kafka.output_topic", "kafka.input_topic"),
        ({"kafka": {"dead_letter_topic": "inference-requests"}}, "kafka.dead_letter_topic", "kafka.input_topic"),
        ({"kafka": {"dead_letter_topic": "inference-results"}}, "kafka.dead_letter_topic", "kafka.output_topic"),
        ({"batch": {"max_bytes": "7MiB"}}, "batch.max_bytes", "batch.allow_over_6_mib"),
        ({"concurrency": {"max_bytes": "4MiB"}}, "concurrency.max_bytes", "batch.max_bytes"),
        ({"buffer": {"max_bytes": "4MiB"}}, "buffer.max_bytes", "batch.max_bytes"),
        ({"retry": {"initial": "30s"}}, "retry.initial", "retry.max"),
    ],
)
def test_a_broken_rule_is_one_sentence_that_names_both_keys(given_tree: dict[str, Any], key: str, other: str) -> None:
    message = refused(given_tree)
    assert message.startswith(f"{key}: ")
    assert other in message
    assert "\n" not in message


def test_a_body_over_the_services_limit_is_taken_when_that_is_said() -> None:
    assert parse({"batch": {"max_bytes": "7MiB", "allow_over_6_mib": True}}).batch.max_bytes == 7 * 2**20


SASL = {"protocol": "SASL_SSL"}
OAUTH = SASL | {"mechanism": "OAUTHBEARER"}
CLIENT = {"oauth_token_url": "https://login/token", "oauth_client_id": "c", "oauth_client_secret": "s"}
USER = {"username": "u", "password": "p"}


@pytest.mark.parametrize(
    ("security", "keys"),
    [
        (SASL, {"mechanism"}),
        ({"mechanism": "PLAIN"} | USER, {"mechanism"}),
        ({"username": "u"}, {"username"}),
        ({"ca_file": "/ca.pem", "check_hostname": False}, {"ca_file", "check_hostname"}),
        ({"protocol": "SSL", "key_file": "/key.pem", "key_password": "s"}, {"key_file", "key_password"}),
        (SASL | {"mechanism": "PLAIN"}, {"username", "password"}),
        (SASL | {"mechanism": "SCRAM-SHA-512", "aws_region": "x"} | USER, {"aws_region"}),
        (OAUTH, {"oauth_token_url", "oauth_client_id", "oauth_client_secret"}),
        (OAUTH | CLIENT | {"oauth_token_file": "/t"}, set(CLIENT)),
        (OAUTH | CLIENT | {"oauth_token_url": "http://login/token"}, {"oauth_token_url"}),
        (OAUTH | CLIENT | {"oauth_token_url": "https://u:p@login/token"}, {"oauth_token_url"}),
        ({"protocol": "SASL_PLAINTEXT", "mechanism": "AWS_MSK_IAM"}, {"protocol"}),
        ({"protocol": "KERBEROS"}, {"protocol"}),
    ],
)
def test_security_keys_that_are_missing_or_have_no_effect_are_refused(security: dict[str, Any], keys: set[str]) -> None:
    lines = refused({"kafka": {"security": security}}).splitlines()
    assert {line.split(": ")[0] for line in lines} == {f"kafka.security.{key}" for key in keys}


@pytest.mark.parametrize(
    "security",
    [
        {},
        {"protocol": "SSL"},
        {"protocol": "SSL", "ca_file": "/ca", "cert_file": "/c", "key_file": "/k", "key_password": "s"},
        SASL | {"mechanism": "PLAIN"} | USER,
        SASL | {"mechanism": "SCRAM-SHA-256", "ca_file": "/ca", "check_hostname": False} | USER,
        OAUTH | CLIENT | {"oauth_scope": "kafka"},
        OAUTH | CLIENT | {"oauth_token_url": "http://127.0.0.1:8080/token"},
        OAUTH | {"oauth_token_file": "/var/run/token"},
        SASL | {"mechanism": "AWS_MSK_IAM"},
        SASL | {"mechanism": "AWS_MSK_IAM", "aws_region": "eu-west-1", "aws_role_arn": "arn:aws:iam::1:role/x"},
    ],
)
def test_every_way_to_authenticate_can_be_set(security: dict[str, Any]) -> None:
    parse({"kafka": {"security": security}})


# Secrets


def test_a_secret_comes_from_a_file_without_its_line_break(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("pass word\n")
    security = parse(
        {"kafka": {"security": SASL | {"mechanism": "PLAIN", "username": "u", "password_file": str(secret)}}}
    ).kafka.security
    assert security.password is not None
    assert security.password.get_secret_value() == "pass word"


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), (b" \n", "is empty"), (b"\xff", "UTF-8")])
def test_a_secret_file_that_gives_no_secret_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    secret = tmp_path / "password"
    if content is not None:
        secret.write_bytes(content)
    message = refused(tree("kafka.security.password_file", str(secret)))
    assert message.startswith(f"kafka.security.password_file: {secret} ")
    assert said in message


def test_a_secret_and_its_file_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("x")
    message = refused({"kafka": {"security": {"password": "x", "password_file": str(tmp_path / "p")}}})
    assert message == "kafka.security.password: is given together with password_file; keep one of them"


def test_no_secret_is_ever_shown() -> None:
    secrets = {".".join(path) for path, field in fields().items() if is_secret(field)}
    assert secrets == {f"kafka.security.{key}" for key in ("password", "key_password", "oauth_client_secret")}
    settings = parse(
        {
            "kafka": {"security": SASL | {"mechanism": "PLAIN", "username": "u", "password": "t0psecret"}},
            "endpoint": {"url": "https://me:t0psecret@runtime/x?at=b@c"},
        }
    )
    shown = effective(settings)
    assert "t0psecret" not in str(shown)
    assert shown["kafka"]["security"]["password"] == "***"
    assert shown["kafka"]["security"]["key_password"] is None
    assert shown["endpoint"]["url"] == "https://***@runtime/x?at=b@c"
    for secret in secrets:
        assert "7654321" not in refused(tree(secret, 7654321))


def test_no_password_of_an_address_in_a_list_is_shown() -> None:
    class More(Settings):
        addresses: tuple[str, ...] = ()

    shown = effective(More(addresses=("https://me:t0psecret@runtime/x",)))
    assert shown["addresses"] == ["https://***@runtime/x"]


def test_the_effective_settings_are_written_as_in_a_file() -> None:
    own: dict[str, Any] = {
        "kafka": {"bootstrap_servers": SERVERS},
        "endpoint": {"name": NAME, "accept": {"header": "a"}},
    }
    shown = effective(parse(own | {"batch": {"linger": "2m"}}))
    assert shown["batch"] == {"max_events": 64, "max_bytes": "5MiB", "linger": "2m", "allow_over_6_mib": False}
    assert parse(shown) == parse(own | {"batch": {"linger": "120s"}})


# Sources


def test_without_a_file_or_an_environment_there_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONNECTOR_KAFKA__GROUP_ID", "of-the-process")
    assert load(None, NEEDED) == BARE
    assert Settings() == parse({})
    assert parse({"kafka": {"bootstrap_servers": SERVERS}, "endpoint": {"name": NAME}}) == BARE


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "kafka:\n", "kafka:\n  security:\n", "---\n"])
def test_a_file_without_settings_is_the_defaults(file: Path, text: str) -> None:
    file.write_text(text)
    assert load(file, NEEDED) == BARE


def test_the_environment_overrides_the_file_and_the_file_the_defaults(file: Path) -> None:
    file.write_text("kafka: {group_id: file, client_id: file}\nbatch: {max_events: 9}\nretry: {max_age: 1h}\n")
    settings = load(
        file,
        NEEDED
        | {
            "CONNECTOR_KAFKA__GROUP_ID": "environment",
            "CONNECTOR_RETRY__MAX_AGE": "null",
            "CONNECTOR_BUFFER__MAX_BYTES": "64MiB",
            "CONNECTOR_KAFKA__SECURITY__PROTOCOL": "SSL",
            "PATH": "/bin",
        },
    )
    assert (settings.kafka.group_id, settings.kafka.client_id) == ("environment", "file")
    assert (settings.batch.max_events, settings.retry.max_age, settings.buffer.max_bytes) == (9, None, 2**26)
    assert settings.kafka.security.protocol == "SSL"


def test_a_members_text_from_the_environment_is_kept_as_it_is() -> None:
    endpoint = load(None, NEEDED | {"CONNECTOR_ENDPOINT__CUSTOM_ATTRIBUTES": '{"a": 1.10}'}).endpoint
    assert endpoint.members() == {"CustomAttributes": '{"a": 1.10}'}


def test_a_members_header_can_come_from_the_environment(file: Path) -> None:
    file.write_text("endpoint: {target_model: a.tar.gz, accept: {header: accept}, content_type: text/csv}")
    endpoint = load(file, NEEDED | {"CONNECTOR_ENDPOINT__TARGET_MODEL__HEADER": "model"}).endpoint
    assert endpoint.members() == {
        "Accept": HeaderRef("accept"),
        "ContentType": "text/csv",
        "TargetModel": HeaderRef("model"),
    }


def test_a_member_given_twice_by_the_environment_is_refused() -> None:
    with pytest.raises(SettingsError, match="CONNECTOR_ENDPOINT__ACCEPT: is given together with"):
        load(None, {"CONNECTOR_ENDPOINT__ACCEPT": "x", "CONNECTOR_ENDPOINT__ACCEPT__HEADER": "y"})


def test_every_setting_has_a_variable() -> None:
    assert {path for path in variables().values() if path[-1] != "header"} == set(LEAVES)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("CONNECTOR_KAFKA__GROUP", "x", "CONNECTOR_KAFKA__GROUP_ID"),
        ("CONNECTOR_KAFKA_GROUP_ID", "x", "did you mean CONNECTOR_KAFKA__GROUP_ID, with two underscores"),
        ("CONNECTOR_KAFKA__SECURITY_USERNAME", "x", "did you mean CONNECTOR_KAFKA__SECURITY__USERNAME, with two"),
        ("CONNECTOR_KAFKA", "{}", "like CONNECTOR_KAFKA__GROUP_ID"),
        ("CONNECTOR_WEB_PORT", "8080", "did you mean CONNECTOR_WEB__PORT, with two underscores"),
        ("CONNECTOR_", "", "like CONNECTOR_KAFKA__GROUP_ID"),
        ("CONNECTOR_KAFKA__SECURITY__HEADER", "x", "like CONNECTOR_KAFKA__GROUP_ID"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused_by_name(name: str, value: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {name: value})
    assert str(caught.value).startswith(f"{name}: is no setting's variable; ")
    assert hint in str(caught.value)


def test_what_kubernetes_says_about_services_of_that_name_is_no_setting() -> None:
    links = {
        "CONNECTOR_SERVICE_HOST": "10.0.0.1",
        "CONNECTOR_SERVICE_PORT": "6066",
        "CONNECTOR_SERVICE_PORT_HTTP": "6066",
        "CONNECTOR_PORT": "tcp://10.0.0.1:6066",
        "CONNECTOR_PORT_6066_TCP": "tcp://10.0.0.1:6066",
        "CONNECTOR_PORT_6066_TCP_ADDR": "10.0.0.1",
        "CONNECTOR_WEB_PORT": "tcp://10.0.0.1:6066",
    }
    assert load(None, NEEDED | links) == BARE


def test_a_reference_is_the_environments_value(file: Path) -> None:
    file.write_text(
        'kafka: {group_instance_id: "${HOSTNAME}", client_id: "a-${A}-$${A}-$A"}\nbatch: {max_events: "${N}"}'
    )
    settings = load(file, NEEDED | {"HOSTNAME": "pod-0", "A": "${N}", "N": "7"})
    assert settings.kafka.group_instance_id == "pod-0"
    assert settings.kafka.client_id == "a-${N}-${A}-$A"
    assert settings.batch.max_events == 7


def test_the_variable_that_names_the_file_is_no_setting_and_no_mistake(file: Path) -> None:
    file.write_text("kafka: {group_id: file}")
    assert load(file, NEEDED | {"CONNECTOR_CONFIG_FILE": str(file)}).kafka.group_id == "file"


@pytest.mark.parametrize("text", ["kafka: {client_id: '$${A}'}", "# ${\nkafka: {client_id: '$${A}'}"])
def test_an_escaped_reference_is_text_in_the_environment_of_a_process_too(
    file: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A", "a")
    file.write_text(text)
    assert load(file, os.environ | NEEDED).kafka.client_id == "${A}"


def test_a_reference_in_a_list_is_the_environments_value_too(file: Path) -> None:
    file.write_text("request:\n  options: {columns: ['${A}', ['$${A}']],\n    name: b}\n")
    read = document.read(file, {"A": "a"})
    assert read.tree == {"request": {"options": {"columns": ["a", ["${A}"]], "name": "b"}}}
    assert read.places[("request", "options", "columns")] == (2, ("A",))
    assert read.places[("request", "options")] == (2, ("A",))
    assert read.places[("request", "options", "name")] == (3, ())


def test_a_reference_to_an_unset_variable_names_the_key_and_the_variable(file: Path) -> None:
    message = refused_file(file, "kafka: {security: {password: '${SECRET}'}}")
    assert message.startswith("kafka.security.password: the environment has no SECRET; ")


@pytest.mark.parametrize("text", ["${}", "${1}", "a ${B", "${A-b}"])
def test_a_broken_reference_is_refused(file: Path, text: str) -> None:
    assert refused_file(file, f"kafka: {{client_id: '{text}'}}", A="a", B="b").startswith(
        "kafka.client_id: a reference"
    )


@pytest.mark.parametrize(
    ("text", "line"), [("kafka: {\n", 2), ("kafka:\n\tgroup_id: a\n", 2), ("a: b: c\n", 1), ("a: 1\n\na: 2\n", 3)]
)
def test_what_is_no_yaml_is_one_sentence_with_the_line(file: Path, text: str, line: int) -> None:
    message = refused_file(file, text)
    assert message.startswith(f"{file}, line {line}: the settings are no YAML: ")
    assert "\n" not in message


@pytest.mark.parametrize("text", ["- a\n", "text\n", "3\n"])
def test_a_file_that_is_no_tree_is_refused(file: Path, text: str) -> None:
    assert refused_file(file, text).startswith(f"{file}: the settings must be keys and values")


@pytest.mark.parametrize("text", ["a: \x00", "a: !!python/name:os.system", "a: *b", "!x"])
def test_strange_yaml_is_a_sentence_too(file: Path, text: str) -> None:
    message = refused_file(file, text)
    assert message.startswith(str(file))
    assert "\n" not in message


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match="the settings cannot be read: ") as caught:
            load(path, {})
        assert str(caught.value).startswith(f"{path}: ")
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe4")
    with pytest.raises(SettingsError, match="are not text in UTF-8"):
        load(tmp_path / "latin.yaml", {})


# Advice


def test_the_defaults_need_no_advice() -> None:
    assert list(sentences(Settings())) == []


@pytest.mark.parametrize(
    ("given_tree", "key"),
    [
        ({"kafka": {"group_instance_id": "connector-7d9c5b8f6d-x2k9p"}}, "kafka.group_instance_id"),
        ({"kafka": {"session_timeout": "31m"}}, "kafka.session_timeout"),
        ({"kafka": {"request_timeout": "40s"}}, "kafka.request_timeout"),
        ({"kafka": {"metadata_max_age": "5m"}}, "kafka.metadata_max_age"),
        ({"kafka": {"metadata_max_age": "500ms"}}, "kafka.metadata_max_age"),
        ({"kafka": {"commit_interval": "1m"}}, "kafka.commit_interval"),
        ({"kafka": {"ordering": "partition"}}, "kafka.ordering"),
        ({"kafka": {"fetch_max_bytes": "512MiB"}}, "kafka.fetch_max_bytes"),
        ({"kafka": {"security": {"protocol": "SSL", "check_hostname": False}}}, "kafka.security.check_hostname"),
        (
            {"kafka": {"security": {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN"} | USER}},
            "kafka.security.protocol",
        ),
        ({"batch": {"max_events": 1}}, "batch.max_events"),
        ({"batch": {"max_events": 64}, "request": {"format": "raw"}}, "batch.max_events"),
        ({"buffer": {"max_events": 4095}}, "buffer.max_events"),
        ({"retry": {"max_age": "80s"}}, "retry.max_age"),
        ({"dead_letter": {"max_ratio": 1}}, "dead_letter.max_ratio"),
        ({"shutdown": {"drain": "29s"}}, "shutdown.drain"),
        ({"endpoint": {"url": "http://emulator.example.com:8080"}}, "endpoint.url"),
        ({"endpoint": {"url": "http://10.0.0.1"}}, "endpoint.url"),
        ({"log": {"payloads": True}}, "log.payloads"),
    ],
)
def test_what_costs_more_than_it_should_is_said_in_one_sentence(given_tree: dict[str, Any], key: str) -> None:
    advice = list(sentences(parse(given_tree)))
    assert [sentence.split(": ")[0] for sentence in advice] == [key]


def test_the_name_of_a_pod_of_a_stateful_set_needs_no_advice() -> None:
    assert list(sentences(parse({"kafka": {"group_instance_id": "connector-0"}}))) == []


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1", "http://127.1.2.3:80", "http://[::1]:8080", "https://10.0.0.1"]
)
def test_an_endpoint_on_this_machine_or_behind_tls_needs_no_advice(url: str) -> None:
    assert list(sentences(parse({"endpoint": {"url": url}}))) == []


def test_raw_events_need_no_advice_about_a_default() -> None:
    assert list(sentences(parse({"request": {"format": "raw"}}))) == []


# The reference and the examples


def test_every_setting_has_a_sentence() -> None:
    for path, field in fields().items():
        sentence = field.description or ""
        assert sentence.endswith("."), path
        assert sentence[0].isupper(), path


def test_the_reference_file_is_what_the_code_says() -> None:
    written = (CONFIG / "connector.yaml").read_text(encoding="utf-8")
    assert written == reference(), "run connector config > config/connector.yaml"


def test_the_reference_file_lists_every_setting_with_its_default() -> None:
    text = (CONFIG / "connector.yaml").read_text(encoding="utf-8")
    listed = yaml.safe_load(text)
    for path in LEAVES:
        place = listed
        for name in path[:-1]:
            place = place[name]
        assert (path[-1] in place) is (path not in REQUIRED)
    assert load(CONFIG / "connector.yaml", NEEDED) == BARE
    assert list(sentences(BARE)) == []


EXAMPLE_ENVIRONMENT = {
    "HOSTNAME": "connector-0",
    "AWS_REGION": "eu-west-1",
    "KAFKA_BOOTSTRAP_SERVERS": "b-1.example.com:9098,b-2.example.com:9098",
    "KAFKA_PASSWORD": "secret",
}


@pytest.mark.parametrize("example", sorted((CONFIG / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_example_works_as_it_stands(example: Path) -> None:
    assert list(sentences(load(example, EXAMPLE_ENVIRONMENT))) == []


def test_there_are_examples() -> None:
    assert len(list((CONFIG / "examples").glob("*.yaml"))) == 3
