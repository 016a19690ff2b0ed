"""The proxy: a link that is slow, silent, broken or forgetful, and good again."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from tests.chaos.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send each line back."""
    try:
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with Proxy(server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()


@asynccontextmanager
async def connected(proxy: Proxy) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def ask(streams: Streams, line: bytes = b"hello\n", limit: float = 5.0) -> bytes:
    reader, writer = streams
    writer.write(line)
    return await asyncio.wait_for(reader.readline(), limit)


async def test_a_good_link_passes_on_what_it_gets_in_both_directions(proxy: Proxy) -> None:
    async with connected(proxy) as one, connected(proxy) as other:
        assert await ask(one) == b"hello\n"
        assert await ask(other, b"x" * 60_000 + b"\n") == b"x" * 60_000 + b"\n"


async def test_a_delay_holds_each_direction(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        proxy.delay(0.5)
        started = time.monotonic()
        assert await ask(streams) == b"hello\n"
        assert time.monotonic() - started >= 1
        proxy.restore()
        started = time.monotonic()
        assert await ask(streams) == b"hello\n"
        assert time.monotonic() - started < 0.5


async def test_what_was_dropped_arrives_without_a_hole_when_the_link_is_back(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == b"hello\n"
        proxy.drop()
        with pytest.raises(TimeoutError):
            await ask(streams, b"first\n", 0.2)
        async with connected(proxy) as another:
            with pytest.raises(TimeoutError):
                await ask(another, b"second\n", 0.2)
            proxy.restore()
            assert await asyncio.wait_for(streams[0].readline(), 5) == b"first\n"
            assert await asyncio.wait_for(another[0].readline(), 5) == b"second\n"


async def test_a_cut_resets_what_is_open_and_what_connects(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == b"hello\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(streams[0].read(), 5)
    async with connected(proxy) as another:
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(another[0].read(), 5)
    proxy.restore()
    async with connected(proxy) as third:
        assert await ask(third) == b"hello\n"


async def test_a_forgotten_connection_stays_open_and_silent_while_others_are_passed_on(proxy: Proxy) -> None:
    async with connected(proxy) as streams:
        assert await ask(streams) == b"hello\n"
        proxy.forget()
        with pytest.raises(TimeoutError):
            await ask(streams, limit=0.2)
        async with connected(proxy) as another:
            assert await ask(another) == b"hello\n"
        proxy.restore()
        with pytest.raises(TimeoutError):
            await ask(streams, limit=0.2)
