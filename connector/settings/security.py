"""Security: how the connector proves itself to Kafka, and Kafka to the connector."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from connector.errors import SettingsError
from connector.settings.section import Secret, Section, Text, on_this_host, parts_of, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECRETS = ("password", "key_password", "oauth_client_secret")
_TLS_KEYS = ("ca_file", "cert_file", "key_file", "key_password")
_USER = frozenset({"username", "password"})
_CLIENT = frozenset({"oauth_token_url", "oauth_client_id", "oauth_client_secret"})
_OAUTH = _CLIENT | {"oauth_scope", "oauth_token_file"}
_MSK = frozenset({"aws_region", "aws_role_arn"})
_KEYS: dict[str | None, frozenset[str]] = {
    None: frozenset(),
    "PLAIN": _USER,
    "SCRAM-SHA-256": _USER,
    "SCRAM-SHA-512": _USER,
    "OAUTHBEARER": _OAUTH,
    "AWS_MSK_IAM": _MSK,
}


def _token_url(url: str) -> str:
    parts = parts_of(url)
    if not parts.hostname or parts.scheme not in ("http", "https"):
        raise ValueError("must be a URL like https://login.example.com/oauth2/token")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or a password; give oauth_client_id and oauth_client_secret")
    if parts.scheme == "http" and not on_this_host(parts.hostname):
        raise ValueError("would send the client secret in the clear; use https")
    return url


class Security(Section):
    """How the connector proves itself to Kafka, and Kafka to the connector."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="How connections to the brokers are encrypted (SSL) and authenticated (SASL)."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"] | None = Field(
        default=None, description="The way to authenticate, which the protocols SASL_SSL and SASL_PLAINTEXT need."
    )
    username: Text | None = Field(default=None, description="The user name for PLAIN and SCRAM.")
    password: Secret | None = Field(default=None, description="The password for PLAIN and SCRAM.")
    password_file: Path | None = Field(
        default=None, description="A file that holds the password; it takes the place of password."
    )
    ca_file: Path | None = Field(
        default=None,
        description="A PEM file with the certificate authorities that may sign the brokers' certificates; "
        "null trusts those of the system. The OAuth token server may be signed by either.",
    )
    cert_file: Path | None = Field(
        default=None,
        description="A PEM file with the client's certificate and its chain, for brokers that ask for one.",
    )
    key_file: Path | None = Field(
        default=None, description="A PEM file with the private key of cert_file; null when cert_file holds it too."
    )
    key_password: Secret | None = Field(default=None, description="The password of an encrypted private key.")
    key_password_file: Path | None = Field(
        default=None, description="A file that holds the key's password; it takes the place of key_password."
    )
    check_hostname: bool = Field(
        default=True, description="Whether a broker's certificate must be for the host name that was dialled."
    )
    oauth_token_url: Annotated[Text, AfterValidator(_token_url)] | None = Field(
        default=None,
        description="The OAuth server's token address, where OAUTHBEARER gets tokens by client credentials.",
    )
    oauth_client_id: Text | None = Field(default=None, description="The OAuth client's name.")
    oauth_client_secret: Secret | None = Field(default=None, description="The OAuth client's secret.")
    oauth_client_secret_file: Path | None = Field(
        default=None,
        description="A file that holds the OAuth client's secret; it takes the place of oauth_client_secret.",
    )
    oauth_scope: Text | None = Field(default=None, description="The scope to ask the OAuth server for.")
    oauth_token_file: Path | None = Field(
        default=None,
        description="A file that holds a token, read again for every connection, as Kubernetes mounts them; "
        "it takes the place of oauth_token_url.",
    )
    aws_region: Text | None = Field(
        default=None, description="The region of the MSK cluster for AWS_MSK_IAM; null takes the SDK's own."
    )
    aws_role_arn: Text | None = Field(
        default=None, description="The role to assume for AWS_MSK_IAM; null uses the SDK's own credentials."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secret_files(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        read = dict(given)
        for key in _SECRETS:
            path = given.get(f"{key}_file")
            if not isinstance(path, str | Path):
                continue
            if given.get(key) is not None:
                raise refusal(f"{key}: is given together with {key}_file; keep one of them")
            read[key] = _read_secret(f"{key}_file", Path(path))
        return read

    @property
    def files(self) -> list[Path]:
        """The files that are named, but for the token's, which is read for every connection."""
        named = ("ca_file", "cert_file", "key_file", *(f"{key}_file" for key in _SECRETS))
        return [path for key in named if (path := getattr(self, key)) is not None]

    def read_again(self) -> Self:
        """The same, with the secrets that their files hold at present; raises SettingsError when one cannot be read."""
        try:
            read = {
                key: SecretStr(_read_secret(f"{key}_file", path))
                for key in _SECRETS
                if (path := getattr(self, f"{key}_file")) is not None
            }
        except PydanticCustomError as error:
            raise SettingsError(f"kafka.security.{error.message()}") from None
        return self.model_copy(update=read)

    def broken(self) -> Iterator[str]:
        """Say which keys are missing, or have no effect, with the protocol and the mechanism."""
        sasl = self.protocol.startswith("SASL")
        if sasl and self.mechanism is None:
            known = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER or AWS_MSK_IAM"
            yield f"mechanism: is missing; protocol {self.protocol} needs one of {known}"
        elif self.mechanism is not None and not sasl:
            yield f"mechanism: {self.mechanism} has no effect with protocol {self.protocol}; use SASL_SSL, or remove it"
        else:
            if self.mechanism == "AWS_MSK_IAM" and self.protocol != "SASL_SSL":
                yield "protocol: must be SASL_SSL for AWS_MSK_IAM, which MSK offers over TLS only"
            yield from self._keys_of_another_mechanism()
            yield from self._missing_keys()
        yield from self._tls_keys()

    def _keys_of_another_mechanism(self) -> Iterator[str]:
        used = f"mechanism {self.mechanism}" if self.mechanism else f"protocol {self.protocol}"
        for key in sorted((_USER | _OAUTH | _MSK) - _KEYS[self.mechanism]):
            if getattr(self, key) is not None:
                yield f"{self._as_given(key)}: has no effect with {used}; remove it"

    def _missing_keys(self) -> Iterator[str]:
        if _KEYS[self.mechanism] is _USER:
            for key in sorted(_USER):
                if getattr(self, key) is None:
                    yield f"{key}: is missing; mechanism {self.mechanism} needs it"
        if self.mechanism != "OAUTHBEARER":
            return
        if self.oauth_token_file is None:
            for key in sorted(_CLIENT):
                if getattr(self, key) is None:
                    yield f"{key}: is missing; OAUTHBEARER needs it, or oauth_token_file instead"
        else:
            for key in sorted(_OAUTH - {"oauth_token_file"}):
                if getattr(self, key) is not None:
                    yield f"{self._as_given(key)}: has no effect beside oauth_token_file; keep one of them"

    def _tls_keys(self) -> Iterator[str]:
        if not self.protocol.endswith("SSL"):
            for key in _TLS_KEYS:
                if getattr(self, key) is not None:
                    yield f"{self._as_given(key)}: has no effect with protocol {self.protocol}; use SSL or SASL_SSL"
            if not self.check_hostname:
                yield f"check_hostname: has no effect with protocol {self.protocol}; use SSL or SASL_SSL"
        elif self.cert_file is None:
            for key in ("key_file", "key_password"):
                if getattr(self, key) is not None:
                    yield f"{self._as_given(key)}: has no effect without cert_file; give the client's certificate too"

    def _as_given(self, key: str) -> str:
        """The key that the user wrote: a secret may have come from its file."""
        return f"{key}_file" if getattr(self, f"{key}_file", None) is not None else key


def _read_secret(key: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise refusal(f"{key}: {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise refusal(f"{key}: {path} is no file of text in UTF-8") from None
    if not secret:
        raise refusal(f"{key}: {path} is empty")
    return secret
