"""SdkInvoker: makes calls through the AWS SDK (aioboto3), with one client for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from aiobotocore.session import get_session
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ParamValidationError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from connector.core.calls.call import Failure, Response, Transport
from connector.endpoint import credentials, surroundings
from connector.endpoint.credentials import Credentials
from connector.endpoint.http_session import ClientConfig

if TYPE_CHECKING:
    from connector.core.calls.call import Call, Reply

_TRANSPORTS: tuple[tuple[tuple[type[BaseException], ...], Transport], ...] = (
    ((ReadTimeoutError, TimeoutError), Transport.READ_TIMEOUT),
    (credentials.ERRORS, Transport.NO_CREDENTIALS),
    (
        (EndpointConnectionError, ConnectTimeoutError, SSLError, ProxyConnectionError, aiohttp.ClientConnectorError),
        Transport.CONNECT,
    ),
    ((ConnectionClosedError, ResponseStreamingError, IncompleteReadError, HTTPClientError), Transport.RESET),
    ((aiohttp.ClientError, ResponseParserError, OSError), Transport.RESET),
)
"""How the SDK's exceptions say that the transport failed; the first that fits counts."""

_OPERATION = "InvokeEndpoint"
"""What a call's own errors come from; the SDK may renew credentials in the middle of it."""
_RENEWAL_INTERVAL = 5.0
"""Seconds between two readings of the credentials, however many calls are refused."""


