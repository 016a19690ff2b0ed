"""Surroundings: what the AWS SDK takes from the environment and its own files, checked before anything starts.

What is wrong there is raised in the middle of a call otherwise, by whatever meets it first.
"""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import BotoCoreError, ProfileNotFound
from botocore.utils import is_valid_endpoint_url

from connector.core.redaction import redacted
from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiobotocore.session import AioSession

_SERVICE = "sagemaker-runtime"
_BUNDLES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE")
_ADDRESSES = ("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", "AWS_ENDPOINT_URL")


def region_of(core: AioSession, region: str | None) -> str | None:
    """The region of the endpoint: `endpoint.region`, or what the SDK's own chain says."""
    found: str | None = region or core.get_config_variable("region")
    return found


def check(core: AioSession, *, region: str | None, url: str | None) -> None:
    """Raise SettingsError with a sentence for each thing that no call could work with.

    `region` and `url` are those of the section `endpoint`.
    """
    try:
        core.get_scoped_config()
    except ProfileNotFound:
        raise SettingsError(
            f"AWS_PROFILE: there is no profile {os.environ.get('AWS_PROFILE', '')} in the AWS SDK's configuration"
        ) from None
    except BotoCoreError as error:
        raise SettingsError(f"the AWS SDK's configuration cannot be read: {error}") from None
    problems = [*_region(core, region), *_address(core, url), *_authorities(core), *_proxy()]
    if problems:
        raise SettingsError("\n".join(problems))


def usable(url: str) -> bool:
    """Whether the SDK takes this for the address of a service: its own rule, and a port that exists."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and parts.port != 0 and bool(is_valid_endpoint_url(url))
    except ValueError:
        return False


def _region(core: AioSession, region: str | None) -> Iterator[str]:
    if region_of(core, region) is None:
        hint = "; AWS_REGION is set, but the SDK does not read it" if os.environ.get("AWS_REGION") else ""
        yield f"endpoint.region: is needed; set it, or AWS_DEFAULT_REGION in the environment{hint}"


def _address(core: AioSession, url: str | None) -> Iterator[str]:
    """The address that is called, where it is not the region's own."""
    where, address = "endpoint.url", url
    if address is None:
        address = ConfiguredEndpointProvider(
            full_config=core.full_config, scoped_config=core.get_scoped_config(), client_name=_SERVICE
        ).provide()
        where = next(filter(os.environ.get, _ADDRESSES), "endpoint_url of the AWS SDK's configuration")
    if address is not None and not usable(address):
        yield (
            f"{where}: {redacted(address)} is no address that the AWS SDK can use; it must be like "
            "https://host or http://host:8080, without underscores in the host"
        )


def _authorities(core: AioSession) -> Iterator[str]:
    """The files of authorities that the SDK would trust."""
    file = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not file:
        return
    where = next(filter(os.environ.get, _BUNDLES), "ca_bundle of the AWS SDK's configuration")
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        yield f"{where}: {file} holds no certificate in PEM"
    except OSError as error:
        yield f"{where}: {file} cannot be read: {error.strerror}"


def _proxy() -> Iterator[str]:
    """The proxy that calls would go through."""
    proxy = getproxies().get("https")
    if proxy and not usable(proxy if "//" in proxy else f"http://{proxy}"):
        yield f"HTTPS_PROXY: {redacted(proxy)} is no address of a proxy; it must be like http://user:password@host:3128"
