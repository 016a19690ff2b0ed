"""HttpSession: the HTTP client under the AWS SDK, which trusts nobody who cannot prove who he is.

aiobotocore's own checks no certificate at all behind a proxy, and nowhere the name in it; it follows redirects, the body
with it, and sends cookies back.
"""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore.httpsession import get_cert_path


class HttpSession(AIOHTTPSession):
    """Checks the chain and the name of every certificate, behind a proxy too; neither redirects nor cookies.

    `verify` is what the SDK's chain says of authorities: True for those that it brings, or the path of `AWS_CA_BUNDLE`.
    """

    def _create_connector(self, proxy_url: str | None) -> aiohttp.TCPConnector:
        # The same context serves an https proxy and what is behind it; aiohttp has no two.
        context = ssl.create_default_context(cafile=get_cert_path(self._verify or True))
        settings = self._proxy_config.settings if proxy_url else {}
        if authorities := settings.get("proxy_ca_bundle"):
            context.load_verify_locations(cafile=authorities)
        if client := settings.get("proxy_client_cert"):
            context.load_cert_chain(*((client,) if isinstance(client, str) else client))
        if self._cert_file:
            context.load_cert_chain(self._cert_file, self._key_file)
        return aiohttp.TCPConnector(limit=self._max_pool_connections, ssl=context, **self._connector_args)

    async def _get_session(self, proxy_url: str | None) -> Any:
        session = self._sessions.get(proxy_url)
        if session is None:
            client = aiohttp.ClientSession(
                connector=self._create_connector(proxy_url),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=_with_lookup(self._timeout),
                skip_auto_headers={"Content-Type"},
                auto_decompress=False,
            )
            session = self._sessions[proxy_url] = _WithoutRedirects(await self._exit_stack.enter_async_context(client))
        return session


def _with_lookup(timeout: aiohttp.ClientTimeout) -> aiohttp.ClientTimeout:
    """The same limits, with the one of connecting for the look-up of the name too: a name server can hang as well."""
    return aiohttp.ClientTimeout(
        connect=timeout.sock_connect, sock_connect=timeout.sock_connect, sock_read=timeout.sock_read
    )


class _WithoutRedirects:
    """A client that takes a redirect for the answer that it is: who follows it sends an event to somebody else."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self._client = client

    async def request(self, method: str, **arguments: Any) -> aiohttp.ClientResponse:
        """Make one request."""
        return await self._client.request(method, allow_redirects=False, **arguments)


class ClientConfig(AioConfig):
    """The SDK's configuration of clients; their HTTP client is ours, also after it was merged, as for STS."""

    def __init__(self, **options: Any) -> None:
        super().__init__(http_session_cls=HttpSession, **options)

    def merge(self, other_config: AioConfig) -> ClientConfig:
        """This configuration with what the other one says in its place."""
        return ClientConfig(**{**self._user_provided_options, **other_config._user_provided_options})
