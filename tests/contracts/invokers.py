"""Invokers: everything that implements the Protocol Invoker, and what a test needs to try one."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.loaders import create_loader

from connector.core.calls.call import Call
from connector.core.event import Route
from connector.endpoint import sdk
from connector.endpoint.sdk import SdkInvoker
from tests.scripted_server import ScriptedServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from connector.endpoint.invoker import Invoker
    from tests.scripted_server import Answer, Request

_LOADER = create_loader()
"""The SDK's data takes a quarter of a second to read."""
CALL = Call(Route("fraud"), "device 7", b"1,2\n3,4", "text/csv", "application/json")


@dataclass(frozen=True, slots=True)
class Aim:
    """What an invoker is made for; limits in seconds."""

    url: str
    region: str | None = "eu-west-1"
    connect_timeout: float = 5.0
    read_timeout: float = 20.0
    max_in_flight: int = 4


MakeInvoker = Callable[[Aim], "Invoker"]


def sdk_invoker(aim: Aim) -> SdkInvoker:
    """The invoker of the AWS SDK."""
    return SdkInvoker(
        region=aim.region,
        url=aim.url,
        max_in_flight=aim.max_in_flight,
        connect_timeout=aim.connect_timeout,
        read_timeout=aim.read_timeout,
    )


INVOKERS: dict[str, MakeInvoker] = {"sdk": sdk_invoker}


def with_credentials_of_our_own(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the environment hold credentials, and nothing of the machine's; `folder` is for the SDK's own files."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "http_", "https_", "HTTP_", "HTTPS_"))]:
        patch.delenv(name)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("AWS_CONFIG_FILE", str(folder / "config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    patch.setenv("AWS_ACCESS_KEY_ID", "AKIDFIRST")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    patch.setattr(sdk, "create_loader", lambda: _LOADER)


def renewing_at_once(patch: pytest.MonkeyPatch) -> None:
    """Let every renewal of credentials be one, however soon it comes after another."""
    patch.setattr(sdk, "_RENEWAL_INTERVAL", 0.0)


@asynccontextmanager
async def started(invoker: Invoker) -> AsyncIterator[Invoker]:
    """Start it, and stop it in the end."""
    await invoker.start()
    try:
        yield invoker
    finally:
        await invoker.stop()


async def ask(
    make: MakeInvoker,
    answer: Answer,
    call: Call = CALL,
    *,
    connect_timeout: float = 5.0,
    read_timeout: float = 20.0,
) -> tuple[Any, list[Request]]:
    """Make one call to a server; what came of it, and what the server got."""
    async with (
        ScriptedServer(answer) as server,
        started(make(Aim(server.url, connect_timeout=connect_timeout, read_timeout=read_timeout))) as invoker,
    ):
        return await invoker.invoke(call), server.requests
