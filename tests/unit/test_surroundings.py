"""What the AWS SDK takes from the environment, and cannot work with: said before anything starts, by the name to mend."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from connector.endpoint.sdk import SdkInvoker
from connector.errors import SettingsError
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path

GOOD = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.upper().startswith(("AWS_", "HTTP_", "HTTPS_", "REQUESTS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


def made(*, region: str | None = "eu-west-1", url: str | None = GOOD) -> SdkInvoker:
    return SdkInvoker(region=region, url=url, max_in_flight=1, connect_timeout=1.0, read_timeout=1.0)


def test_nothing_is_wrong_with_an_empty_environment() -> None:
    assert made(url=None)


@pytest.mark.parametrize(
    "url",
    [
        "http://local_endpoint:8080",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:0",
        "http://127.0.0.1:port",
        "http://-a.example.com",
        "ftp://example.com",
        "http://exa mple.com",
        "example.com",
    ],
)
@pytest.mark.parametrize("name", ["endpoint.url", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"])
def test_an_address_that_the_sdk_cannot_use_is_said_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    if name != "endpoint.url":
        monkeypatch.setenv(name, url)
    with pytest.raises(SettingsError, match=f"^{name}: .*no address that the AWS SDK can use"):
        made(url=url if name == "endpoint.url" else None)


def test_an_address_of_the_sdks_own_configuration_is_said_too(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://local_endpoint:8080\n")
    with pytest.raises(SettingsError, match=r"^endpoint_url of the AWS SDK's configuration: "):
        made(url=None)


@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_bundle_of_authorities_that_is_none_is_said_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "bundle.pem"
    monkeypatch.setenv(name, str(file))
    with pytest.raises(SettingsError, match=f"^{name}: .*bundle.pem cannot be read: No such file"):
        made()
    file.write_text("not a certificate")
    with pytest.raises(SettingsError, match=f"^{name}: .*bundle.pem holds no certificate"):
        made()
    monkeypatch.setenv(name, str(Authority(tmp_path, "ours").file))
    assert made()


@pytest.mark.parametrize("proxy", ["http://me:swordfish@:3128", "http://me:swordfish@proxy:99999", "http://prox y:1"])
def test_a_proxy_that_is_no_address_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(SettingsError, match=r"^HTTPS_PROXY: ") as refused:
        made()
    assert "swordfish" not in str(refused.value)
    monkeypatch.setenv("HTTPS_PROXY", "proxy.internal:3128")
    assert made()


def test_a_region_is_needed_and_the_variable_that_looks_like_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"^endpoint\.region: is needed; set it, or AWS_DEFAULT_REGION"):
        made(region=None)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    with pytest.raises(SettingsError, match="AWS_REGION is set, but the SDK does not read it"):
        made(region=None)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert made(region=None)


@pytest.mark.parametrize("region", [None, "eu-west-1"])
def test_a_profile_that_does_not_exist_is_said_by_name(monkeypatch: pytest.MonkeyPatch, region: str | None) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match=r"^AWS_PROFILE: there is no profile nobody"):
        made(region=region)


def test_several_things_are_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", "/missing.pem")
    with pytest.raises(SettingsError) as refused:
        made(region=None, url="http://local_endpoint:8080")
    assert [line.split(":")[0] for line in str(refused.value).splitlines()] == [
        "endpoint.region",
        "endpoint.url",
        "AWS_CA_BUNDLE",
    ]
