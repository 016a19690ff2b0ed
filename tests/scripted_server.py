"""ScriptedServer: an HTTP server that answers what a test tells it to, also what no server should, and keeps what it got."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


@dataclass
class Request:
    """What came over the wire."""

    line: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]
"""Writes what it likes to the client."""


class ScriptedServer:
    """Hands each request to `answer`; an async context manager."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self._handling: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """The port of it."""
        return int(self._listener.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._handling)

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for task in self._handling:
            task.cancel()
        if self._handling:
            await asyncio.wait(self._handling)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handling.add(task)
        try:
            while line := (await reader.readline()).decode("latin-1").strip():
                headers = {}
                while header := (await reader.readline()).decode("latin-1").strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                request = Request(line, headers, await reader.readexactly(int(headers.get("content-length", 0))))
                self.requests.append(request)
                await self.answer(request, writer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._handling.discard(task)
            writer.close()


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
