"""The SDK invoker against anyone: whatever a server answers, a call ends in a reply that the outcome table takes."""

from __future__ import annotations

import asyncio
import gzip
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from connector.core.calls import outcome as outcomes
from connector.core.calls.call import Failure, Response, Transport
from connector.core.calls.outcome import Kind
from tests.contracts.invokers import CALL, Aim, sdk_invoker, started, with_credentials_of_our_own
from tests.scripted_server import ScriptedServer, reply

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from connector.core.calls.call import Reply
    from connector.endpoint.invoker import Invoker

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=10),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=3,
)
ERRORS = st.dictionaries(
    st.sampled_from(
        ["code", "Code", "__type", "message", "Message", "OriginalStatusCode", "OriginalMessage", "LogStreamArn"]
    ),
    DOCUMENTS,
    max_size=4,
).map(lambda document: json.dumps(document).encode())
BODIES = (
    ERRORS
    | DOCUMENTS.map(lambda document: json.dumps(document).encode())
    | st.binary(max_size=30)
    | st.sampled_from(
        [
            b"[" * 5000,
            b"\xef\xbb\xbf{}",
            b'{"OriginalStatusCode":' + b"9" * 5000 + b"}",
            b'{"OriginalStatusCode":400,"OriginalStatusCode":"x"}',
            b"<html>503</html>",
            gzip.compress(b"{}"),
            b"\x1f\x8b\x08\x00not really",
        ]
    )
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "Content-Type",
                "Content-Encoding",
                "Content-Length",
                "Transfer-Encoding",
                "Location",
                "Connection",
                "x-amzn-ErrorType",
                "x-Amzn-Invoked-Production-Variant",
                "X-Amzn-SageMaker-Custom-Attributes",
                "X-Amzn-SageMaker-New-Session-Id",
                "X-Amzn-SageMaker-Closed-Session-Id",
            ]
        ),
        st.sampled_from(
            ["ModelError", "ModelError:http://x", "gzip", "chunked", "0", "-1", "application/json", ":", "#"]
        )
        | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=10),
    ),
    max_size=3,
).map(lambda pairs: [f"{name}: {value}" for name, value in pairs])


class Asked:
    """An invoker and its server, on a loop that outlives an example: a start costs more than a hundred calls."""

    def __init__(self, runner: asyncio.Runner, invoker: Invoker, server: ScriptedServer) -> None:
        self._runner = runner
        self._invoker = invoker
        self._server = server

    def reply_to(self, status: int, body: bytes, headers: list[str]) -> Reply:
        """What a call ends in when the server answers this, and says no more."""
        self._server.answer = reply(status, body, *headers, length=len(body))
        return self._runner.run(self._invoker.invoke(CALL))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Asked]:
    """One for all examples of a test."""
    with_credentials_of_our_own(monkeypatch, tmp_path)
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        server = runner.run(stack.enter_async_context(ScriptedServer(reply(200, b""))))
        aim = Aim(server.url, connect_timeout=2.0, read_timeout=2.0)
        invoker = runner.run(stack.enter_async_context(started(sdk_invoker(aim))))
        try:
            yield Asked(runner, invoker, server)
        finally:
            runner.run(stack.aclose())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([200, 204, 301, 307, 400, 403, 413, 424, 429, 500, 503, 530, 999]),
    body=BODIES,
    headers=HEADERS,
)
@example(status=400, body=b'{"code":5}', headers=[])
@example(status=424, body=b'{"OriginalStatusCode":"x"}', headers=["x-amzn-ErrorType: ModelError"])
@example(status=424, body=b'{"OriginalStatusCode":Infinity}', headers=["x-amzn-ErrorType: ModelError"])
@example(status=424, body=b'{"OriginalStatusCode":[1]}', headers=["x-amzn-ErrorType: ModelError"])
def test_whatever_a_server_answers_is_a_reply_with_an_outcome(
    asked: Asked, status: int, body: bytes, headers: list[str]
) -> None:
    answer = asked.reply_to(status, body, headers)
    if isinstance(answer, Response):
        assert status < 300
        assert isinstance(answer.body, bytes)
        return
    assert isinstance(answer, Failure)
    assert answer.transport in (None, Transport.RESET, Transport.READ_TIMEOUT)
    outcome = outcomes.decide(
        answer, rows=1, attempts={}, succeeded_meanwhile=True, from_headers=True, dead_letter_timeouts=True
    )
    assert outcome.kind is not Kind.OK
