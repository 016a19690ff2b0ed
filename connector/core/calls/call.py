"""Call: one InvokeEndpoint request, and what comes back of it: a Response or a Failure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from connector.core.event import Route


@dataclass(frozen=True, slots=True)
class Call:
    """One InvokeEndpoint request; `content_type` and `accept` are used where the route names none; shown without body."""

    route: Route
    inference_id: str
    body: bytes = field(repr=False)
    content_type: str
    accept: str


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of the endpoint with status 2xx; shown without body."""

    body: bytes = field(repr=False)
    content_type: str | None = None
    variant: str | None = None
    custom_attributes: str | None = None
    new_session: str | None = None
    closed_session: str | None = None


class Transport(Enum):
    """How a call failed without an answer of the service."""

    CONNECT = "connect"
    """DNS, TLS or connect error: nothing was sent."""
    RESET = "reset"
    """The connection was closed, or the response was truncated."""
    READ_TIMEOUT = "read_timeout"
    """No answer within `endpoint.read_timeout`."""
    NO_CREDENTIALS = "no_credentials"
    """The SDK's chain found no credentials, or none that can be used, so nothing was signed or sent."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that brought no prediction: the service's error as it came, or how the transport failed.

    `code` is the service's error code (`ModelError`), None when it gave none; `status` the HTTP status, None without an
    answer; `original_status`, `original_message` and `log_stream` are ModelError's own members; `body_size` the bytes sent.
    """

    code: str | None = None
    status: int | None = None
    message: str | None = None
    transport: Transport | None = None
    original_status: int | None = None
    original_message: str | None = None
    log_stream: str | None = None
    body_size: int = 0


Reply = Response | Failure
