"""The SDK invoker against a server that answers, breaks off, or says nothing: every call ends in a reply."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import create_loader

from connector.core.calls.call import Call, Failure, Response, Transport
from connector.core.event import Route
from connector.endpoint import sdk
from connector.endpoint.sdk import SdkInvoker

if TYPE_CHECKING:
    from pathlib import Path

LOADER = create_loader()
"""The SDK's data takes a quarter of a second to read."""
CALL = Call(Route("fraud"), "device 7", b"1,2\n3,4", "text/csv", "application/json")


@dataclass
class Request:
    """What came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """An HTTP server that hands each request to `answer`, which writes what it likes."""

    port: int
    answer: Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
    requests: list[Request] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has closed its connection."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    handling: set[asyncio.Task[None] | None] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.current_task())
        try:
            while line := (await reader.readline()).decode("latin-1").strip():
                headers = {}
                while header := (await reader.readline()).decode("latin-1").strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                request = Request(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                server.requests.append(request)
                await server.answer(request, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            handling.discard(asyncio.current_task())
            server.gone.set()
            writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    server = Server(listener.sockets[0].getsockname()[1], answer)
    async with listener:
        yield server
    for task in handling:
        if task is not None:
            task.cancel()
    # It sleeps, or waits for a client that went away.
    while handling:
        await asyncio.sleep(0)


def reply(status: int, body: bytes, *headers: str, length: int | None = None) -> Answer:
    """Answer with this status, body and headers; `length` is what Content-Length claims."""
    claimed = len(body) if length is None else length
    head = "\r\n".join([f"HTTP/1.1 {status} Whatever", f"Content-Length: {claimed}", *headers])

    async def answer(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode("latin-1") + b"\r\n\r\n" + body)
        if length is not None:
            await writer.drain()
            writer.close()

    return answer


def error(status: int, kind: str | None, **members: Any) -> Answer:
    """An error of the service, in protocol rest-json."""
    return reply(status, json.dumps(members).encode(), *([f"x-amzn-ErrorType: {kind}"] if kind else []))


async def silence(_: Request, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def hang_up(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(_: Request, writer: asyncio.StreamWriter) -> None:
    without_goodbye = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, without_goodbye)
    writer.transport.abort()


async def dribble(_: Request, writer: asyncio.StreamWriter) -> None:
    """A byte in a while: no wait for one is ever long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _byte in range(1000):
        writer.write(b"1")
        await writer.drain()
        await asyncio.sleep(0.05)


