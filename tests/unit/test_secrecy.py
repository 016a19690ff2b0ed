"""Secrecy: no credentials in logs, pages and dead letters' headers, and no payloads unless `log.payloads` says so."""

from __future__ import annotations

import io
import json
import logging
import sys
from base64 import b64encode
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import structlog

from connector.core.answers.outgoing import Outgoing
from connector.core.calls import outcome as outcomes
from connector.core.calls.call import Call, Failure, Reply, Response, Transport
from connector.core.event import Event, Route
from connector.core.reason import Reason
from connector.core.redaction import redacted
from connector.errors import SettingsError
from connector.settings import effective
from connector.settings.load import load, parse
from connector.telemetry.log import configure
from connector.telemetry.log_events import LogEvent
from connector.worker import pages
from connector.worker import pipeline as pipeline_module
from connector.worker.health import Health
from tests.contracts.invokers import CALL, ask, sdk_invoker, with_credentials_of_our_own
from tests.scripted_server import error, reply
from tests.unit.factories import make_event, make_ledger
from tests.unit.needed import NEEDED, needed_but
from tests.unit.pipeline_bench import Bench, Play
from tests.unit.test_log import _logging_as_before  # noqa: F401 - a fixture
from tests.unit.virtual_time import in_virtual_time, virtual_loop

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scripted_server import Request

PAYLOAD = "m4rked-p4yload"
KEY_ID = "AKIAM4RKEDKEYID00000"
SECRET_KEY = "m4rked/secret+key"
SESSION_TOKEN = "m4rked+session/token=="
PASSWORD = "m4rked-p4ssword"
SIGNATURE = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
CREDENTIALS = (KEY_ID, SECRET_KEY, SESSION_TOKEN, PASSWORD, SIGNATURE)

