"""The SDK invoker beyond what every invoker keeps to: its clients, and what it takes from the SDK's own chain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from connector.core.calls.call import Call, Failure, Response
from connector.core.event import Route
from connector.endpoint.sdk import SdkInvoker
from tests.contracts.invokers import (
    CALL,
    Aim,
    renewing_at_once,
    sdk_invoker,
    started,
    with_credentials_of_our_own,
)
from tests.scripted_server import ScriptedServer, reply

if TYPE_CHECKING:
    from pathlib import Path

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_credentials_of_our_own(monkeypatch, tmp_path)


async def test_a_member_that_the_sdk_refuses_is_an_error_of_the_route_not_an_exception() -> None:
    call = Call(Route("fraud", (("NoSuch", "1"),)), "a", b"1", "a/b", "a/b")
    async with ScriptedServer(reply(200, b"1")) as server, started(sdk_invoker(Aim(server.url))) as invoker:
        failure = await invoker.invoke(call)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.status) == ("ValidationException", 400)
    assert "NoSuch" in (failure.message or "")
    assert not server.requests


async def test_half_of_the_credentials_are_none_and_the_missing_half_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with started(sdk_invoker(Aim(NOBODY))) as invoker:
        failure = await invoker.invoke(CALL)
    assert isinstance(failure, Failure)
    assert "AWS_SECRET_ACCESS_KEY" in (failure.message or "")


async def test_many_refused_calls_renew_credentials_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0

    async def start(self: SdkInvoker) -> None:
        nonlocal made
        made += 1

    invoker = sdk_invoker(Aim(NOBODY))
    async with started(invoker):
        monkeypatch.setattr(SdkInvoker, "start", start)
        await asyncio.gather(*[invoker.renew_credentials() for _ in range(20)])
        assert made == 0, "the client was made a moment ago"
        invoker._renewed -= 6.0
        await asyncio.gather(*[invoker.renew_credentials() for _ in range(20)])
        assert made == 1


async def test_clients_that_no_call_can_use_any_more_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    renewing_at_once(monkeypatch)
    invoker = sdk_invoker(Aim(NOBODY, connect_timeout=0.01, read_timeout=0.01))
    async with started(invoker):
        for _ in range(4):
            await invoker.renew_credentials()
            await asyncio.sleep(0.03)  # longer than a call may last
        assert len(invoker._clients) <= 2
    assert not invoker._clients


async def test_a_renewal_that_fails_keeps_the_client_that_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    renewing_at_once(monkeypatch)
    async with ScriptedServer(reply(200, b"1")) as server, started(sdk_invoker(Aim(server.url))) as invoker:
        (tmp_path / "config").write_text("[default\n")
        await invoker.renew_credentials()
        assert isinstance(await invoker.invoke(CALL), Response)


async def test_the_region_may_come_from_the_sdks_own_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    async with (
        ScriptedServer(reply(200, b"1")) as server,
        started(sdk_invoker(Aim(server.url, region=None))) as invoker,
    ):
        await invoker.invoke(CALL)
    assert "/ap-south-1/" in server.requests[0].headers["authorization"]
