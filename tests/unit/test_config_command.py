"""`connector config`: the reference, the examples, and what is in force with where each value comes from."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from connector.commands import cli
from connector.commands.config import _written
from connector.errors import StartupError
from connector.settings import examples, load, parse
from connector.settings.effective import values
from connector.settings.keys import fields, required, section_of
from connector.settings.schema import schema
from tests.unit.needed import NEEDED
from tests.unit.test_settings import EXAMPLE_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIG = Path(__file__).parents[2] / "config"
PASSWORD = "m4rked-p4ssword"
FILE = """\
kafka:
  group_id: from-the-file
  client_id: ${POD}-${ZONE}
  security:
    protocol: SASL_SSL
    mechanism: PLAIN
    username: me
    password: ${KAFKA_PASSWORD}
endpoint:
  url: https://me:m4rked-p4ssword@runtime/
  custom_attributes: token=m4rked-p4ssword
  target_model: {header: model}
retry: {max_age: null}
"""
ENVIRONMENT = {
    "POD": "a",
    "ZONE": "b",
    "KAFKA_PASSWORD": PASSWORD,
    "CONNECTOR_BATCH__LINGER": "0",
    "CONNECTOR_ENDPOINT__ACCEPT__HEADER": "accept",
    "CONNECTOR_KAFKA__GROUP_ID": "from-the-environment",
}


class Printed(NamedTuple):
    """What a command ended with and wrote."""

    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Printed]:
    """Run `connector` with these arguments in this environment."""

    def call(*arguments: str, **environ: str) -> Printed:
        for name in [*os.environ]:
            if name.startswith("CONNECTOR_"):
                monkeypatch.delenv(name)
        for name, value in (NEEDED | environ).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["connector", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        written = capsys.readouterr()
        return Printed(int(ended.value.code or 0), written.out, written.err)

    return call


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a settings file, as seen from its own folder."""
    monkeypatch.chdir(tmp_path)
    Path("connector.yaml").write_text(FILE)
    return "connector.yaml"


def origins(printed: Printed) -> dict[str, str]:
    """Where each key comes from, by the lines of a pipe."""
    found = [re.fullmatch(r"([a-z0-9_.]+): .*?  # (.+)", line) for line in printed.out.splitlines()]
    shown = {line[1]: line[2] for line in found if line is not None}
    # `run` gives them.
    assert (shown.pop("kafka.bootstrap_servers"), shown.pop("endpoint.name")) == tuple(NEEDED)
    return shown


# The reference, the schema and the examples


def test_it_prints_the_reference_file(run: Callable[..., Printed]) -> None:
    assert run("config") == Printed(0, (CONFIG / "connector.yaml").read_text(encoding="utf-8"), "")


def test_it_prints_the_schema(run: Callable[..., Printed]) -> None:
    code, out, err = run("config", "--schema")
    assert (code, json.loads(out), err) == (0, schema(), "")


def test_it_lists_the_examples_with_a_sentence_each(run: Callable[..., Printed]) -> None:
    lines = run("config", "--example").out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (CONFIG / "examples").iterdir())
    for line in lines:
        assert re.fullmatch(r"\S+ +[A-Z][^.]*\.", line), line


@pytest.mark.parametrize("path", sorted((CONFIG / "examples").iterdir()), ids=lambda path: path.stem)
def test_it_prints_an_example_that_works_as_it_stands(run: Callable[..., Printed], path: Path, tmp_path: Path) -> None:
    printed = run("config", "--example", path.stem)
    assert printed == Printed(0, path.read_text(encoding="utf-8"), "")
    (tmp_path / "connector.yaml").write_text(printed.out)
    checked = run("config", "--effective", "--config", str(tmp_path / "connector.yaml"), **EXAMPLE_ENVIRONMENT)
    assert (checked.code, checked.err) == (0, "")


def test_an_unknown_example_is_answered_with_those_that_there_are(run: Callable[..., Printed]) -> None:
    code, out, err = run("config", "--example", "nope")
    assert (code, out) == (2, "")
    assert "nope is none of batch-csv, " in err


