"""Credentials that are wrong, missing or late: no traceback, no event to blame, and a sentence that names what to mend."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connector.core.calls.call import Call, Failure, Response, Transport
from connector.core.calls.outcome import Kind, decide
from connector.core.event import Route
from connector.core.reason import Reason
from connector.endpoint import credentials
from tests.contracts.invokers import Aim, renewing_at_once, sdk_invoker, started, with_credentials_of_our_own

CALL = Call(Route("fraud", (("TargetModel", "m"),), from_headers=True), "device 7", b"1,2", "text/csv", "text/csv")
ROLE = "arn:aws:iam::123456789012:role/connector"
SECRET = "swordfishswordfish"
Spoil = Callable[[pytest.MonkeyPatch, Path, "Aws"], None]


class Aws:
    """STS, a container's credentials server and the endpoint at one address; each can be told how to answer."""

    def __init__(self) -> None:
        self.port = 0
        self.sts: tuple[int, str] | None = None
        """Status and body of STS; None hangs."""
        self.calls = 0
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                length = [line for line in head.lower().split("\r\n") if line.startswith("content-length")]
                await reader.readexactly(int(length[0].split(":")[1]) if length else 0)
                status, body, kind = 200, "1", "text/csv"
                if "/endpoints/" in head.split("\r\n")[0]:
                    self.calls += 1
                else:
                    self.asked += 1
                    if self.sts is None:
                        await reader.read()  # until whoever asked gives up
                        return
                    status, body = self.sts
                    kind = "application/json" if body.startswith("{") else "text/xml"
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def aws() -> AsyncIterator[Aws]:
    one = Aws()
    listener = await asyncio.start_server(one.handle, "127.0.0.1", 0)
    one.port = listener.sockets[0].getsockname()[1]
    async with listener:
        yield one


def sts_error(code: str) -> str:
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>No OpenIDConnect provider found"
        "</Message></Error></ErrorResponse>"
    )


def web_identity(monkeypatch: pytest.MonkeyPatch, folder: Path, token: str | None) -> None:
    file = folder / "token"
    if token is not None:
        file.write_text(token)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)


def no_credentials(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    pass


def newline(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST\n")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def newline_in_the_secret(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{SECRET}\r\n")


def quoted(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", '"AKIDFIRST"')
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def token_missing(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, None)


def token_empty(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "")


def token_of_three_bytes(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "abc")


def token_of_bytes(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "")
    (folder / "token").write_bytes(b"\xff\xfe\x00")


def token_refused(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    one.sts = (400, sts_error("InvalidIdentityToken"))


def provider_unreachable(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    one.sts = (400, sts_error("IDPCommunicationError"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def role_denied(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    one.sts = (403, sts_error("AccessDenied"))


def sts_answers_nonsense(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    one.sts = (200, "<html>welcome to the portal</html>")


def sts_throttles(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    one.sts = (400, sts_error("Throttling"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def container_token_missing(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{one.url}/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(folder / "missing"))


def container_server_hangs(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{one.url}/credentials")


def container_server_answers_nonsense(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{one.url}/credentials")
    one.sts = (200, json.dumps({"Token": "t"}))


def process_answers_nonsense(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    (folder / "config").write_text("[default]\ncredential_process = echo hello\n")


def process_fails(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    (folder / "config").write_text("[default]\ncredential_process = sh -c 'echo no such vault >&2; exit 3'\n")


def process_hangs(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    (folder / "config").write_text("[default]\ncredential_process = sleep 1\n")
    monkeypatch.setattr(credentials, "LIMIT", 0.5)


def role_is_none(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    web_identity(monkeypatch, folder, "header.payload.signature")
    monkeypatch.setenv("AWS_ROLE_ARN", "connector")


def newline_in_the_session_token(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"{SECRET}\n")


def container_server_is_a_stranger(monkeypatch: pytest.MonkeyPatch, folder: Path, one: Aws) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://credentials.example.com/")


SPOILT: dict[Spoil, str] = {
    no_credentials: "AWS_ACCESS_KEY_ID",
    newline: "AWS_ACCESS_KEY_ID begins or ends with a blank or a line end",
    newline_in_the_secret: "AWS_SECRET_ACCESS_KEY begins or ends with a blank or a line end",
    newline_in_the_session_token: "AWS_SESSION_TOKEN begins or ends with a blank or a line end",
    quoted: "AWS_ACCESS_KEY_ID holds a character",
    process_answers_nonsense: "no JSON",
    process_fails: "no such vault",
    process_hangs: "no answer within",
    role_is_none: "AWS_ROLE_ARN: connector is no ARN",
    token_missing: "AWS_WEB_IDENTITY_TOKEN_FILE",
    token_empty: "AWS_WEB_IDENTITY_TOKEN_FILE",
    token_of_three_bytes: "AWS_WEB_IDENTITY_TOKEN_FILE",
    token_of_bytes: "AWS_WEB_IDENTITY_TOKEN_FILE",
    token_refused: "InvalidIdentityToken",
    provider_unreachable: "IDPCommunicationError",
    role_denied: "AWS_ROLE_ARN",
    sts_answers_nonsense: "AWS_WEB_IDENTITY_TOKEN_FILE",
    sts_throttles: "Throttling",
    container_token_missing: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    container_server_hangs: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    container_server_answers_nonsense: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    container_server_is_a_stranger: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
}
"""Ways to have no credentials, each with what its sentence must name."""


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_credentials_of_our_own(monkeypatch, tmp_path)
    renewing_at_once(monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
async def test_wrong_credentials_halt_with_a_sentence_and_are_mended_without_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Spoil
) -> None:
    async with aws() as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", one.url)
        with monkeypatch.context() as spoilt:
            spoil(spoilt, tmp_path, one)
            async with started(sdk_invoker(Aim(one.url))) as invoker:
                reply = await invoker.invoke(CALL)
                assert isinstance(reply, Failure)
                assert reply.transport is Transport.NO_CREDENTIALS
                outcome = decide(
                    reply,
                    rows=1,
                    attempts={},
                    succeeded_meanwhile=True,
                    from_headers=True,
                    dead_letter_timeouts=True,
                )
                assert (outcome.kind, outcome.reason) == (Kind.HALT, Reason.CREDENTIALS)
                assert SPOILT[spoil] in outcome.message
                assert SECRET not in outcome.message
                assert "AKIDFIRST" not in outcome.message
                assert one.calls == 0, "nothing was sent"
                spoilt.undo()
                (tmp_path / "config").write_text("")
                monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDMENDED")
                monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
                await invoker.renew_credentials()
                assert isinstance(await invoker.invoke(CALL), Response)


async def test_many_calls_that_want_credentials_ask_for_them_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with aws() as one:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", one.url)
        token_refused(monkeypatch, tmp_path, one)
        async with started(sdk_invoker(Aim(one.url))) as invoker:
            replies = await asyncio.gather(*(invoker.invoke(CALL) for _ in range(64)))
    assert {reply.transport for reply in replies if isinstance(reply, Failure)} == {Transport.NO_CREDENTIALS}
    assert (len(replies), one.asked, one.calls) == (64, 1, 0)
