"""What every Invoker keeps to, over real HTTP: each call ends in a reply, within its time, and leaves nothing open."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from connector.core.calls.call import Call, Failure, Response, Transport
from connector.core.event import Route
from connector.core.routes.members import RULES
from connector.local.endpoint.emulator import LocalEndpoint
from connector.local.endpoint.faults import KINDS, Fault
from connector.local.endpoint.hosted_endpoint import HostedEndpoint
from connector.local.endpoint.model import Echo
from tests.contracts.invokers import CALL, INVOKERS, Aim, ask, renewing_at_once, started, with_credentials_of_our_own
from tests.scripted_server import (
    Answer,
    Request,
    ScriptedServer,
    break_off_in_chunk,
    break_off_in_head,
    dribble,
    error,
    hang_up,
    not_http,
    reply,
    reset,
    silence,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.contracts.invokers import MakeInvoker


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_credentials_of_our_own(monkeypatch, tmp_path)


@pytest.fixture(params=[*INVOKERS.values()], ids=[*INVOKERS])
def make(request: pytest.FixtureRequest) -> MakeInvoker:
    """Makes an invoker of one kind after the other."""
    making: MakeInvoker = request.param
    return making


def emulator(*faults: Fault) -> LocalEndpoint:
    """An endpoint that answers each row with itself, but for its faults."""
    return LocalEndpoint([HostedEndpoint("fraud", {"blue": Echo()})], faults=faults)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


# -- what is sent ------------------------------------------------------------------------------------------------------


async def test_a_call_carries_its_body_and_its_id_signed(make: MakeInvoker) -> None:
    _, (request,) = await ask(make, reply(200, b"0.5"))
    assert request.line == "POST /endpoints/fraud/invocations HTTP/1.1"
    assert request.body == CALL.body
    assert request.headers["content-type"] == "text/csv"
    assert request.headers["accept"] == "application/json"
    assert request.headers["x-amzn-sagemaker-inference-id"] == "device 7"
    assert "Credential=AKIDFIRST/" in request.headers["authorization"]
    assert "/eu-west-1/sagemaker/aws4_request" in request.headers["authorization"]


async def test_every_member_that_a_route_can_have_arrives_as_it_is(make: MakeInvoker) -> None:
    members = {
        "Accept": ("accept", "text/plain"),
        "ContentType": ("content-type", "text/tab-separated-values"),
        "CustomAttributes": ("x-amzn-sagemaker-custom-attributes", "a=1, b = 2"),
        "EnableExplanations": ("x-amzn-sagemaker-enable-explanations", "`true`"),
        "InferenceComponentName": ("x-amzn-sagemaker-inference-component", "part-1"),
        "SessionId": ("x-amzn-sagemaker-session-id", "NEW_SESSION"),
        "TargetContainerHostname": ("x-amzn-sagemaker-target-container-hostname", "second"),
        "TargetModel": ("x-amzn-sagemaker-target-model", "m/1.tar.gz"),
        "TargetVariant": ("x-amzn-sagemaker-target-variant", "blue"),
    }
    assert members.keys() == RULES.keys() - {"EndpointName"}
    route = Route("fraud", tuple((name, value) for name, (_, value) in members.items()))
    _, (request,) = await ask(make, reply(200, b"0.5"), Call(route, "a", b"1", "text/csv", "application/json"))
    assert {header: request.headers[header] for header, _ in members.values()} == dict(members.values())


# -- answers -----------------------------------------------------------------------------------------------------------


async def test_an_answer_is_a_response_with_every_member_that_it_has(make: MakeInvoker) -> None:
    answer = reply(
        200,
        b"0.1\n0.2",
        "Content-Type: text/csv",
        "x-Amzn-Invoked-Production-Variant: blue",
        "X-Amzn-SageMaker-Custom-Attributes: trace=1",
        "X-Amzn-SageMaker-New-Session-Id: s1; Expires=2030-01-01T00:00:00Z",
        "X-Amzn-SageMaker-Closed-Session-Id: s0",
    )
    response, _ = await ask(make, answer)
    session = "s1; Expires=2030-01-01T00:00:00Z"
    assert response == Response(b"0.1\n0.2", "text/csv", "blue", "trace=1", session, "s0")
    assert (await ask(make, reply(200, b"")))[0].body == b""


async def test_calls_at_once_each_get_their_own_answer(make: MakeInvoker) -> None:
    calls = [Call(CALL.route, f"id {number}", b"%d" % number, "text/csv", "text/csv") for number in range(40)]
    async with emulator() as endpoint, started(make(Aim(endpoint.url))) as invoker:
        replies = await asyncio.gather(*map(invoker.invoke, calls))
    assert [reply.body for reply in replies if isinstance(reply, Response)] == [call.body for call in calls]
    assert sorted(str(seen.inference_id) for seen in endpoint.calls) == sorted(call.inference_id for call in calls)


# -- errors of the service ---------------------------------------------------------------------------------------------

SIZE = len(CALL.body)
FAILURES = {
    "throttle": Failure(code="ThrottlingException", status=400),
    "throttle_untyped": Failure(status=400),
    "too_many_requests": Failure(status=429, message="Too Many Requests"),
    "model_not_ready": Failure(code="ModelNotReadyException", status=429, message="The model is not ready yet."),
    "service_unavailable": Failure(
        code="ServiceUnavailable", status=503, message="The service is unavailable. Try again later."
    ),
    "internal_failure": Failure(code="InternalFailure", status=500, message="An internal failure occurred."),
    "internal_dependency": Failure(
        code="InternalDependencyException", status=530, message="A dependency of the service failed."
    ),
    "model_error": Failure(
        code="ModelError",
        status=424,
        message='Received client error (422) from blue with message "no such column".',
        original_status=422,
        original_message="no such column",
        log_stream="arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/fraud:log-stream:blue/i-local",
    ),
    "validation": Failure(code="ValidationError", status=400, message="no such column"),
    "access_denied": Failure(code="AccessDeniedException", status=403),
    "expired_token": Failure(
        code="ExpiredTokenException", status=403, message="The security token included in the request is expired"
    ),
    "endpoint_not_found": Failure(
        code="ValidationError", status=400, message="Endpoint fraud of account 123456789012 not found."
    ),
    "hang": Failure(transport=Transport.READ_TIMEOUT),
    "reset": Failure(transport=Transport.RESET),
    "truncate": Failure(transport=Transport.RESET),
}
ANSWERS = {"delay": CALL.body, "garbage": b"\xff\x00<garbage>", "wrong_rows": b"0\n"}


def test_every_fault_is_tried() -> None:
    assert {*FAILURES, *ANSWERS} == KINDS.keys()


def known(failure: Failure, wanted: Failure) -> Failure:
    """A failure without what differs between invokers: how an absent code or message is said, the words of a transport."""
    code = None if failure.code == str(failure.status) else failure.code
    message = failure.message if wanted.message else None
    return Failure(
        code=code,
        status=failure.status,
        message=message,
        original_status=failure.original_status,
        original_message=failure.original_message,
        log_stream=failure.log_stream,
        transport=failure.transport,
        body_size=failure.body_size - SIZE,
    )


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_fault_is_a_failure_with_the_members_that_it_has_and_is_not_tried_again(
    make: MakeInvoker, kind: str
) -> None:
    fault = Fault(kind, calls=frozenset({1}), status=422, message="no such column")
    async with emulator(fault) as endpoint, started(make(Aim(endpoint.url, read_timeout=0.3))) as invoker:
        failure = await invoker.invoke(CALL)
        assert isinstance(failure, Failure)
        assert known(failure, FAILURES[kind]) == FAILURES[kind]
        assert (not failure.message) is kind.startswith("throttle")
        assert len(endpoint.calls) == 1
        # The connection that it broke, or left half read, is nobody else's.
        response = await invoker.invoke(CALL)
    assert isinstance(response, Response)
    assert (response.body, response.content_type, response.variant) == (CALL.body, "text/csv", "blue")


@pytest.mark.parametrize("kind", ANSWERS)
async def test_an_answer_that_is_late_or_wrong_is_a_response(make: MakeInvoker, kind: str) -> None:
    async with emulator(Fault(kind, seconds=0.05)) as endpoint, started(make(Aim(endpoint.url))) as invoker:
        response = await invoker.invoke(CALL)
    assert isinstance(response, Response)
    assert response.body == ANSWERS[kind]


@pytest.mark.parametrize("status", [400, 413, 424, 429, 502])
async def test_an_error_with_a_body_that_is_none_still_tells_its_status(make: MakeInvoker, status: int) -> None:
    async with ScriptedServer(silence) as server, started(make(Aim(server.url))) as invoker:
        for body in (b"", b"<html>Bad gateway</html>", b"{", b"[1]", b"null", b"\xff\xfe", b'{"message": {"a": 1}}'):
            server.answer = reply(status, body, "Content-Type: text/html")
            failure = await invoker.invoke(CALL)
            assert isinstance(failure, Failure)
            assert failure.status == status or failure.transport is Transport.RESET
            assert failure.body_size == SIZE


async def test_members_of_an_error_that_are_no_text_become_text(make: MakeInvoker) -> None:
    members = {"Message": {"a": 1}, "OriginalStatusCode": 400, "OriginalMessage": ["b"], "LogStreamArn": 7}
    failure, _ = await ask(make, error(424, "ModelError", **members))
    assert (failure.message, failure.original_message, failure.log_stream) == ("{'a': 1}", "['b']", "7")


# -- the transport -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [hang_up, reset, break_off_in_head, break_off_in_chunk, not_http])
async def test_a_connection_that_breaks_is_a_reset(make: MakeInvoker, answer: Answer) -> None:
    failure, requests = await ask(make, answer)
    assert isinstance(failure, Failure)
    assert (failure.transport, failure.code, failure.status) == (Transport.RESET, None, None)
    assert failure.body_size == SIZE
    assert failure.message
    assert len(requests) == 1


async def test_a_connection_that_is_reset_while_a_large_body_is_sent_is_a_reset_not_a_connect_failure(
    make: MakeInvoker,
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reset(Request(str(await reader.readline()), {}, b""), writer)

    call = Call(CALL.route, "a", b"1" * (1 << 20), "text/csv", "text/csv")
    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with started(make(Aim(url))) as invoker:
            failure = await invoker.invoke(call)
    assert isinstance(failure, Failure)
    assert (failure.transport, failure.body_size) == (Transport.RESET, len(call.body))


@pytest.mark.parametrize("status", [200, 400])
async def test_a_response_that_is_shorter_than_it_says_is_a_reset(make: MakeInvoker, status: int) -> None:
    failure, _ = await ask(make, reply(status, b"0.1\n0.", length=1000))
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.RESET


async def cannot_connect(make: MakeInvoker, url: str, connect_timeout: float = 5.0) -> None:
    async with started(make(Aim(url, connect_timeout=connect_timeout, read_timeout=5.0))) as invoker:
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.CONNECT
    assert failure.message


async def test_a_refused_connection_is_a_connect_failure(make: MakeInvoker) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        await cannot_connect(make, f"http://127.0.0.1:{nobody.getsockname()[1]}")


async def test_a_name_that_nobody_has_is_a_connect_failure(make: MakeInvoker) -> None:
    await cannot_connect(make, "http://nobody.invalid:1")


async def test_a_name_server_that_hangs_is_a_connect_failure(
    make: MakeInvoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    await cannot_connect(make, "http://runtime.example.com", connect_timeout=0.2)


async def test_a_server_that_speaks_no_tls_is_a_connect_failure(make: MakeInvoker) -> None:
    async with ScriptedServer(silence) as server:
        await cannot_connect(make, f"https://127.0.0.1:{server.port}", connect_timeout=0.3)


async def test_a_connection_that_takes_too_long_to_open_is_a_connect_failure(make: MakeInvoker) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            # A full backlog drops what comes, so that no connection opens.
            for _ in range(8):
                client = socket.socket()
                waiting.append(client)
                client.settimeout(0)
                client.connect_ex(listener.getsockname())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            await cannot_connect(make, url, connect_timeout=0.2)
        finally:
            for client in waiting:
                client.close()


@pytest.mark.parametrize("answer", [silence, dribble], ids=["silence", "a byte in a while"])
async def test_the_read_timeout_bounds_a_call_that_hangs_though_bytes_may_keep_coming(
    make: MakeInvoker, answer: Answer
) -> None:
    loop = asyncio.get_running_loop()
    before = loop.time()
    failure, _ = await ask(make, answer, connect_timeout=0.2, read_timeout=0.2)
    assert isinstance(failure, Failure)
    assert failure.transport is Transport.READ_TIMEOUT
    # As long as the server would be silent.
    assert loop.time() - before < 30


# -- cancellation ------------------------------------------------------------------------------------------------------


async def test_a_call_that_is_cancelled_at_any_moment_leaves_nothing_in_flight(make: MakeInvoker) -> None:
    async with emulator(Fault("hang", last=60)) as endpoint, started(make(Aim(endpoint.url))) as invoker:
        # By turns of the loop, of which the first end before anything is sent, and while the endpoint is silent.
        for turns in range(60):
            call = asyncio.create_task(invoker.invoke(CALL))
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 6 == 5:
                await until(lambda: endpoint.stats.in_flight > 0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        endpoint.faults = ()
        await until(lambda: endpoint.stats.in_flight == 0)
        # As many as may be in flight at once: none of them waits for a place that was never given back.
        replies = await asyncio.gather(*[invoker.invoke(CALL) for _ in range(4)])
        assert all(isinstance(reply, Response) for reply in replies)


# -- credentials -------------------------------------------------------------------------------------------------------


def key_of(request: Request) -> str:
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


async def test_renewed_credentials_sign_the_next_call(make: MakeInvoker, monkeypatch: pytest.MonkeyPatch) -> None:
    renewing_at_once(monkeypatch)
    async with ScriptedServer(reply(200, b"1")) as server, started(make(Aim(server.url))) as invoker:
        await invoker.invoke(CALL)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECOND")
        await invoker.invoke(CALL)
        await invoker.renew_credentials()
        await invoker.invoke(CALL)
    assert [key_of(request) for request in server.requests] == ["AKIDFIRST", "AKIDFIRST", "AKIDSECOND"]


async def test_calls_in_flight_outlive_the_renewal_of_credentials(
    make: MakeInvoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing_at_once(monkeypatch)
    release = asyncio.Event()

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        await reply(200, b"1")(request, writer)

    async with ScriptedServer(answer) as server, started(make(Aim(server.url))) as invoker:
        calls = [asyncio.create_task(invoker.invoke(CALL)) for _ in range(4)]
        await until(lambda: len(server.requests) == 4)
        await asyncio.gather(*[invoker.renew_credentials() for _ in range(3)])
        release.set()
        replies = [await call for call in calls]
        assert all(isinstance(reply, Response) for reply in replies)
        assert isinstance(await invoker.invoke(CALL), Response)


@pytest.mark.parametrize("missing", [["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], ["AWS_SECRET_ACCESS_KEY"]])
async def test_without_credentials_nothing_is_sent_until_a_renewal_finds_some(
    make: MakeInvoker, missing: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing_at_once(monkeypatch)
    for name in missing:
        monkeypatch.delenv(name)
    async with ScriptedServer(reply(200, b"1")) as server, started(make(Aim(server.url))) as invoker:
        failure = await invoker.invoke(CALL)
        assert isinstance(failure, Failure)
        assert (failure.transport, failure.body_size) == (Transport.NO_CREDENTIALS, SIZE)
        assert failure.message
        assert not server.requests
        for name in missing:
            monkeypatch.setenv(name, "AKIDLATER")
        await invoker.renew_credentials()
        assert isinstance(await invoker.invoke(CALL), Response)


# -- the end -----------------------------------------------------------------------------------------------------------


async def test_a_stop_closes_every_connection_also_of_clients_that_were_renewed(
    make: MakeInvoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewing_at_once(monkeypatch)
    async with ScriptedServer(reply(200, b"1")) as server:
        async with started(make(Aim(server.url))) as invoker:
            await asyncio.gather(*[invoker.invoke(CALL) for _ in range(4)])
            await invoker.renew_credentials()
            await invoker.invoke(CALL)
            assert server.connections
        await until(lambda: not server.connections)


async def test_a_stop_fails_the_calls_in_flight(make: MakeInvoker) -> None:
    async with ScriptedServer(silence) as server, started(make(Aim(server.url))) as invoker:
        call = asyncio.create_task(invoker.invoke(CALL))
        await until(lambda: bool(server.requests))
        await invoker.stop()
        async with asyncio.timeout(10):
            failure = await call
        assert isinstance(failure, Failure)
        assert failure.transport is Transport.RESET


async def test_after_a_stop_nothing_is_opened_any_more(make: MakeInvoker, monkeypatch: pytest.MonkeyPatch) -> None:
    renewing_at_once(monkeypatch)
    async with ScriptedServer(reply(200, b"1")) as server, started(make(Aim(server.url))) as invoker:
        await invoker.invoke(CALL)
        await asyncio.gather(invoker.renew_credentials(), invoker.stop(), invoker.renew_credentials())
        failure = await invoker.invoke(CALL)
        assert isinstance(failure, Failure)
        assert failure.transport is Transport.RESET
        assert len(server.requests) == 1
        await until(lambda: not server.connections)
