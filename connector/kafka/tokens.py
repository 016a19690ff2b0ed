"""Tokens: what a connection shows to a broker that authenticates with OAUTHBEARER.

aiokafka asks for a token each time a connection opens, and lives on only when a failure is a KafkaError: any other
exception ends its metadata task, and the client never recovers.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import aiohttp
import orjson
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

FETCH_LIMIT = 10.0
"""Seconds that a token may take to come; the shortest sensible `kafka.request_timeout` is as long."""
_USED_SHARE = 0.8
"""The share of a token's life after which another is fetched."""
_UNSTATED_LIFE = 60.0
"""Seconds that a token is kept when the server does not say how long it lives."""
_LONGEST_LIFE = 24 * 3600.0
"""Seconds after which another token is fetched, whatever the server says."""
_MSK_LIFE = 300.0
"""Seconds that an MSK token is kept. It is valid for 900, but not longer than the credentials that signed it, which
botocore renews no later than 10 minutes before they end."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
"""A bearer token (RFC 6750, section 2.1); a line break in one would break the message that carries it."""
_EXPLANATION = 300
"""Characters of a server's own words that are repeated."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and the seconds that it may be used from when it came."""

    text: str
    life: float


class TokenProvider(AbstractTokenProvider):
    """Keeps a token and fetches another before it ends; one fetch at a time, whoever asks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._token: Token | None = None
        self._fetched = 0.0

    async def token(self) -> str:
        """A token that is valid; raises AuthenticationFailedError with a sentence when there is none to be had."""
        async with self._one_at_a_time:
            kept, age = self._token, self._clock() - self._fetched
            if kept is not None and age < kept.life * _USED_SHARE:
                return kept.text
            try:
                return await self._renew()
            except AuthenticationFailedError:
                # The server may be away for a moment: what is still valid is still good.
                if kept is not None and age < kept.life:
                    return kept.text
                raise

    async def _renew(self) -> str:
        asked = self._clock()
        try:
            async with asyncio.timeout(FETCH_LIMIT):
                token = await self._fetch()
        except TimeoutError:
            raise _failure(f"{self._where()} gave no token within {FETCH_LIMIT:g}s") from None
        except AuthenticationFailedError:
            raise
        except Exception as error:
            raise _failure(f"{self._where()} gave no token: {type(error).__name__}: {error}") from error
        if not _TOKEN.fullmatch(token.text):
            raise _failure(f"{self._where()} gave something that is no bearer token")
        self._token, self._fetched = token, asked
        return token.text

    @abstractmethod
    async def _fetch(self) -> Token:
        """Get a token; raises AuthenticationFailedError with a sentence."""

    @abstractmethod
    def _where(self) -> str:
        """What gives the tokens, for a sentence."""


class ClientCredentials(TokenProvider):
    """Tokens of an OAuth server for a client's name and secret (RFC 6749, section 4.4)."""

    def __init__(
        self,
        url: str,
        client_id: str,
        secret: str,
        *,
        scope: str | None,
        context: ssl.SSLContext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(clock)
        self._url = url
        # RFC 6749, section 2.3.1: both are form-encoded before they become user and password.
        user = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
        self._headers = {"Authorization": f"Basic {base64.b64encode(user).decode()}", "Accept": "application/json"}
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._context = context

    async def _fetch(self) -> Token:
        try:
            # A redirect would carry the secret to another host.
            async with (
                aiohttp.ClientSession() as http,
                http.post(
                    self._url, data=self._form, headers=self._headers, ssl=self._context, allow_redirects=False
                ) as response,
            ):
                status, body = response.status, await response.read()
        except aiohttp.ClientError as error:
            raise _failure(f"{self._where()} cannot be reached: {error}") from None
        answer = _json_object(body)
        if status != 200:
            said = answer.get("error_description") or answer.get("error") or "no explanation"
            raise _failure(f"{self._where()} refused with status {status}: {str(said)[:_EXPLANATION]}")
        token = answer.get("access_token")
        if not isinstance(token, str):
            raise _failure(f"{self._where()} answered without an access_token")
        return Token(token, _life(answer.get("expires_in")))

    def _where(self) -> str:
        return f"the OAuth server {self._url} (kafka.security.oauth_token_url)"


class TokenFile(TokenProvider):
    """The token that a file holds; read for every connection, because Kubernetes replaces it before it ends."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def _fetch(self) -> Token:
        try:
            text = await asyncio.to_thread(self._path.read_text, encoding="utf-8")
        except OSError as error:
            raise _failure(f"{self._where()} cannot be read: {error.strerror}") from None
        return Token(text.strip(), 0.0)

    def _where(self) -> str:
        return f"the file {self._path} (kafka.security.oauth_token_file)"


class MskIam(TokenProvider):
    """Tokens that are signed with AWS credentials; Amazon MSK takes them for its IAM access control."""

    def __init__(self, region: str | None, role_arn: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(clock)
        self._region = region
        self._role_arn = role_arn

    async def _fetch(self) -> Token:
        return Token(await asyncio.to_thread(self._sign), _MSK_LIFE)

    def _sign(self) -> str:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider as signer  # noqa: N813
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.session import Session

        try:
            region = self._region or Session().get_config_variable("region")
            if not region:
                raise _failure(f"{self._where()} have no region; set kafka.security.aws_region")
            if self._role_arn:
                token, _ = signer.generate_auth_token_from_role_arn(region, self._role_arn)
            else:
                token, _ = signer.generate_auth_token(region)
        except (BotoCoreError, ClientError) as error:
            raise _failure(f"{self._where()} cannot sign a token: {error}") from None
        except AttributeError:
            # The signer reads the keys of credentials that are None where the SDK's chain found none.
            raise _failure(f"{self._where()} are missing: the SDK's chain found none") from None
        return str(token)

    def _where(self) -> str:
        return "the AWS credentials (kafka.security.mechanism: AWS_MSK_IAM)"


def _failure(sentence: str) -> Exception:
    failure: Exception = AuthenticationFailedError(sentence)
    return failure


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _life(expires_in: object) -> float:
    """Seconds that a token lives by the server's `expires_in`, which may be missing and which some write as text."""
    try:
        return min(max(0.0, float(str(expires_in))), _LONGEST_LIFE)
    except ValueError:
        return _UNSTATED_LIFE