class SdkInvoker:
    """Makes calls through the AWS SDK; credentials and region come from its own chain.

    Raises SettingsError when the surroundings are such that no call could work (`surroundings`).
    """

    def __init__(
        self,
        *,
        region: str | None,
        url: str | None,
        max_in_flight: int,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        core = get_session()
        surroundings.check(core, region=region, url=url)
        self._region = surroundings.region_of(core, region)
        self._url = url
        self._config = ClientConfig(
            # Attempts are counted once, by the pipeline.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=max_in_flight,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            tcp_keepalive=True,
        )
        # The SDK's read timeout starts again with every byte.
        self._limit = connect_timeout + read_timeout
        self._clients: list[tuple[float, contextlib.AsyncExitStack]] = []
        # Every client has a session of its own; shared, what they read of the SDK's data is read and kept once.
        self._loader = create_loader()
        self._client: Any = None
        self._credentials: Credentials | None = None
        self._clientless = (Transport.NO_CREDENTIALS, "the client was not started")
        """How calls fail while there is no client, and why."""
        self._stopped = False
        self._renewed = time.monotonic()
        self._renewing = asyncio.Lock()

    async def start(self) -> None:
        """Make a client; where the SDK finds no usable credentials, calls fail until a renewal finds some."""
        try:
            async with asyncio.timeout(credentials.LIMIT):
                await self._open()
        except TimeoutError:
            self._clientless = (Transport.NO_CREDENTIALS, credentials.silence())
        except Exception as error:  # noqa: BLE001 - the chain of credentials raises what it likes
            self._clientless = (Transport.NO_CREDENTIALS, credentials.explain(error))

    async def _open(self) -> None:
        core = get_session()
        core.register_component("data_loader", self._loader)
        # For the clients that the SDK makes for itself, of STS and SSO.
        core.set_default_client_config(ClientConfig())
        session = aioboto3.Session(botocore_session=core, region_name=self._region)
        opened = contextlib.AsyncExitStack()
        self._client = await opened.enter_async_context(
            session.client("sagemaker-runtime", endpoint_url=self._url, config=self._config)
        )
        self._credentials = Credentials(core)
        self._clients.append((time.monotonic(), opened))

    async def invoke(self, call: Call) -> Reply:
        """Make one call; every exception of the SDK becomes a Failure."""
        size = len(call.body)
        if self._client is None or self._credentials is None:
            transport, message = self._clientless
            return Failure(transport=transport, message=message, body_size=size)
        problem = await self._credentials.problem()
        if problem is not None:
            return Failure(transport=Transport.NO_CREDENTIALS, message=problem, body_size=size)
        arguments = {"ContentType": call.content_type, "Accept": call.accept, **dict(call.route.members)}
        try:
            async with asyncio.timeout(self._limit):
                answer = await self._client.invoke_endpoint(
                    EndpointName=call.route.endpoint, InferenceId=call.inference_id, Body=call.body, **arguments
                )
                async with answer["Body"] as stream:
                    body = await stream.read()
        except ClientError as error:
            if error.operation_name != _OPERATION:
                return Failure(transport=Transport.NO_CREDENTIALS, message=credentials.explain(error), body_size=size)
            return _refusal(error, size)
        except ParamValidationError as error:
            return Failure(code="ValidationException", status=400, message=str(error), body_size=size)
        except Exception as error:  # noqa: BLE001 - whatever else the SDK raises, the events are not to blame
            return _transport_failure(error, size)
        return Response(
            body,
            content_type=answer.get("ContentType"),
            variant=answer.get("InvokedProductionVariant"),
            custom_attributes=answer.get("CustomAttributes"),
            new_session=answer.get("NewSessionId"),
            closed_session=answer.get("ClosedSessionId"),
        )

    async def renew_credentials(self) -> None:
        """Make another client, which reads the credentials anew, at most once in some seconds."""
        async with self._renewing:
            if not self._stopped and time.monotonic() - self._renewed > _RENEWAL_INTERVAL:
                self._renewed = time.monotonic()
                await self.start()
                # Calls in flight still use an old client, for as long as a call may last.
                while len(self._clients) > 1 and time.monotonic() - self._clients[1][0] > self._limit:
                    await self._clients.pop(0)[1].aclose()

    async def stop(self) -> None:
        """Close the connections; calls that come later fail."""
        # A client that is closed opens connections again for a call that comes later, and so would a renewal under way:
        # nobody would close them.
        async with self._renewing:
            self._stopped = True
            self._client, self._clientless = None, (Transport.RESET, "the client was stopped")
            while self._clients:
                await self._clients.pop()[1].aclose()


def _refusal(error: ClientError, size: int) -> Failure:
    """The service's error, with ModelError's own members."""
    response: Any = error.response
    details = response.get("Error", {})
    return Failure(
        code=_text(details.get("Code")),
        status=response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
        message=_text(details.get("Message")),
        original_status=_status(response.get("OriginalStatusCode")),
        original_message=_text(response.get("OriginalMessage")),
        log_stream=_text(response.get("LogStreamArn")),
        body_size=size,
    )


def _text(member: object) -> str | None:
    """A member as text: the SDK hands on whatever JSON a proxy may have put there."""
    return None if member is None else str(member)


def _status(member: object) -> int | None:
    """A member as an HTTP status, None where it is none."""
    try:
        status = int(member)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return status if 0 <= status < 1000 else None


def _transport_failure(error: Exception, size: int) -> Failure:
    if isinstance(error, ProxyConnectionError) and (refusal := _refusal_of(error)) is not None:
        return refusal
    if isinstance(error, EndpointConnectionError) and not _never_connected(error):
        return Failure(transport=Transport.RESET, message=str(error), body_size=size)
    if isinstance(error, SSLError) and "WRONG_VERSION_NUMBER" in str(error):
        address = error.kwargs.get("endpoint_url")
        message = f"what listens at {address} does not speak TLS: mend scheme or port in endpoint.url"
        return Failure(transport=Transport.CONNECT, message=message, body_size=size)
    for types, transport in _TRANSPORTS:
        if isinstance(error, types):
            return Failure(transport=transport, message=str(error) or type(error).__name__, body_size=size)
    return Failure(transport=Transport.RESET, message=f"{type(error).__name__}: {error}", body_size=size)


def _refusal_of(error: ProxyConnectionError) -> Failure | None:
    """What a proxy answered that was reached, and would not connect us; None when it was not reached."""
    cause = error.kwargs.get("error")
    if not isinstance(cause, aiohttp.ClientHttpProxyError):
        return None
    message = f"the proxy {error.kwargs.get('proxy_url')} answered {cause.status} {cause.message}"
    # Nothing was sent; only that we may not use it is more than a proxy that cannot do it at present.
    denied = cause.status in (401, 403, 407)
    return Failure(status=cause.status, message=message, transport=None if denied else Transport.CONNECT)


def _never_connected(error: EndpointConnectionError) -> bool:
    """The SDK has one exception for a connection that never came about and for one that broke while it was used."""
    cause = getattr(error, "kwargs", {}).get("error")
    return not isinstance(cause, aiohttp.ClientError) or isinstance(cause, aiohttp.ClientConnectorError)
