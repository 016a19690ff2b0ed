"""Security towards Kafka: real certificates, a real token server, real signatures."""

from __future__ import annotations

import asyncio
import base64
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote_plus, urlsplit

import pytest
import structlog
from aiohttp import web
from aiokafka.errors import AuthenticationFailedError

from connector.errors import SettingsError
from connector.kafka import tokens
from connector.kafka.security import Renewal, client_options
from connector.kafka.tokens import ClientCredentials, MskIam, TokenFile
from connector.settings import Security
from connector.telemetry.log_events import LogEvent
from tests.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

USER = {"username": "u", "password": "p,="}


def security(**given: Any) -> Security:
    return Security(**given)


# Certificates


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Shake hands in memory; the server's side of the connection. Raises ssl.SSLError."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=host)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = {ours, theirs}
    for _ in range(10):
        for side in (ours, theirs):
            if side in waiting:
                try:
                    side.do_handshake()
                    waiting.discard(side)
                except ssl.SSLWantReadError:
                    pass
        if not waiting:
            return theirs
    raise AssertionError("the handshake does not end")


def server_context(authority: Authority, *, asks_for_a_certificate: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.sign("broker"))
    if asks_for_a_certificate:
        context.load_verify_locations(authority.file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def refused(given: Security) -> str:
    with pytest.raises(SettingsError) as caught:
        client_options(given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_security_a_client_needs_nothing_but_the_protocol() -> None:
    assert client_options(security()) == {"security_protocol": "PLAINTEXT"}


def test_a_broker_of_the_given_authority_is_trusted(authority: Authority) -> None:
    options = client_options(security(protocol="SSL", ca_file=authority.file))
    assert set(options) == {"security_protocol", "ssl_context"}
    handshake(options["ssl_context"], server_context(authority), "localhost")


def test_a_broker_of_another_authority_is_not_trusted(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    for ca_file in (other.file, None):
        context = client_options(security(protocol="SSL", ca_file=ca_file))["ssl_context"]
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(context, server_context(authority), "localhost")


def test_a_broker_under_another_name_is_trusted_only_without_check_hostname(authority: Authority) -> None:
    given = {"protocol": "SSL", "ca_file": authority.file}
    with pytest.raises(ssl.SSLCertVerificationError, match=r"[Hh]ostname mismatch"):
        handshake(client_options(security(**given))["ssl_context"], server_context(authority), "kafka.example.com")
    lenient = client_options(security(**given, check_hostname=False))["ssl_context"]
    handshake(lenient, server_context(authority), "kafka.example.com")
    stranger = Authority(authority.folder, "stranger")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(lenient, server_context(stranger), "kafka.example.com")


@pytest.mark.parametrize("password", [None, "pass"])
@pytest.mark.parametrize("one_file", [False, True])
def test_the_client_shows_its_certificate(authority: Authority, password: str | None, one_file: bool) -> None:
    certificate, key = authority.sign("client", password.encode() if password else None)
    if one_file:
        certificate.write_bytes(certificate.read_bytes() + key.read_bytes())
    context = client_options(
        security(
            protocol="SSL",
            ca_file=authority.file,
            cert_file=certificate,
            key_file=None if one_file else key,
            key_password=password,
        )
    )["ssl_context"]
    broker = handshake(context, server_context(authority, asks_for_a_certificate=True), "localhost")
    shown: Any = broker.getpeercert()
    assert shown["subject"] == ((("commonName", "client"),),)


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_a_file_that_cannot_be_read_is_one_sentence(authority: Authority, key: str) -> None:
    certificate, key_file = authority.sign("client")
    files = {"ca_file": authority.file, "cert_file": certificate, "key_file": key_file}
    files[key] = authority.folder / "absent.pem"
    assert refused(security(protocol="SSL", **files)) == (
        f"kafka.security.{key}: {files[key]} cannot be read: No such file or directory"
    )


@pytest.mark.parametrize("content", ["", "not a certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_a_file_of_something_else_is_one_sentence(authority: Authority, key: str, content: str) -> None:
    certificate, key_file = authority.sign("client")
    files = {"ca_file": authority.file, "cert_file": certificate, "key_file": key_file}
    files[key] = authority.folder / "wrong.pem"
    files[key].write_text(content)
    message = refused(security(protocol="SSL", **files))
    assert message.startswith("kafka.security.")
    assert str(files[key]) in message
    assert "PEM" in message


def test_the_key_of_another_certificate_is_one_sentence(authority: Authority) -> None:
    certificate, _ = authority.sign("client")
    _, other_key = authority.sign("other")
    assert refused(security(protocol="SSL", cert_file=certificate, key_file=other_key)) == (
        f"kafka.security.key_file: the key in {other_key} is not the one of the certificate in {certificate}"
    )


def test_an_encrypted_key_needs_its_password_and_nobody_is_asked_on_the_terminal(authority: Authority) -> None:
    certificate, key = authority.sign("client", b"right")
    message = refused(security(protocol="SSL", cert_file=certificate, key_file=key))
    assert message == f"kafka.security.key_password: is missing; the key in {key} is encrypted"
    message = refused(security(protocol="SSL", cert_file=certificate, key_file=key, key_password="wrong"))
    assert "kafka.security.key_password must be the key's" in message


# Files that are replaced


def test_files_are_read_again_when_one_of_them_has_changed(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.sign("client")
    given = security(protocol="SSL", ca_file=authority.file, cert_file=certificate, key_file=key)
    renewal = Renewal(given)
    assert renewal.changed() == {}
    (tmp_path / "next").mkdir()
    successor = Authority(tmp_path / "next", "authority")
    authority.file.write_bytes(successor.file.read_bytes())
    with structlog.testing.capture_logs() as lines:
        context = renewal.changed()["ssl_context"]
        assert renewal.changed() == {}
    handshake(context, server_context(successor), "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(client_options(given)["ssl_context"], server_context(Authority(tmp_path, "stranger")), "127.0.0.1")
    assert [line["event"] for line in lines] == [LogEvent.SECURITY_RENEWED]


def test_a_link_that_leads_elsewhere_is_a_change_as_kubernetes_makes_it(tmp_path: Path) -> None:
    for name, password in (("first", "one"), ("second", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "password").write_text(password)
    (tmp_path / "data").symlink_to(tmp_path / "first")
    file = tmp_path / "data" / "password"
    given = security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", username="u", password_file=file)
    renewal = Renewal(given)
    (tmp_path / "later").symlink_to(tmp_path / "second")
    (tmp_path / "later").rename(tmp_path / "data")
    assert renewal.changed()["sasl_plain_password"] == "two"
    assert client_options(given)["sasl_plain_password"] == "two"


def test_files_that_do_not_fit_yet_change_nothing_and_are_told_once(authority: Authority) -> None:
    certificate, key = authority.sign("client")
    renewal = Renewal(security(protocol="SSL", ca_file=authority.file, cert_file=certificate, key_file=key))
    other, other_key = authority.sign("other")
    certificate.write_bytes(other.read_bytes())
    with structlog.testing.capture_logs() as lines:
        assert [renewal.changed(), renewal.changed()] == [{}, {}]
        key.unlink()
        assert renewal.changed() == {}
        key.write_bytes(other_key.read_bytes())
        assert renewal.changed()["ssl_context"]
    assert [line["event"] for line in lines] == [*2 * [LogEvent.SECURITY_UNREADABLE], LogEvent.SECURITY_RENEWED]
    assert "the key in" in lines[0]["problem"]
    assert "cannot be read" in lines[1]["problem"]


def test_a_secret_file_that_is_gone_is_a_sentence_for_a_client_made_later(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("p")
    given = security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", username="u", password_file=file)
    file.unlink()
    assert refused(given) == f"kafka.security.password_file: {file} cannot be read: No such file or directory"


def test_what_is_given_as_text_is_never_read_again() -> None:
    renewal = Renewal(security(protocol="SASL_PLAINTEXT", mechanism="PLAIN", **USER))
    assert renewal.changed() == {}


# User and password


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_user_and_password_are_handed_over_as_they_are(mechanism: str) -> None:
    assert client_options(security(protocol="SASL_PLAINTEXT", mechanism=mechanism, **USER)) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "u",
        "sasl_plain_password": "p,=",
    }


# Tokens


class TokenServer:
    """An OAuth server on loopback over TLS, which answers as the test says and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, str]]] = []
        self.answer: Any = {"access_token": "t1", "expires_in": 100}
        self.status = 200
        self.hang = asyncio.Event()
        self.hang.set()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        self.asked.append((dict(request.headers), {name: str(value) for name, value in form.items()}))
        await self.hang.wait()
        if self.status == 302:
            raise web.HTTPFound(self.url)
        if isinstance(self.answer, str):
            return web.Response(text=self.answer, status=self.status)
        return web.json_response(self.answer, status=self.status)


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def server(authority: Authority) -> AsyncIterator[TokenServer]:
    held = TokenServer()
    app = web.Application()
    app.router.add_post("/token", held.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(authority))
    await site.start()
    held.url = f"https://localhost:{runner.addresses[0][1]}/token"
    yield held
    held.hang.set()
    await runner.cleanup()


def provider(server: TokenServer, authority: Authority, clock: Clock | None = None) -> ClientCredentials:
    return ClientCredentials(
        server.url,
        "client id",
        "s€cret:/+",
        scope="kafka",
        context=ssl.create_default_context(cafile=str(authority.file)),
        clock=clock or Clock(),
    )


async def failure(tokens_of: tokens.TokenProvider) -> str:
    with pytest.raises(AuthenticationFailedError) as caught:
        await tokens_of.token()
    return str(caught.value).removeprefix("AuthenticationFailedError: ")


async def test_a_token_comes_from_the_server_that_the_settings_name(server: TokenServer, authority: Authority) -> None:
    options = client_options(
        security(
            protocol="SASL_SSL",
            mechanism="OAUTHBEARER",
            ca_file=authority.file,
            oauth_token_url=server.url,
            oauth_client_id="connector",
            oauth_client_secret="secret",
        )
    )
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    assert await options["sasl_oauth_token_provider"].token() == "t1"
    assert server.asked[0][1] == {"grant_type": "client_credentials"}


async def test_the_client_proves_itself_as_rfc_6749_says(server: TokenServer, authority: Authority) -> None:
    await provider(server, authority).token()
    ((headers, form),) = server.asked
    scheme, encoded = headers["Authorization"].split()
    user, password = base64.b64decode(encoded).decode().split(":")
    assert (scheme, unquote_plus(user), unquote_plus(password)) == ("Basic", "client id", "s€cret:/+")
    assert form == {"grant_type": "client_credentials", "scope": "kafka"}


async def test_a_token_is_kept_until_shortly_before_it_ends(server: TokenServer, authority: Authority) -> None:
    clock = Clock()
    held = provider(server, authority, clock)
    assert await held.token() == "t1"
    server.answer = {"access_token": "t2", "expires_in": "100"}
    clock.now += 79
    assert await held.token() == "t1"
    clock.now += 2
    assert await held.token() == "t2"
    assert len(server.asked) == 2


async def test_a_token_without_a_stated_life_is_kept_for_less_than_a_minute(
    server: TokenServer, authority: Authority
) -> None:
    clock = Clock()
    held = provider(server, authority, clock)
    server.answer = {"access_token": "t1"}
    await held.token()
    clock.now += 59
    server.answer = {"access_token": "t2"}
    assert await held.token() == "t2"


async def test_many_connections_share_one_token(server: TokenServer, authority: Authority) -> None:
    held = provider(server, authority)
    assert set(await asyncio.gather(*(held.token() for _ in range(10)))) == {"t1"}
    assert len(server.asked) == 1


async def test_a_token_that_is_still_valid_outlives_a_failing_server(server: TokenServer, authority: Authority) -> None:
    clock = Clock()
    held = provider(server, authority, clock)
    await held.token()
    server.status = 503
    clock.now += 90
    assert await held.token() == "t1"
    clock.now += 11
    assert "status 503" in await failure(held)


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (401, {"error": "invalid_client", "error_description": "No such client."}, "status 401: No such client."),
        (400, {"error": "invalid_scope"}, "refused with status 400: invalid_scope"),
        (500, "<html>", "refused with status 500: no explanation"),
        (302, "", "refused with status 302"),
        (200, {"token": "x"}, "answered without an access_token"),
        (200, ["x"], "answered without an access_token"),
        (200, "not json", "answered without an access_token"),
        (200, {"access_token": "a\nb"}, "something that is no bearer token"),
        (200, {"access_token": ""}, "something that is no bearer token"),
    ],
)
async def test_an_answer_without_a_token_is_a_sentence_and_the_next_one_is_taken(
    server: TokenServer, authority: Authority, status: int, answer: Any, said: str
) -> None:
    held = provider(server, authority)
    server.status, server.answer = status, answer
    message = await failure(held)
    assert message.startswith(f"the OAuth server {server.url} (kafka.security.oauth_token_url) ")
    assert said in message
    assert "cret" not in message
    server.status, server.answer = 200, {"access_token": "good", "expires_in": 1}
    assert await held.token() == "good"


async def test_a_server_that_hangs_costs_no_more_than_the_limit(
    server: TokenServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "FETCH_LIMIT", 0.05)
    server.hang.clear()
    assert "gave no token within 0.05s" in await failure(provider(server, authority))


async def test_a_server_that_cannot_be_reached_or_trusted_is_a_sentence(
    server: TokenServer, authority: Authority, unused_tcp_port: int
) -> None:
    stranger = Authority(authority.folder, "stranger")
    assert "cannot be reached" in await failure(provider(server, stranger))
    assert server.asked == []
    server.url = f"https://localhost:{unused_tcp_port}/token"
    assert "cannot be reached" in await failure(provider(server, authority))


async def test_whatever_fails_aiokafka_sees_a_kafka_error(
    server: TokenServer, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("surprise")

    monkeypatch.setattr("aiohttp.ClientSession", broken)
    assert "gave no token: LookupError: surprise" in await failure(provider(server, authority))


async def test_a_token_file_is_read_for_every_connection(tmp_path: Path) -> None:
    path = tmp_path / "token"
    held = client_options(security(protocol="SASL_SSL", mechanism="OAUTHBEARER", oauth_token_file=path))[
        "sasl_oauth_token_provider"
    ]
    assert isinstance(held, TokenFile)
    assert "cannot be read: No such file" in await failure(held)
    for token in ("eyJhbGciOi.J9-_x.y", "another=="):
        path.write_text(f"{token}\n")
        assert await held.token() == token
    path.write_text("\n")
    assert "something that is no bearer token" in await failure(held)


# Amazon MSK


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An SDK that knows these credentials, no region, and no other place to look."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "example")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def signed_url(token: str) -> tuple[str, dict[str, list[str]]]:
    """The host and the query of the address that an MSK token is."""
    url = urlsplit(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode())
    return url.netloc, parse_qs(url.query)


async def test_an_msk_token_is_a_signed_request_to_connect(aws: pytest.MonkeyPatch) -> None:
    options = client_options(security(protocol="SASL_SSL", mechanism="AWS_MSK_IAM", aws_region="eu-west-1"))
    assert options["sasl_mechanism"] == "OAUTHBEARER"
    host, query = signed_url(await options["sasl_oauth_token_provider"].token())
    assert host == "kafka.eu-west-1.amazonaws.com"
    assert query["Action"] == ["kafka-cluster:Connect"]
    assert query["X-Amz-Credential"][0].startswith("AKIDEXAMPLE/")
    assert query["X-Amz-Credential"][0].endswith("/eu-west-1/kafka-cluster/aws4_request")
    assert len(query["X-Amz-Signature"][0]) == 64


async def test_an_msk_token_is_signed_again_before_its_credentials_can_end(aws: pytest.MonkeyPatch) -> None:
    clock = Clock()
    held = MskIam("eu-west-1", None, clock)
    first = await held.token()
    aws.setenv("AWS_ACCESS_KEY_ID", "AKIDOTHER")
    assert await held.token() == first
    clock.now += 300
    _, query = signed_url(await held.token())
    assert query["X-Amz-Credential"][0].startswith("AKIDOTHER/")


async def test_the_region_of_an_msk_token_may_come_from_the_sdk(aws: pytest.MonkeyPatch) -> None:
    assert "have no region; set kafka.security.aws_region" in await failure(MskIam(None, None))
    aws.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert signed_url(await MskIam(None, None).token())[0] == "kafka.us-east-2.amazonaws.com"


async def test_an_msk_token_without_credentials_is_a_sentence(aws: pytest.MonkeyPatch) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    assert "the SDK's chain found none" in await failure(MskIam("eu-west-1", None))


async def test_a_profile_that_does_not_exist_is_a_sentence(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_PROFILE", "absent")
    assert "cannot sign a token: The config profile (absent)" in await failure(MskIam("eu-west-1", None))


async def test_an_assumed_role_signs_the_token(aws: pytest.MonkeyPatch) -> None:
    asked = []

    def assume(region: str, role_arn: str) -> tuple[str, int]:
        asked.append((region, role_arn))
        return "token", 0

    aws.setattr("aws_msk_iam_sasl_signer.MSKAuthTokenProvider.generate_auth_token_from_role_arn", assume)
    options = client_options(
        security(
            protocol="SASL_SSL", mechanism="AWS_MSK_IAM", aws_region="eu-west-1", aws_role_arn="arn:aws:iam::1:role/x"
        )
    )
    assert await options["sasl_oauth_token_provider"].token() == "token"
    assert asked == [("eu-west-1", "arn:aws:iam::1:role/x")]


def test_without_the_extra_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aws_msk_iam_sasl_signer", None)
    message = refused(security(protocol="SASL_SSL", mechanism="AWS_MSK_IAM"))
    assert "needs the extra msk; install sagemaker-kafka-connector[msk]" in message
