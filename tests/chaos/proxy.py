"""Proxy: a TCP link that can be slow, silent or broken, between a process and what it connects to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Self

from tests.ports import free_port

if TYPE_CHECKING:
    from types import TracebackType

_HOST = "127.0.0.1"
_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that makes close() send a reset."""


class _Connection:
    """One connection through the proxy: the sockets of both sides, and the tasks that copy between them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.forgotten = asyncio.Event()
        self.sides = [writer]
        self.task: asyncio.Task[None] | None = None

    def reset(self) -> None:
        """End both sides at once, as a router does that has no place for them."""
        for side in self.sides:
            if (raw := side.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.transport.abort()


class Proxy:
    """Passes connections at `port` on to `upstream`, a port, both on 127.0.0.1; an async context manager.

    What is dropped is late, never lost: TCP sends again what was not acknowledged, so a stream that goes on after a
    silence has no holes, and what a client wrote before it gave a connection up may arrive long after.
    """

    def __init__(self, upstream: int, port: int | None = None) -> None:
        self.upstream = upstream
        self.port = port if port is not None else free_port()
        self.connections = 0
        """How many were accepted so far."""
        self._open: set[_Connection] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._delay = 0.0
        self._refusing = False

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accept, _HOST, self.port)

    async def close(self) -> None:
        """Listen no more, and reset what is open."""
        self._server.close()
        tasks = [connection.task for connection in self._open if connection.task is not None]
        self._reset_all()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def delay(self, seconds: float) -> None:
        """Let everything take `seconds` longer, in each direction."""
        self._delay = seconds

    def drop(self) -> None:
        """Pass nothing on in either direction; what is open stays open, and so does what connects meanwhile."""
        self._passing.clear()

    def cut(self) -> None:
        """Reset what is open, and whatever connects."""
        self._refusing = True
        self._reset_all()

    def forget(self) -> None:
        """Pass nothing on over what is open, ever, as a firewall that has lost its table; what connects later is passed."""
        for connection in self._open:
            connection.forgotten.set()

    def restore(self) -> None:
        """Be a good link: what waited is passed on, and connections are accepted."""
        self._delay = 0.0
        self._refusing = False
        self._passing.set()

    def _reset_all(self) -> None:
        for connection in self._open:
            connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(reader, writer)
        self.connections += 1
        if self._refusing:
            connection.reset()
            return
        connection.task = asyncio.current_task()
        self._open.add(connection)
        try:
            await self._passing.wait()
            onward = await asyncio.open_connection(_HOST, self.upstream)
            connection.sides.append(onward[1])
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._copy(connection, reader, onward[1]))
                tasks.create_task(self._copy(connection, onward[0], writer))
        except* (OSError, asyncio.CancelledError):
            # Cancelled by `close`; letting it through would make the server log it.
            pass
        finally:
            connection.reset()
            self._open.discard(connection)

    async def _copy(self, connection: _Connection, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(_CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._passing.wait()
            if connection.forgotten.is_set():
                continue
            sink.write(chunk)
            await sink.drain()
        await self._passing.wait()
        if not connection.forgotten.is_set() and sink.can_write_eof():
            sink.write_eof()
