"""Credentials: what calls are signed with, read before a call, so that what is wrong with them is not laid to the call.

The SDK reads them in the middle of a request, from files, servers and STS, and raises whatever those raise: the same types
of errors as the request itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from connector.core.redaction import redacted

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

ERRORS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)
"""What the SDK raises about credentials and nothing else."""
LIMIT = 20.0
"""Seconds until a source of credentials counts as one that does not answer; STS is tried several times in them."""
_QUIET = 1.0
"""Seconds in which a source that failed is not asked again, however many calls want credentials."""
_TOKEN_FILE, _ROLE = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"
_CONTAINER = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
_CONTAINER_TOKEN_FILE = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105
_PARTS = {"access_key": "AWS_ACCESS_KEY_ID", "secret_key": "AWS_SECRET_ACCESS_KEY", "token": "AWS_SESSION_TOKEN"}
_LEGAL = re.compile(r"[A-Za-z0-9+/=_.~!@#$%^&*:;,?-]+")
_NOWHERE = (
    "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the process a role "
    f"({_TOKEN_FILE} and {_ROLE}, {_CONTAINER[0]}, or an instance profile)"
)


class Credentials:
    """The credentials of a session of the SDK, which finds them by its own chain and renews those that expire."""

    def __init__(self, core: AioSession) -> None:
        self._core = core
        self._failed_at = float("-inf")
        self._failure: str | None = None
        self._renewing = asyncio.Lock()

    async def problem(self) -> str | None:
        """Read them, or renew them when it is time; why there are none, in a sentence, None when all is well."""
        if (failure := self._recent_failure()) is not None:
            return failure
        found = await self._find()
        if isinstance(found, str):
            return self._failed(found)
        if not _must_be_renewed(found):
            return self._failed(await self._read(found))
        # All calls that wait for a renewal would ask for one themselves, one after the other, when it fails.
        async with self._renewing:
            return self._recent_failure() or self._failed(await self._read(found))

    def _recent_failure(self) -> str | None:
        return self._failure if time.monotonic() - self._failed_at < _QUIET else None

    def _failed(self, problem: str | None) -> str | None:
        if problem is not None:
            self._failure, self._failed_at = problem, time.monotonic()
        return problem

    async def _find(self) -> Any:
        """The SDK's object, which it keeps once it has found it, or what is wrong with the chain."""
        try:
            async with asyncio.timeout(LIMIT):
                return await self._core.get_credentials() or _NOWHERE
        except TimeoutError:
            return silence()
        except Exception as error:  # noqa: BLE001 - a chain of files, servers and commands raises what it likes
            return explain(error)

    async def _read(self, found: Any) -> str | None:
        try:
            async with asyncio.timeout(LIMIT):
                return _misspelt(await found.get_frozen_credentials(), found.method)
        except TimeoutError:
            return silence()
        except Exception as error:  # noqa: BLE001 - so does the renewal of what they gave
            return explain(error)


def _must_be_renewed(found: Any) -> bool:
    """Whether no call can be signed before a renewal; one that is merely advised goes on beside the calls."""
    needed = getattr(found, "refresh_needed", None)
    return needed is not None and bool(needed(found._mandatory_refresh_timeout))


def silence() -> str:
    """Say that where credentials come from does not answer."""
    return f"{_source()}: no answer within {LIMIT:.0f} s; it is asked again"


def explain(error: Exception) -> str:
    """Why the SDK has no credentials, with the variable or file that must be mended; shows no part of them."""
    if isinstance(error, OSError) and error.filename:
        return f"{_variable_of(str(error.filename))}{error.filename} cannot be read: {error.strerror}"
    if isinstance(error, NoCredentialsError):
        return _NOWHERE
    if isinstance(error, UnicodeDecodeError):
        return f"{_source()}: it is no text, and so no token"
    if isinstance(error, json.JSONDecodeError):
        return f"{_source()}: the answer of where they come from is no JSON"
    if isinstance(error, ParamValidationError) and "RoleArn" in str(error):
        return f"{_ROLE}: {os.environ.get(_ROLE)} is no ARN of a role"
    if isinstance(error, ParamValidationError):
        return f"{_source()}: STS would not take what it holds, which must be a token of 4 characters or more"
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        role = f" for {_ROLE} {os.environ[_ROLE]}" if _ROLE in os.environ else ""
        return redacted(
            f"{_source()}: {error.operation_name} is refused{role}: {said.get('Code')}: {said.get('Message')}"
        )
    return redacted(f"{_source()}: {_text(error)}")


def _text(error: Exception) -> str:
    """The error's own words where it has some; those of a KeyError are what an answer lacks."""
    return f"the answer has no {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__


def _misspelt(frozen: Any, method: str) -> str | None:
    """What no credentials can contain, such as the end of the line that they were copied with; a header cannot carry it."""
    for part, variable in _PARTS.items():
        value = getattr(frozen, part)
        if not value or _LEGAL.fullmatch(value):
            continue
        # Not as `NAME: sentence`: what follows the name of a credential and a colon is hidden wherever it is shown.
        where = variable if method == "env" else f"the credentials that the AWS SDK found ({method}), {part}"
        if value != value.strip():
            return f"{where} begins or ends with a blank or a line end; take it away"
        return f"{where} holds a character that is in no AWS credentials, such as a quote; write the value alone"
    return None


def _source() -> str:
    """What the SDK's chain takes credentials from in this environment, as far as variables say."""
    for name in (_TOKEN_FILE, *_CONTAINER):
        if name in os.environ:
            return f"{name} ({redacted(os.environ[name])})"
    return "the AWS SDK's credentials"


def _variable_of(filename: str) -> str:
    """The variable that names a file."""
    for name in (_TOKEN_FILE, _CONTAINER_TOKEN_FILE):
        if os.environ.get(name) == filename:
            return f"{name}: "
    return "the AWS SDK's credentials: "
