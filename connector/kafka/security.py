"""Security towards Kafka: the settings as the options that every aiokafka client takes."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from connector.errors import SettingsError
from connector.kafka.tokens import ClientCredentials, MskIam, TokenFile
from connector.telemetry.log_events import LogEvent

if TYPE_CHECKING:
    from connector.kafka.tokens import TokenProvider
    from connector.settings import Security

_KEY = "kafka.security"


def client_options(security: Security) -> dict[str, Any]:
    """The keyword arguments for encryption and authentication of an aiokafka client.

    Reads every file, so that they hold what the files hold at this moment. Raises SettingsError when a file cannot be
    used, or the extra for AWS_MSK_IAM is missing.
    """
    security = security.read_again()
    options: dict[str, Any] = {"security_protocol": security.protocol}
    if security.protocol.endswith("SSL"):
        options["ssl_context"] = _broker_context(security)
    if security.mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
        options["sasl_mechanism"] = security.mechanism
        options["sasl_plain_username"] = security.username
        options["sasl_plain_password"] = security.password.get_secret_value() if security.password else None
    elif security.mechanism is not None:
        # MSK's IAM is OAUTHBEARER with a token that the client signs itself.
        options["sasl_mechanism"] = "OAUTHBEARER"
        options["sasl_oauth_token_provider"] = _token_provider(security)
    return options


class Renewal:
    """What a client proves itself with, read again when its files have changed since they were last read."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._read = _stamps(security)
        self._problem = ""
        self._log = structlog.get_logger("connector.security")

    def changed(self) -> dict[str, Any]:
        """The keyword arguments that `client_options` gives when a file has changed; nothing while none has.

        Nothing either while a file cannot be used: whoever replaces several may be halfway, and what was read before may
        still be good.
        """
        stamps = _stamps(self._security)
        if stamps == self._read:
            return {}
        try:
            options = client_options(self._security)
        except SettingsError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._log.warning(LogEvent.SECURITY_UNREADABLE, problem=self._problem)
            return {}
        self._read, self._problem = stamps, ""
        self._log.info(LogEvent.SECURITY_RENEWED)
        return options


def _stamps(security: Security) -> list[tuple[int, int] | None]:
    """What tells that a file is another one, or was written: a link is followed, since Kubernetes replaces links."""
    files = security.files
    system = ssl.get_default_verify_paths().cafile
    if security.protocol.endswith("SSL") and security.ca_file is None and system is not None:
        files.append(Path(system))
    return [_stamp(path) for path in files]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _token_provider(security: Security) -> TokenProvider:
    if security.mechanism == "AWS_MSK_IAM":
        if importlib.util.find_spec("aws_msk_iam_sasl_signer") is None:
            raise SettingsError(
                f"{_KEY}.mechanism: AWS_MSK_IAM needs the extra msk; install sagemaker-kafka-connector[msk]"
            )
        return MskIam(security.aws_region, security.aws_role_arn)
    if security.oauth_token_file is not None:
        return TokenFile(security.oauth_token_file)
    secret = security.oauth_client_secret
    if security.oauth_token_url is None or security.oauth_client_id is None or secret is None:
        raise SettingsError(f"{_KEY}.oauth_token_url: OAUTHBEARER needs it with a client, or oauth_token_file instead")
    context = ssl.create_default_context()
    if security.ca_file is not None:
        _trust(context, security.ca_file)
    return ClientCredentials(
        security.oauth_token_url,
        security.oauth_client_id,
        secret.get_secret_value(),
        scope=security.oauth_scope,
        context=context,
    )


def _broker_context(security: Security) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = security.check_hostname
    if security.ca_file is None:
        context.load_default_certs()
    else:
        _trust(context, security.ca_file)
    if security.cert_file is not None:
        _identify(context, security, security.cert_file)
    return context


def _trust(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise SettingsError(f"{_KEY}.ca_file: {path} holds no certificate in PEM") from None
    except OSError as error:
        raise SettingsError(f"{_KEY}.ca_file: {path} cannot be read: {error.strerror}") from None


def _identify(context: ssl.SSLContext, security: Security, certificate: Path) -> None:
    key = security.key_file or certificate
    key_name = "key_file" if security.key_file else "cert_file"

    def password() -> str:
        # Without a callback OpenSSL would ask for the password on the terminal.
        if security.key_password is None:
            raise SettingsError(f"{_KEY}.key_password: is missing; the key in {key} is encrypted")
        return security.key_password.get_secret_value()

    for name, path in (("cert_file", certificate), (key_name, key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsError(f"{_KEY}.{name}: {path} cannot be read: {error.strerror}") from None
    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"{_KEY}.{key_name}: the key in {key} is not the one of the certificate in {certificate}"
        elif security.key_password is not None:
            problem = (
                f"{_KEY}.{key_name}: {certificate} and {key} must hold a certificate and its key in PEM, and "
                f"{_KEY}.key_password must be the key's"
            )
        else:
            problem = f"{_KEY}.{key_name}: {certificate} and {key} must hold a certificate and its key in PEM"
        raise SettingsError(problem) from None
