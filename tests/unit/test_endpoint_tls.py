"""Whom the endpoint's client trusts: by chain and by name, behind a proxy too; and whom it follows: nobody."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from connector.core.calls.call import Failure, Reply, Response, Transport
from connector.core.calls.outcome import Kind, decide
from connector.core.reason import Reason
from tests.certificates import Authority
from tests.contracts.invokers import CALL, Aim, sdk_invoker, started, with_credentials_of_our_own

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: 3\r\nSet-Cookie: a=b\r\n\r\n1\n2"
PASSWORD = "swordfish"
TOKENS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nConnection: close\r\n\r\n"
    b"<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
    b"<AccessKeyId>ASIDROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>"
    b"<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
    b"</AssumeRoleWithWebIdentityResponse>"
)


@dataclass
class Peer:
    """A server of TLS, or a proxy: where it listens, and the heads of the requests that it got."""

    port: int
    host: str = "127.0.0.1"
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def proxy(self, user: str = "") -> str:
        return f"http://{user}127.0.0.1:{self.port}"


async def head_of(reader: asyncio.StreamReader) -> str:
    return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")


@asynccontextmanager
async def serving(
    certificate: tuple[Path, Path], answer: bytes = ANSWER, host: str = "127.0.0.1"
) -> AsyncIterator[Peer]:
    """A server that answers every request alike."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await head_of(reader)
                peer.heads.append(head)
                length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length"))
                await reader.readexactly(int(length.split(":")[1]))
                writer.write(answer)
                await writer.drain()
                if b"Connection: close" in answer:
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, host, 0, ssl=context)
    peer = Peer(listener.sockets[0].getsockname()[1], host)
    async with listener:
        yield peer


@asynccontextmanager
async def proxying(refusal: bytes | None = None) -> AsyncIterator[Peer]:
    """A proxy that connects to whatever CONNECT names, or refuses."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await head_of(reader)
            peer.heads.append(head)
            if refusal is not None:
                writer.write(refusal)
                await writer.drain()
                return
            host, _, port = head.split()[1].rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(pump(reader, back), pump(there, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    peer = Peer(listener.sockets[0].getsockname()[1])
    async with listener:
        yield peer


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_credentials_of_our_own(monkeypatch, tmp_path)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ours")


@pytest.fixture
def theirs(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "theirs")


async def ask(url: str) -> Reply:
    async with started(sdk_invoker(Aim(url))) as invoker:
        return await invoker.invoke(CALL)


@pytest.mark.parametrize("proxied", [False, True], ids=["directly", "behind a proxy"])
@pytest.mark.parametrize("signer", ["ours", "theirs"])
@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"])
async def test_an_endpoint_is_called_only_when_authority_and_name_are_right(
    monkeypatch: pytest.MonkeyPatch, ours: Authority, theirs: Authority, *, proxied: bool, signer: str, host: str
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
    certificate = (ours if signer == "ours" else theirs).sign("server")
    async with serving(certificate, host=host) as server, proxying() as proxy:
        if proxied:
            monkeypatch.setenv("HTTPS_PROXY", proxy.proxy())
        reply = await ask(server.url)
    trusted = signer == "ours" and host == "127.0.0.1"
    assert isinstance(reply, Response if trusted else Failure)
    assert len(server.heads) == trusted, "an impostor gets neither body nor signature"
    assert len(proxy.heads) == proxied
    if isinstance(reply, Failure):
        assert "certificate" in (reply.message or "").lower()


async def test_without_a_bundle_the_authorities_of_the_sdk_count_behind_a_proxy_too(
    monkeypatch: pytest.MonkeyPatch, ours: Authority
) -> None:
    async with serving(ours.sign("server")) as server, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.proxy())
        assert isinstance(await ask(server.url), Failure)
    assert not server.heads


async def test_https_to_a_server_that_speaks_http_says_what_to_mend() -> None:
    async def handle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as listener:
        reply = await ask(f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
    assert isinstance(reply, Failure)
    assert reply.transport is Transport.CONNECT
    assert "does not speak TLS: mend scheme or port in endpoint.url" in (reply.message or "")


async def test_a_proxy_gets_its_user_and_password_and_shows_neither(
    monkeypatch: pytest.MonkeyPatch, ours: Authority, theirs: Authority
) -> None:
    async with proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.proxy(f"me:{PASSWORD}@"))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
        async with serving(ours.sign("server")) as server:
            assert isinstance(await ask(server.url), Response)
        basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
        assert f"Proxy-Authorization: Basic {basic}" in proxy.heads[0]
        assert not any("Proxy-Authorization" in head for head in server.heads)
        async with serving(theirs.sign("impostor")) as server:
            reply = await ask(server.url)
    assert isinstance(reply, Failure)
    assert PASSWORD not in repr(reply)


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        ("403 Forbidden", Kind.HALT, Reason.ACCESS_DENIED),
        ("407 Proxy Authentication Required", Kind.HALT, Reason.ACCESS_DENIED),
        ("404 Not Found", Kind.RETRY, Reason.SERVICE_UNAVAILABLE),
        ("502 Bad Gateway", Kind.RETRY, Reason.SERVICE_UNAVAILABLE),
        ("503 Service Unavailable", Kind.RETRY, Reason.SERVICE_UNAVAILABLE),
    ],
)
async def test_a_proxys_refusal_keeps_its_status_in_the_sentence_and_blames_no_event(
    monkeypatch: pytest.MonkeyPatch, status: str, kind: Kind, reason: Reason
) -> None:
    refusal = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    async with proxying(refusal) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.proxy(f"me:{PASSWORD}@"))
        reply = await ask("https://runtime.example.com")
    assert isinstance(reply, Failure)
    outcome = decide(reply, rows=1, attempts={}, succeeded_meanwhile=True, from_headers=True, dead_letter_timeouts=True)
    assert (outcome.kind, outcome.reason) == (kind, reason)
    assert f"answered {status}" in outcome.message
    assert f"127.0.0.1:{proxy.port}" in outcome.message
    assert PASSWORD not in outcome.message


async def test_sts_is_trusted_no_more_than_the_endpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ours: Authority, theirs: Authority
) -> None:
    token = tmp_path / "token"
    token.write_text("header.payload.signature")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/connector")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
    async with serving(ours.sign("server")) as server, proxying() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.proxy())
        for authority, trusted in ((theirs, False), (ours, True)):
            async with serving(authority.sign("sts"), TOKENS) as sts:
                monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts.url)
                assert isinstance(await ask(server.url), Response if trusted else Failure)
                assert bool(sts.heads) is trusted, "an impostor gets no token"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch, ours: Authority, status: int) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
    certificate = ours.sign("server")
    async with serving(certificate) as elsewhere:
        moved = f"HTTP/1.1 {status} Moved\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()
        async with serving(certificate, moved) as server:
            reply = await ask(server.url)
    assert isinstance(reply, Failure)
    assert reply.status == status
    assert (len(server.heads), elsewhere.heads) == (1, [])


async def test_no_cookie_is_sent_back(monkeypatch: pytest.MonkeyPatch, ours: Authority) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(ours.file))
    async with serving(ours.sign("server")) as server, started(sdk_invoker(Aim(server.url))) as invoker:
        for _ in range(2):
            assert isinstance(await invoker.invoke(CALL), Response)
    assert len(server.heads) == 2
    assert not any("cookie" in head.lower() for head in server.heads)