def test_missing_examples_are_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(examples, "_PACKAGE", tmp_path / "connector")
    with pytest.raises(StartupError, match=r"no config/examples in .* install anew"):
        examples.names()


@pytest.mark.parametrize(
    "arguments",
    [("--effective", "--schema"), ("--schema", "--example"), ("--config", "x"), ("--schema", "--config", "x")],
    ids=" ".join,
)
def test_options_that_have_no_effect_together_are_refused(
    run: Callable[..., Printed], arguments: tuple[str, ...]
) -> None:
    code, out, err = run("config", *arguments)
    assert (code, out) == (2, "")
    assert "exclude each other" in err or "has no effect without --effective" in err


def test_the_variable_that_names_the_file_leaves_the_reference_alone(run: Callable[..., Printed]) -> None:
    assert run("config", CONNECTOR_CONFIG_FILE="/nowhere") == run("config")


# What is in force


def test_each_value_is_shown_with_where_it_comes_from(run: Callable[..., Printed], file: str) -> None:
    printed = run("config", "--effective", "--config", file, **ENVIRONMENT)
    shown = origins(printed)
    assert printed.code == 0
    assert shown.keys() == {
        ".".join(path) for path, field in fields().items() if section_of(field) is None and not required(field)
    }
    assert {key: where for key, where in shown.items() if where != "default"} == {
        "kafka.group_id": "CONNECTOR_KAFKA__GROUP_ID",
        "kafka.client_id": "connector.yaml:3 ${POD} ${ZONE}",
        "kafka.security.protocol": "connector.yaml:5",
        "kafka.security.mechanism": "connector.yaml:6",
        "kafka.security.username": "connector.yaml:7",
        "kafka.security.password": "connector.yaml:8 ${KAFKA_PASSWORD}",
        "endpoint.url": "connector.yaml:10",
        "endpoint.accept": "CONNECTOR_ENDPOINT__ACCEPT__HEADER",
        "endpoint.custom_attributes": "connector.yaml:11",
        "endpoint.target_model": "connector.yaml:12",
        "retry.max_age": "connector.yaml:13",
        "batch.linger": "CONNECTOR_BATCH__LINGER",
    }


def test_the_lines_of_a_pipe_are_yaml_of_the_effective_settings(run: Callable[..., Printed], file: str) -> None:
    printed = run("config", "--effective", "--config", file, **ENVIRONMENT)
    settings = load(Path(file), NEEDED | ENVIRONMENT)
    assert yaml.safe_load(printed.out) == {".".join(path): value for path, value in values(settings).items()}
    assert len(printed.out.splitlines()) == len(values(settings))