async def break_off_in_head(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Le")
    await writer.drain()
    writer.close()


async def break_off_in_chunk(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n1,2")
    await writer.drain()
    writer.close()


async def not_http(_: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
    await writer.drain()
    writer.close()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of our own, and nothing of the machine's."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "http_", "https_", "HTTP_", "HTTPS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(sdk, "create_loader", lambda: LOADER)


def invoker_of(
    url: str, *, region: str | None = "eu-west-1", connect_timeout: float = 5.0, read_timeout: float = 20.0
) -> SdkInvoker:
    return SdkInvoker(
        region=region, url=url, max_in_flight=4, connect_timeout=connect_timeout, read_timeout=read_timeout
    )


@asynccontextmanager
async def started(invoker: SdkInvoker) -> AsyncIterator[SdkInvoker]:
    await invoker.start()
    try:
        yield invoker
    finally:
        await invoker.stop()


async def ask(
    answer: Answer, call: Call = CALL, *, connect_timeout: float = 5.0, read_timeout: float = 20.0
) -> tuple[Any, list[Request]]:
    """Make one call to a server; what came of it, and what the server got."""
    async with (
        serving(answer) as server,
        started(invoker_of(server.url, connect_timeout=connect_timeout, read_timeout=read_timeout)) as invoker,
    ):
        return await invoker.invoke(call), server.requests


# -- answers ---------------------------------------------------------------------------------------------------------


async def test_a_call_carries_its_body_its_id_and_its_members_signed() -> None:
    route = Route("fraud", (("CustomAttributes", "a=1"), ("TargetModel", "m.tar.gz")))
    call = Call(route, "device 7", b"1,2", "text/csv", "application/json")
    _, (request,) = await ask(reply(200, b"0.5"), call)
    assert request.line == "POST /endpoints/fraud/invocations HTTP/1.1"
    assert request.body == b"1,2"
    assert request.headers["content-type"] == "text/csv"
    assert request.headers["accept"] == "application/json"
    assert request.headers["x-amzn-sagemaker-inference-id"] == "device 7"
    assert request.headers["x-amzn-sagemaker-custom-attributes"] == "a=1"
    assert request.headers["x-amzn-sagemaker-target-model"] == "m.tar.gz"
    assert "Credential=AKIDFIRST/" in request.headers["authorization"]
    assert "/eu-west-1/sagemaker/aws4_request" in request.headers["authorization"]


async def test_a_member_of_the_route_replaces_what_the_format_names() -> None:
    route = Route("fraud", (("Accept", "text/plain"), ("ContentType", "text/tab-separated-values")))
    _, (request,) = await ask(reply(200, b"0.5"), Call(route, "a", b"1", "text/csv", "application/json"))
    assert request.headers["content-type"] == "text/tab-separated-values"
    assert request.headers["accept"] == "text/plain"


async def test_an_answer_is_a_response_with_every_member_that_it_has() -> None:
    answer = reply(
        200,
        b"0.1\n0.2",
        "Content-Type: text/csv",
        "x-Amzn-Invoked-Production-Variant: blue",
        "X-Amzn-SageMaker-Custom-Attributes: trace=1",
        "X-Amzn-SageMaker-New-Session-Id: s1; Expires=2030-01-01T00:00:00Z",
        "X-Amzn-SageMaker-Closed-Session-Id: s0",
    )
    response, _ = await ask(answer)
    session = "s1; Expires=2030-01-01T00:00:00Z"
    assert response == Response(b"0.1\n0.2", "text/csv", "blue", "trace=1", session, "s0")
    assert (await ask(reply(200, b"")))[0].body == b""


# -- errors of the service -------------------------------------------------------------------------------------------


async def test_a_model_error_has_the_containers_own_members() -> None:
    answer = error(
        424, "ModelError", Message="m", OriginalStatusCode=400, OriginalMessage="no such column", LogStreamArn="arn:log"
    )
    failure, _ = await ask(answer)
    assert failure == Failure(
        code="ModelError",
        status=424,
        message="m",
        original_status=400,
        original_message="no such column",
        log_stream="arn:log",
        body_size=len(CALL.body),
    )


async def test_a_throttled_call_fails_with_status_400_and_no_message() -> None:
    failure, requests = await ask(error(400, "ThrottlingException", message=None))
    assert (failure.code, failure.status) == ("ThrottlingException", 400)
    assert not failure.message
    assert len(requests) == 1, "the SDK must not try again by itself"


async def test_an_error_of_the_service_keeps_code_status_and_message_and_is_not_tried_again() -> None:
    for status, kind, message in (
        (400, "ValidationError", "Endpoint fraud of account 1 not found."),
        (403, "AccessDeniedException", "not authorized"),
        (403, "ExpiredTokenException", "The security token included in the request is expired"),
        (429, "ModelNotReadyException", "not ready"),
        (500, "InternalFailure", "failed"),
        (503, "ServiceUnavailable", "later"),
        (530, "InternalDependencyException", "failed"),
    ):
        failure, requests = await ask(error(status, kind, message=message))
        assert failure == Failure(code=kind, status=status, message=message, body_size=len(CALL.body))
        assert len(requests) == 1


@pytest.mark.parametrize("status", [400, 413, 424, 429, 502])
async def test_an_error_with_a_body_that_is_none_still_tells_its_status(status: int) -> None:
    async with serving(silence) as server, started(invoker_of(server.url)) as invoker:
        for body in (b"", b"<html>Bad gateway</html>", b"{", b"[1]", b"null", b"\xff\xfe", b'{"message": {"a": 1}}'):
            server.answer = reply(status, body, "Content-Type: text/html")
            failure = await invoker.invoke(CALL)
            assert isinstance(failure, Failure)
            assert failure.status == status or failure.transport is Transport.RESET
            assert failure.body_size == len(CALL.body)


async def test_members_of_an_error_that_are_no_text_become_text() -> None:
    members = {"Message": {"a": 1}, "OriginalStatusCode": 400, "OriginalMessage": ["b"], "LogStreamArn": 7}
    failure, _ = await ask(error(424, "ModelError", **members))
    assert (failure.message, failure.original_message, failure.log_stream) == ("{'a': 1}", "['b']", "7")


async def test_a_member_that_the_sdk_refuses_is_an_error_of_the_route_not_an_exception() -> None:
    failure, requests = await ask(reply(200, b"1"), Call(Route("fraud", (("NoSuch", "1"),)), "a", b"1", "a/b", "a/b"))
    assert (failure.code, failure.status) == ("ValidationException", 400)
    assert "NoSuch" in failure.message
    assert not requests


# -- the transport ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [hang_up, reset, break_off_in_head, break_off_in_chunk, not_http])
async def test_a_connection_that_breaks_is_a_reset(answer: Answer) -> None:
    failure, requests = await ask(answer)
    assert isinstance(failure, Failure)
    assert (failure.transport, failure.code, failure.status) == (Transport.RESET, None, None)
    assert failure.body_size == len(CALL.body)
    assert failure.message
    assert len(requests) == 1


async def test_a_connection_that_is_reset_while_a_large_body_is_sent_is_a_reset_not_a_connect_failure() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reset(Request(str(await reader.readline()), {}, b""), writer)

    body = b"1" * (1 << 20)
    call = Call(CALL.route, "a", body, "text/csv", "text/csv")
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with started(invoker_of(url)) as invoker:
            failure = await invoker.invoke(call)
    assert isinstance(failure, Failure)
    assert (failure.transport, failure.body_size) == (Transport.RESET, len(body))


@pytest.mark.parametrize("status", [200, 400])
async def test_a_response_that_is_shorter_than_it_says_is_a_reset(status: int) -> None:
    failure, _ = await ask(reply(status, b"0.1\n0.", length=1000))
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.RESET


async def test_a_refused_connection_is_a_connect_failure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with started(invoker_of(f"http://127.0.0.1:{port}")) as invoker:
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT


async def test_a_name_that_nobody_has_is_a_connect_failure() -> None:
    async with started(invoker_of("http://nobody.invalid:1")) as invoker:
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT


async def test_a_name_server_that_hangs_is_a_connect_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    async with started(invoker_of("http://runtime.example.com", connect_timeout=0.2, read_timeout=5.0)) as invoker:
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT


async def test_a_server_that_speaks_no_tls_is_a_connect_failure() -> None:
    async with (
        serving(silence) as server,
        started(invoker_of(f"https://127.0.0.1:{server.port}", connect_timeout=0.3, read_timeout=5.0)) as invoker,
    ):
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT


async def test_a_connection_that_takes_too_long_to_open_is_a_connect_failure() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            # A full backlog drops what comes, so that no connection opens.
            for _ in range(8):
                client = socket.socket()
                client.settimeout(0)
                client.connect_ex(listener.getsockname())
                waiting.append(client)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with started(invoker_of(url, connect_timeout=0.2, read_timeout=5.0)) as invoker:
                failure = await invoker.invoke(CALL)
        finally:
            for client in waiting:
                client.close()
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT


async def test_silence_is_a_read_timeout() -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    failure, _ = await ask(silence, connect_timeout=20.0, read_timeout=0.2)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.READ_TIMEOUT
    assert loop.time() - before < 10.0


async def test_an_answer_that_never_ends_is_a_read_timeout_though_bytes_keep_coming() -> None:
    failure, _ = await ask(dribble, connect_timeout=0.2, read_timeout=0.2)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.READ_TIMEOUT


async def test_a_call_without_credentials_is_not_even_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failure, requests = await ask(reply(200, b"1"))
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.NO_CREDENTIALS
    assert not requests


async def test_half_of_the_credentials_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    failure, requests = await ask(reply(200, b"1"))
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.NO_CREDENTIALS
    assert "AWS_SECRET_ACCESS_KEY" in (failure.message or "")
    assert not requests


@pytest.mark.parametrize("missing", [["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], ["AWS_SECRET_ACCESS_KEY"]])
async def test_credentials_that_come_after_the_start_are_found_by_a_renewal(
    missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)
    for name in missing:
        monkeypatch.delenv(name)
    async with serving(reply(200, b"1")) as server, started(invoker_of(server.url)) as invoker:
        assert isinstance(await invoker.invoke(CALL), Failure)
        for name in missing:
            monkeypatch.setenv(name, "AKIDLATER")
        await invoker.renew_credentials()
        assert isinstance(await invoker.invoke(CALL), Response)


async def test_a_cancelled_call_ends_at_once_and_closes_its_connection() -> None:
    loop = asyncio.get_running_loop()
    async with serving(silence) as server, started(invoker_of(server.url)) as invoker:
        call = asyncio.create_task(invoker.invoke(CALL))
        while not server.requests:
            await asyncio.sleep(0.01)
        before = loop.time()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert loop.time() - before < 1.0


# -- credentials and configuration -----------------------------------------------------------------------------------


def key_of(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


async def test_renewed_credentials_sign_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)
    async with serving(reply(200, b"1")) as server, started(invoker_of(server.url)) as invoker:
        await invoker.invoke(CALL)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECOND")
        await invoker.invoke(CALL)
        await invoker.renew_credentials()
        await invoker.invoke(CALL)
        assert [key_of(request) for request in server.requests] == ["AKIDFIRST", "AKIDFIRST", "AKIDSECOND"]


async def test_many_refused_calls_renew_credentials_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    async def start(self: SdkInvoker) -> None:
        nonlocal made
        made += 1

    async with started(invoker_of("http://127.0.0.1:1")) as invoker:
        monkeypatch.setattr(SdkInvoker, "start", start)
        await asyncio.gather(*[invoker.renew_credentials() for _ in range(20)])
        assert made == 0, "the client was made a moment ago"
        invoker._renewed -= 6.0
        await asyncio.gather(*[invoker.renew_credentials() for _ in range(20)])
        assert made == 1


async def test_a_call_in_flight_outlives_the_renewal_of_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)
    release = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await reply(200, b"1")(request, writer)

    async with serving(answer) as server, started(invoker_of(server.url)) as invoker:
        call = asyncio.create_task(invoker.invoke(CALL))
        while not server.requests:
            await asyncio.sleep(0.01)
        for _ in range(3):
            await invoker.renew_credentials()
        release.set()
        assert isinstance(await call, Response)


async def test_clients_that_no_call_can_use_any_more_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)
    invoker = invoker_of("http://127.0.0.1:1", connect_timeout=0.01, read_timeout=0.01)
    async with started(invoker):
        for _ in range(4):
            await invoker.renew_credentials()
            await asyncio.sleep(0.03)
        assert len(invoker._clients) <= 2
    assert not invoker._clients


async def test_a_renewal_that_fails_keeps_the_client_that_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)
    async with serving(reply(200, b"1")) as server, started(invoker_of(server.url)) as invoker:
        (tmp_path / "config").write_text("[default\n")
        await invoker.renew_credentials()
        assert isinstance(await invoker.invoke(CALL), Response)


async def test_the_region_may_come_from_the_sdks_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    async with serving(reply(200, b"1")) as server, started(invoker_of(server.url, region=None)) as invoker:
        await invoker.invoke(CALL)
        assert "/ap-south-1/" in server.requests[0].headers["authorization"]


async def test_nothing_stays_open_after_the_end() -> None:
    async with serving(reply(200, b"1")) as server:
        async with started(invoker_of(server.url)) as invoker:
            await invoker.invoke(CALL)
            assert not server.gone.is_set()
        async with asyncio.timeout(5):
            await server.gone.wait()
    gc.collect()  # an unclosed session would warn