CANONICAL = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and"
    " signing method. Consult the service documentation for details.\n\nThe Canonical String for this request should have"
    " been\n'POST\n/endpoints/fraud/invocations\n\nhost:x\nx-amz-date:20260101T000000Z\n"
    f"x-amz-security-token:{SESSION_TOKEN}"
    "\n\nhost;x-amz-date;x-amz-security-token\nUNSIGNED-PAYLOAD'"
)
AUTHORIZATION = (
    f"AWS4-HMAC-SHA256 Credential={KEY_ID}/20260101/eu-west-1/sagemaker/aws4_request, SignedHeaders=host;x-amz-date,"
    f" Signature={SIGNATURE}"
)
TELLTALES: dict[str, Failure] = {
    "the canonical request": Failure("InvalidSignatureException", 403, CANONICAL),
    "an incomplete signature": Failure(
        "IncompleteSignatureException",
        403,
        f"not a valid key=value pair (missing equal-sign) in Authorization header: '{AUTHORIZATION}'.",
    ),
    "an echo of the headers": Failure(
        None, 502, f"Bad gateway\nAuthorization: {AUTHORIZATION}\nX-Amz-Security-Token: {SESSION_TOKEN}\nHost: x"
    ),
    "an echo as JSON": Failure(
        None, 400, json.dumps({"Authorization": AUTHORIZATION, "X-Amz-Security-Token": SESSION_TOKEN})
    ),
    "a presigned address": Failure(
        None,
        403,
        f"https://x/?X-Amz-Credential={KEY_ID}%2F20260101&X-Amz-Security-Token={SESSION_TOKEN}&X-Amz-Signature={SIGNATURE}",
    ),
    "the id of a key": Failure("UnrecognizedClientException", 403, f"The access key {KEY_ID} is not known."),
    "an address with a password": Failure(
        transport=Transport.CONNECT, message=f'Could not connect to the endpoint URL: "https://me:{PASSWORD}@x/"'
    ),
    "a proxy with a password": Failure(
        transport=Transport.CONNECT, message=f"Failed to connect to proxy URL: http://me:{PASSWORD}@proxy:3128"
    ),
    "a container that knows": Failure(
        "ModelError", 424, original_status=400, original_message=f"Authorization: {AUTHORIZATION}"
    ),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_credentials_of_our_own(monkeypatch, tmp_path)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """All that is logged at DEBUG."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure("DEBUG", "json")
    return stream


@contextmanager
def in_the_loops_time() -> Iterator[None]:
    with mock.patch.object(pipeline_module, "time", virtual_loop().clock):
        yield


def shown_by(bench: Bench) -> str:
    """All pages, as they are rendered while the pipeline is as it is."""
    connector: Any = SimpleNamespace(
        pipeline=bench.pipeline,
        metrics=bench.metrics,
        problems=bench.problems,
        settings=bench.settings,
    )
    views: dict[str, Any] = {}
    app: Any = SimpleNamespace(page=lambda path: lambda view: views.setdefault(path, view))
    pages.add(app, Health(connector), bench.metrics.registry)
    web = SimpleNamespace(text=lambda text, status=200: text, bytes=lambda data, content_type: data.decode())
    rendered = []
    for view in views.values():
        page = view(web, None)
        with pytest.raises(StopIteration) as ended:
            page.send(None)
        rendered.append(ended.value.value)
    assert len(rendered) == 4
    return "\n".join(rendered)


def told_by(letters: list[Outgoing], *, but: str = "") -> str:
    """The headers that dead letters add to their events, one of them excepted."""
    return str(
        [header for letter in letters for header in letter.headers[len(letter.event.headers) :] if header[0] != but]
    )


# -- payloads --------------------------------------------------------------------------------------------------------

ECHO = json.dumps({"error": f"cannot read {PAYLOAD}"})
UNREADABLE = UnicodeDecodeError("utf-8", PAYLOAD.encode(), 0, 1, "invalid start byte")
ENDS: dict[str, Reply | Exception] = {
    "rejected": Failure(
        "ModelError", 424, f'Received client error (400) from primary with message "{ECHO}"', None, 400, ECHO
    ),
    "broken": Failure("ModelError", 424, f'Received server error (500) with message "{ECHO}"', None, 500, ECHO),
    "no status": Failure("ModelError", 424, ECHO, None, None, ECHO),
    "unknown path": Failure("ModelError", 424, ECHO, None, 404, ECHO),
    "without a code": Failure(None, 424, ECHO),
    "stream": Failure("ModelStreamError", 400, ECHO),
    "throttled": Failure(status=400),
    "timed out": Failure(transport=Transport.READ_TIMEOUT),
    "not JSON": Response(f'{{"{PAYLOAD}": '.encode(), "application/json"),
    "no array": Response(json.dumps({"echo": PAYLOAD}).encode(), "application/json"),
    "too many": Response(json.dumps([PAYLOAD, PAYLOAD]).encode(), "application/json"),
    "lines": Response(f"{PAYLOAD}\n{PAYLOAD}\n{PAYLOAD}".encode(), "text/csv"),
    "quotes": Response(f'"{PAYLOAD}'.encode(), "text/csv"),
    "a fault of ours": ValueError(f"could not convert string to float: {PAYLOAD!r}"),
    "a fault of ours with bytes": UNREADABLE,
}


@pytest.mark.parametrize("fmt", ["raw", "csv", "json_lines", "json_array"])
@pytest.mark.parametrize("end", ENDS)
def test_a_payload_is_shown_nowhere_however_its_call_ends(end: str, fmt: str, written: io.StringIO) -> None:
    @in_virtual_time
    async def run() -> None:
        with in_the_loops_time():
            bench = Bench(
                lambda call: Play(ENDS[end], 0.1),
                legible=False,
                request={"format": fmt},
                retry={"initial": "20s", "max": "20s", "max_age": "1m"},
                dead_letter={"timeouts": True, "window": 3},
            )
            bench.deliver(*[b'["%s",%d]' % (PAYLOAD.encode(), number) for number in range(5)])
            for _ in range(4):
                await bench.wait(40)
                assert PAYLOAD not in shown_by(bench)
            assert bench.dead_letters.appended or bench.results.appended or bench.problem()
            assert PAYLOAD not in told_by(bench.dead_letters.appended, but="inference-error-message")
            if not isinstance(ENDS[end], Failure):
                assert PAYLOAD not in told_by(bench.dead_letters.appended), "there the container alone may be quoted"

    run()
    assert PAYLOAD not in written.getvalue()


REFUSED: dict[str, tuple[dict[str, dict[str, Any]], bytes, list[tuple[str, bytes]]]] = {
    "two rows": ({"request": {"format": "csv"}}, f"{PAYLOAD}\n{PAYLOAD}".encode(), []),
    "no UTF-8": ({"request": {"format": "csv"}}, f"{PAYLOAD}\xff".encode("latin-1"), []),
    "no JSON": ({"request": {"format": "json_array"}}, f'{{"{PAYLOAD}"'.encode(), []),
    "no JSON in lines": ({"request": {"format": "json_lines"}}, PAYLOAD.encode(), []),
    "no field": ({"request": {"payload": "/features"}}, f'{{"{PAYLOAD}": 1}}'.encode(), []),
    "no object": ({"request": {"payload": "/features"}}, f"{PAYLOAD} {PAYLOAD}".encode(), []),
    "an odd field": ({"request": {"payload": "/a"}}, f'{{"a": "\\ud800{PAYLOAD}"}}'.encode(), []),
    "too large": ({"batch": {"max_bytes": "20B"}}, PAYLOAD.encode() * 10, []),
    "a header": ({"endpoint": {"target_model": {"header": "model"}}}, b"1", [("model", f" {PAYLOAD}".encode())]),
    "a stray header": (
        {"endpoint": {"target_model": {"header": "model"}}},
        b"1",
        [("model", f"{PAYLOAD}\xff".encode())],
    ),
}


@pytest.mark.parametrize("refused", REFUSED)
def test_a_payload_that_is_refused_without_a_call_is_not_repeated(refused: str, written: io.StringIO) -> None:
    sections, value, headers = REFUSED[refused]

    @in_virtual_time
    async def run() -> None:
        with in_the_loops_time():
            bench = Bench(lambda call: Play(Response(b"")), legible=False, dead_letter={"max_ratio": 1.0}, **sections)  # type: ignore[arg-type]
            bench.deliver(value, headers=headers)
            await bench.idle()
            assert len(bench.dead_letters.appended) == 1
            assert PAYLOAD not in told_by(bench.dead_letters.appended)
            assert PAYLOAD not in shown_by(bench)

    run()
    assert PAYLOAD not in written.getvalue()
    assert "dead_lettered" in written.getvalue()


@pytest.mark.parametrize("asked", [True, False])
def test_the_log_shows_payloads_and_the_texts_of_our_own_errors_only_when_it_is_asked_to(
    asked: bool, written: io.StringIO
) -> None:
    @in_virtual_time
    async def run() -> None:
        with in_the_loops_time():
            coming: list[Reply | Exception] = [UNREADABLE, ENDS["rejected"]]
            bench = Bench(lambda call: Play(coming.pop(0)), log={"payloads": asked}, dead_letter={"max_ratio": 1.0})
            bench.deliver(PAYLOAD.encode())
            await bench.idle()

    run()
    broke, lettered = map(json.loads, written.getvalue().splitlines())
    assert broke["exception"].startswith("Traceback")
    assert "UnicodeDecodeError" in broke["exception"]
    assert ("invalid start byte" in broke["exception"]) is asked
    assert ("payload" in lettered) is asked


def test_whatever_prints_an_event_a_call_or_what_leaves_shows_no_payload() -> None:
    event = make_event(make_ledger(), 7, b"k", payload=PAYLOAD.encode())
    event.headers = [("trace", PAYLOAD.encode())]
    data = PAYLOAD.encode()
    things = (
        event,
        Call(Route("fraud"), "id", data, "text/csv", "text/csv"),
        Response(data, "text/csv"),
        Outgoing(event, b"k", data, [("trace", data)], 0),
        Outgoing(event, b"k", data, [("trace", data)], 0, Reason.EMPTY),
    )
    for thing in things:
        assert PAYLOAD not in repr(thing)
        assert PAYLOAD not in f"{thing}"
    assert isinstance(event, Event)


# -- credentials -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("telltale", TELLTALES)
def test_credentials_that_the_service_or_a_proxy_repeats_are_shown_nowhere(telltale: str, written: io.StringIO) -> None:
    @in_virtual_time
    async def run() -> None:
        with in_the_loops_time():
            bench = Bench(
                lambda call: Play(TELLTALES[telltale]), retry={"max_age": "1m"}, dead_letter={"max_ratio": 1.0}
            )
            bench.deliver(b"1", b"2")
            for _ in range(4):
                await bench.wait(50)
                shown = shown_by(bench) + told_by(bench.dead_letters.appended)
                assert not [secret for secret in CREDENTIALS if secret in shown]

    run()
    assert not [secret for secret in CREDENTIALS if secret in written.getvalue()]
    assert written.getvalue(), "something was said"


@pytest.mark.parametrize(
    "sentence",
    [
        "Endpoint fraud of account 123456789012 not found.",
        "The security token included in the request is expired",
        "User: arn:aws:sts::123456789012:assumed-role/connector/pod is not authorized to perform: sagemaker:InvokeEndpoint",
        "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z (20260101T001000Z - 5 min.)",
        'Could not connect to the endpoint URL: "https://runtime.sagemaker.eu-west-1.amazonaws.com/endpoints/fraud"',
    ],
)
def test_what_holds_no_credentials_is_left_as_it_is(sentence: str) -> None:
    assert redacted(sentence) == sentence


async def test_the_sdk_logs_neither_the_call_nor_the_credentials_at_debug(
    monkeypatch: pytest.MonkeyPatch, written: io.StringIO
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)
    call = Call(CALL.route, "id", PAYLOAD.encode(), "text/csv", "text/csv")

    async def echo(request: Request, writer: asyncio.StreamWriter) -> None:
        assert request.headers["x-amz-security-token"] == SESSION_TOKEN
        assert PAYLOAD.encode() in request.body
        text = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        await error(403, "InvalidSignatureException", message=text)(request, writer)

    for answer in (
        echo,
        reply(200, PAYLOAD.encode()),
        error(424, "ModelError", Message=PAYLOAD, OriginalStatusCode=400),
    ):
        failure, _ = await ask(sdk_invoker, answer, call)
        if isinstance(failure, Failure):
            outcome = outcomes.decide(
                failure, rows=1, attempts={}, succeeded_meanwhile=True, from_headers=False, dead_letter_timeouts=False
            )
            structlog.get_logger("connector.pipeline").warning(LogEvent.CALL_FAILED, problem=outcome.message)
    assert "InvalidSignatureException" in written.getvalue()
    assert not [secret for secret in (PAYLOAD, *CREDENTIALS) if secret in written.getvalue()]


@pytest.mark.usefixtures("written")
def test_no_library_logs_at_debug() -> None:
    loud = [
        name
        for name in [*logging.root.manager.loggerDict, "a.library.that.nobody.named"]
        if not name.startswith("connector") and logging.getLogger(name).isEnabledFor(logging.DEBUG)
    ]
    assert not loud
    assert logging.getLogger("connector.pipeline").isEnabledFor(logging.DEBUG)


# -- settings --------------------------------------------------------------------------------------------------------

SASL = {"protocol": "SASL_SSL", "mechanism": "PLAIN", "username": "me", "password": "${KAFKA_PASSWORD}"}


def test_the_line_at_the_start_shows_no_secret(tmp_path: Path, written: io.StringIO) -> None:
    file = tmp_path / "connector.yaml"
    tree = {
        "kafka": {"security": SASL},
        "endpoint": {"url": "https://me:${URL_PASSWORD}@runtime/", "custom_attributes": "token=${MODEL_TOKEN}"},
    }
    file.write_text(json.dumps(tree))
    secrets = {"KAFKA_PASSWORD": PASSWORD, "URL_PASSWORD": SECRET_KEY.replace("/", ""), "MODEL_TOKEN": SIGNATURE}
    settings = load(file, NEEDED | secrets)
    assert settings.endpoint.custom_attributes == f"token={SIGNATURE}"
    structlog.get_logger("connector").info(LogEvent.STARTING, settings=effective(settings))
    assert "SASL_SSL" in written.getvalue()
    assert not [secret for secret in secrets.values() if secret in written.getvalue()]


@pytest.mark.parametrize(
    "written_as",
    [
        "*{}",
        "!{}",
        "!{}!x",
        "!!{}",
        "&{}",
        "%{}",
        "@{}",
        '"{}',
        "'{}",
        "{{{}",
        "[{}]",
        "{}: x",
        "{{a: {}}}",
        "|{}",
        ">{}",
        "`{}",
        "- {}",
        "? {}",
        '"{}\\q"',
    ],
)
def test_a_password_that_is_no_yaml_is_not_repeated(written_as: str, tmp_path: Path) -> None:
    file = tmp_path / "connector.yaml"
    value = written_as.format(PASSWORD)
    file.write_text(f"kafka:\n  security:\n    username: me\n    password: {value}\n    mechanism: PLAIN\n")
    with pytest.raises(SettingsError) as refused:
        load(file, NEEDED)
    assert PASSWORD not in str(refused.value)


@pytest.mark.parametrize(
    "key", ["web.port", "log.level", "kafka.bootstrap_servers", "kafka.input_topic", "batch.linger"]
)
@pytest.mark.parametrize(
    "secret", ["m4rked: p4ssword", "m4rked: p4ss, m4rked: word ", 'it\'s \\ "m4rked"', "x " * 1000]
)
def test_a_secret_that_was_referred_to_by_mistake_is_named_and_not_shown(key: str, secret: str, tmp_path: Path) -> None:
    section, _, name = key.partition(".")
    file = tmp_path / "connector.yaml"
    file.write_text(f"{section}:\n  {name}: ${{THE_SECRET}}\n")
    with pytest.raises(SettingsError) as refused:
        load(
            file,
            needed_but((section, name)) | {"THE_SECRET": secret},
        )
    assert str(refused.value).startswith(f"{key}: ")
    assert secret not in str(refused.value)
    assert "m4rked" not in str(refused.value).lower()
    assert "x x x" not in str(refused.value)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_the_password_reaches_the_client_and_no_text_of_the_settings(mechanism: str) -> None:
    settings = parse({"kafka": {"security": SASL | {"mechanism": mechanism, "password": PASSWORD}}})
    password = settings.kafka.security.password
    assert password is not None
    assert password.get_secret_value() == PASSWORD
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(effective(settings))):
        assert PASSWORD not in text
        assert b64encode(PASSWORD.encode()).decode() not in text
