"""SdkInvoker: makes calls through the AWS SDK (aioboto3), with one client for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError

from connector.call import Failure, Response, Transport
from connector.errors import StartupError

if TYPE_CHECKING:
    from connector.call import Call, Reply

_TRANSPORTS: tuple[tuple[tuple[type[BaseException], ...], Transport], ...] = (
    ((ReadTimeoutError, TimeoutError), Transport.READ_TIMEOUT),
    (
        (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, TokenRetrievalError),
        Transport.NO_CREDENTIALS,
    ),
    ((UnauthorizedSSOTokenError,), Transport.NO_CREDENTIALS),
    (
        (EndpointConnectionError, ConnectTimeoutError, SSLError, ProxyConnectionError, aiohttp.ClientConnectorError),
        Transport.CONNECT,
    ),
    ((ConnectionClosedError, ResponseStreamingError, IncompleteReadError, HTTPClientError), Transport.RESET),
    ((aiohttp.ClientError, ResponseParserError, OSError), Transport.RESET),
)
"""How the SDK's exceptions say that the transport failed; the first that fits counts."""

_RENEWAL_INTERVAL = 5.0
"""Seconds between two readings of the credentials, however many calls are refused."""


class SdkInvoker:
    """Makes calls through the AWS SDK; credentials and region come from its own chain.

    Raises StartupError when there is no region, or the SDK's own configuration is broken.
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
        self._region = region or _default_region()
        self._url = url
        self._config = Config(
            # Attempts are counted once, by the pipeline.
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=max_in_flight,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            tcp_keepalive=True,
        )
        # The SDK's read timeout starts again with every byte.
        self._limit = connect_timeout + read_timeout
        self._clients = contextlib.AsyncExitStack()
        self._client: Any = None
        self._renewed = time.monotonic()
        self._renewing = asyncio.Lock()

    async def start(self) -> None:
        """Make the client."""
        session = aioboto3.Session(region_name=self._region)
        self._client = await self._clients.enter_async_context(
            session.client("sagemaker-runtime", endpoint_url=self._url, config=self._config)
        )

    async def invoke(self, call: Call) -> Reply:
        """Make one call; every exception of the SDK becomes a Failure."""
        arguments = {"ContentType": call.content_type, "Accept": call.accept, **dict(call.route.members)}
        try:
            async with asyncio.timeout(self._limit):
                answer = await self._client.invoke_endpoint(
                    EndpointName=call.route.endpoint, InferenceId=call.inference_id, Body=call.body, **arguments
                )
                async with answer["Body"] as stream:
                    body = await stream.read()
        except ClientError as error:
            return _refusal(error, len(call.body))
        except ParamValidationError as error:
            return Failure(code="ValidationException", status=400, message=str(error), body_size=len(call.body))
        except Exception as error:  # noqa: BLE001 - whatever else the SDK raises, the events are not to blame
            return _transport_failure(error, len(call.body))
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
            if time.monotonic() - self._renewed > _RENEWAL_INTERVAL:
                self._renewed = time.monotonic()
                # Calls in flight still use the old client, which ends with the process.
                with contextlib.suppress(BotoCoreError):
                    await self.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self._clients.aclose()


def _default_region() -> str:
    try:
        region = aioboto3.Session().region_name
    except BotoCoreError as error:
        raise StartupError(f"the AWS SDK cannot start: {error}") from None
    if region is None:
        raise StartupError("no AWS region is known: set endpoint.region, or AWS_REGION in the environment")
    return str(region)


def _refusal(error: ClientError, size: int) -> Failure:
    """The service's error, with ModelError's own members."""
    response: Any = error.response
    details = response.get("Error", {})
    original = response.get("OriginalStatusCode")
    return Failure(
        code=details.get("Code"),
        status=response.get("ResponseMetadata", {}).get("HTTPStatusCode"),
        message=details.get("Message"),
        original_status=int(original) if original is not None else None,
        original_message=response.get("OriginalMessage"),
        log_stream=response.get("LogStreamArn"),
        body_size=size,
    )


def _transport_failure(error: Exception, size: int) -> Failure:
    for types, transport in _TRANSPORTS:
        if isinstance(error, types):
            return Failure(transport=transport, message=str(error) or type(error).__name__, body_size=size)
    return Failure(transport=Transport.RESET, message=f"{type(error).__name__}: {error}", body_size=size)