@pytest.mark.parametrize(
    ("written_as", "environ", "code"),
    [
        ("password: ${KAFKA_PASSWORD}", {}, 0),
        (f"password: {PASSWORD}", {}, 0),
        ("password_file: password", {}, 0),
        ("password: overridden", {"CONNECTOR_KAFKA__SECURITY__PASSWORD": PASSWORD}, 0),
        ("password_file: password", {"CONNECTOR_KAFKA__SECURITY__PASSWORD": PASSWORD}, 2),
    ],
)
def test_no_secret_is_shown_whatever_it_comes_from(
    run: Callable[..., Printed], file: str, tmp_path: Path, written_as: str, environ: dict[str, str], code: int
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    Path(file).write_text(FILE.replace("password: ${KAFKA_PASSWORD}", written_as))
    printed = run("config", "--effective", "--config", file, **ENVIRONMENT, **environ)
    assert printed.code == code
    assert "m4rked" not in printed.out + printed.err


def test_a_secret_of_a_file_comes_from_the_key_that_names_the_file(
    run: Callable[..., Printed], file: str, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text(PASSWORD)
    Path(file).write_text(FILE.replace("password: ${KAFKA_PASSWORD}", "password: null\n    password_file: password"))
    printed = run("config", "--effective", "--config", file, **ENVIRONMENT)
    assert origins(printed)["kafka.security.password"] == "kafka.security.password_file"
    assert yaml.safe_load(printed.out)["kafka.security.password"] == "***"
    assert PASSWORD not in printed.out


def test_the_environment_alone_is_shown_without_a_file(run: Callable[..., Printed]) -> None:
    shown = origins(run("config", "--effective", CONNECTOR_WEB__PORT="80"))
    assert {key: where for key, where in shown.items() if where != "default"} == {"web.port": "CONNECTOR_WEB__PORT"}


def test_the_file_may_be_named_by_the_variable(run: Callable[..., Printed], file: str) -> None:
    printed = run("config", "--effective", CONNECTOR_CONFIG_FILE=file, **ENVIRONMENT)
    assert origins(printed)["endpoint.url"] == "connector.yaml:10"


def test_a_key_of_a_merged_mapping_is_found_where_it_stands(run: Callable[..., Printed], file: str) -> None:
    Path(file).write_text("batch:\n  linger: 5ms\n  <<: {linger: 6ms,\n    max_events: 7}\n")
    printed = run("config", "--effective", "--config", file)
    assert (yaml.safe_load(printed.out)["batch.linger"], origins(printed)["batch.linger"]) == (
        "5ms",
        "connector.yaml:2",
    )
    assert origins(printed)["batch.max_events"] == "connector.yaml:4"


def test_advice_is_given_on_stderr(run: Callable[..., Printed]) -> None:
    code, out, err = run("config", "--effective", CONNECTOR_LOG__PAYLOADS="true")
    assert code == 0
    assert err.startswith("Advice: log.payloads: ")
    assert "Advice" not in out


@pytest.mark.parametrize("text", ["batch: {linger: 45}\nbatches: {}\n", "kafka: [", "kafka: {client_id: '${NOBODY}'}"])
def test_wrong_settings_end_it_as_they_end_a_start(run: Callable[..., Printed], file: str, text: str) -> None:
    Path(file).write_text(text)
    checked = run("config", "--effective", "--config", file)
    assert checked.code == 2
    assert checked.err
    assert checked == run("run", "--config", file)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
)
def test_any_value_is_one_line_of_yaml_that_reads_back(group: str, header: str) -> None:
    shown = values(parse({"kafka": {"group_id": group}, "endpoint": {"accept": {"header": header}}}))
    for path in (("kafka", "group_id"), ("endpoint", "accept")):
        line = f"{'.'.join(path)}: {_written(shown[path])}  # default"
        assert line.isprintable()
        assert yaml.safe_load(line) == {".".join(path): shown[path]}


def test_a_terminal_gets_a_table_with_colours_and_no_secret(file: str) -> None:
    ours, theirs = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONNECTOR_")}
    environ |= {**NEEDED, **ENVIRONMENT, "TERM": "xterm", "COLUMNS": "100", "LINES": "50"}
    environ.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "connector", "config", "--effective", "--config", file]
    environ["PYTHONPATH"] = str(CONFIG.parent)
    with subprocess.Popen(command, stdout=theirs, env=environ) as process:
        os.close(theirs)
        out = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the terminal is closed by its last user
                break
            if not part:
                break
            out += part
    os.close(ours)
    assert process.returncode == 0
    shown = out.decode()
    assert "\x1b[" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split() for line in lines if "group_id" in line] == [
        ["group_id", "from-the-environment", "CONNECTOR_KAFKA__GROUP_ID"]
    ]
    assert "kafka.security" in [line.strip() for line in lines]
    assert "m4rked" not in shown


@pytest.mark.parametrize("arguments", [("config",), ("run",)])
def test_the_help_names_the_file_option_and_the_exit_codes(
    run: Callable[..., Printed], arguments: tuple[str, ...]
) -> None:
    code, out, _ = run(*arguments, "--help")
    assert code == 0
    assert "CONNECTOR_CONFIG_FILE" in out
    assert re.search(r"Exit codes: +0 +\w+", out)
