"""What faults do to a call and to its answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from connector.local.endpoint.model import ModelFailure, encode_rows
from connector.local.endpoint.service_error import model_error, scripted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from connector.local.endpoint.faults import Fault


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered; `headers` come on top of those that every answer has."""

    body: bytes
    content_type: str
    variant: str
    headers: Mapping[str, str]


async def fail(request: web.BaseRequest, fault: Fault, endpoint: str, variant: str) -> None:
    """Do what a fault asks for before the model is called; returns for faults that spoil its answer."""
    if fault.kind == "hang":
        await asyncio.sleep(86_400)
    if fault.kind == "reset":
        transport = request.transport
        if transport is not None:
            connection: socket.socket = transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST rather than FIN
            transport.abort()
        raise asyncio.CancelledError
    if fault.kind == "model_error":
        raise model_error(ModelFailure(fault.status, fault.message), endpoint, variant)
    error = scripted(fault, endpoint)
    if error is not None:
        raise error


def spoil(answer: Answer, fault: Fault, rows: int) -> Answer:
    """The answer that the client gets of a model that is broken; `rows` are those of the call."""
    if fault.kind == "garbage":
        return Answer(b"\xff\x00<garbage>", answer.content_type, answer.variant, answer.headers)
    if fault.kind == "wrong_rows":
        predictions = encode_rows(["0"] * max(rows + fault.rows, 0), answer.content_type)
        return Answer(predictions, answer.content_type, answer.variant, answer.headers)
    return answer


async def send_half(request: web.BaseRequest, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
    """Promise all of a body, send half of it, and close the connection."""
    response = web.StreamResponse(headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        request.transport.close()
    return response
