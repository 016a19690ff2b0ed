"""`connector local`, as a person in a shell sees it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner

from connector.commands.local import local
from connector.settings import parse
from tests.integration.clients import started
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.integration


@contextmanager
def _running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "connector.commands.local", *arguments]
    environment = os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        try:
            yield child
        finally:
            child.kill()


def _read_until(child: subprocess.Popen[str], text: str) -> str:
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if text in line:
            return said
    assert child.stderr is not None
    raise AssertionError(said + child.stderr.read())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_kafka_serves_its_topics_and_a_signal_ends_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    port = str(free_port())
    with _running(tmp_path, "kafka", "--port", port, "--topics", "events:3", "--topics", "results") as child:
        said = _read_until(child, "Ctrl-C")
        assert f"Apache Kafka serves at 127.0.0.1:{port}." in said
        assert "no topics" not in said
        async with started(AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{port}")) as admin:
            topics = await admin.describe_topics(["events", "results"])
        assert {topic["topic"]: len(topic["partitions"]) for topic in topics} == {"events": 3, "results": 1}
        child.send_signal(number)
        assert child.wait(20) == 0
    assert not list(tmp_path.iterdir())


def test_kafka_without_topics_says_how_to_have_those_that_the_connector_needs(tmp_path: Path) -> None:
    with _running(tmp_path, "kafka", "--port", str(free_port())) as child:
        said = _read_until(child, "Ctrl-C")
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
    needed = parse({}).kafka
    for topic in (needed.input_topic, needed.output_topic, needed.dead_letter_topic):
        assert re.search(rf"--topics {re.escape(topic)}[: \n]", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_endpoint_serves_with_its_faults_and_a_signal_ends_it_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    faults = tmp_path / "faults.yaml"
    faults.write_text("- {kind: throttle, rate: 0.5}\n- {kind: hang, payload: poison, calls: [1, 2]}\n")
    arguments = ("--port", "0", "--name", "shop", "--model", "echo", "--faults", str(faults), "--latency", "20ms")
    with _running(tmp_path, "endpoint", *arguments) as child:
        said = _read_until(child, "Ctrl-C")
        url = said.partition("CONNECTOR_ENDPOINT__URL=")[2].split()[0]
        assert f"The endpoint shop serves at {url}." in said
        assert said.index("export AWS_ACCESS_KEY_ID=") < said.index("\n  connector run\n")
        with urllib.request.urlopen(f"{url}/_/faults", timeout=5) as response:
            kinds = [fault["kind"] for fault in orjson.loads(response.read())]
        assert kinds == ["throttle", "hang"]
        child.send_signal(number)
        assert child.wait(10) == 0


@pytest.mark.parametrize("command", ["kafka", "endpoint"])
def test_a_taken_port_is_one_sentence_and_code_1(command: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        model = ["--model", "echo"] if command == "endpoint" else []
        result = CliRunner().invoke(local, [command, "--port", port, *model])
    assert result.exit_code == 1
    assert re.fullmatch(rf"Port {port} on 127\.0\.0\.1 [a-zA-Z ()]+: stop what listens there, .*\n", result.stderr)
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize("arguments", [["kafka", "--data"], ["endpoint", "--model", "echo", "--captures"]])
def test_a_folder_that_cannot_be_written_is_one_sentence_and_code_1(tmp_path: Path, arguments: list[str]) -> None:
    # Permissions would not stop root.
    folder = tmp_path / "file" / "folder"
    folder.parent.touch()
    result = CliRunner().invoke(local, [*arguments, str(folder), "--port", str(free_port())])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{folder} cannot be written (Not a directory): name another folder ")
    assert result.stderr.count("\n") == 1
    assert not result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["kafka", "--topics", "events:none"], "is not a topic's name"),
        (["kafka", "--brokers", "0"], "--brokers"),
        (
            ["endpoint", "--model", "dogs"],
            "The model is digits, echo, constant or the address of a container, not dogs.",
        ),
        (["endpoint", "--model", "ftp://dogs"], "A container's address begins with http"),
        (["endpoint", "--latency", "slow"], "is not a duration such as 20ms"),
        (["endpoint", "--faults", "absent.yaml"], "does not exist"),
    ],
)
def test_a_mistake_is_a_sentence_and_code_2(arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(local, arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("text", "sentence"), [("[", "is not YAML"), ("a: 1", "is not a list of faults"), ("- {kind: x}", "no fault x")]
)
def test_faults_that_cannot_be_read_are_a_sentence_and_code_2(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "faults.yaml").write_text(text)
    arguments = ["endpoint", "--model", "echo", "--faults", str(tmp_path / "faults.yaml")]
    result = CliRunner().invoke(local, arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


@pytest.mark.parametrize("command", [[], ["kafka"], ["endpoint"]])
def test_help_teaches_by_example(command: list[str]) -> None:
    result = CliRunner().invoke(local, [*command, "--help"])
    assert result.exit_code == 0
    assert f"connector local {' '.join(command)}" in result.stdout
