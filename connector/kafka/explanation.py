"""Explanation: what an error of Kafka means, in words that a person can act on."""

from __future__ import annotations

import ssl
from collections.abc import Collection

from aiokafka import errors as kafka_errors

_LOGIN = (
    kafka_errors.SaslAuthenticationFailed,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
    kafka_errors.AuthenticationFailedError,
    kafka_errors.AuthenticationMethodNotSupported,
)
_ACCESS = (
    kafka_errors.TopicAuthorizationFailedError,
    kafka_errors.GroupAuthorizationFailedError,
    kafka_errors.ClusterAuthorizationFailedError,
    kafka_errors.TransactionalIdAuthorizationFailed,
)


def is_denial(error: BaseException) -> bool:
    """Whether Kafka was reached and does not let us in, or not do what we need."""
    return isinstance(error, _LOGIN + _ACCESS)


def explain(error: BaseException) -> str:
    """An error of Kafka, or of the way to it, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, kafka_errors.TopicAuthorizationFailedError):
        return f"access to topic {_names(error)} is denied"
    if isinstance(error, kafka_errors.GroupAuthorizationFailedError):
        return f"access to group {_names(error)} is denied: it needs READ"
    if isinstance(error, kafka_errors.TransactionalIdAuthorizationFailed):
        return f"access to transactional id {_names(error)} is denied: it needs WRITE and DESCRIBE"
    if isinstance(error, kafka_errors.ClusterAuthorizationFailedError):
        # Brokers give an id for idempotent sends to whoever may write to some topic, KIP-679.
        return "idempotent sends are denied: WRITE on the topic is missing"
    if isinstance(error, kafka_errors.UnsupportedSaslMechanismError):
        return "the broker does not take kafka.security.mechanism"
    if isinstance(error, _LOGIN):
        return f"the broker refuses the login: {_text(error)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the broker's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS fails: {error.reason or error}"
    if isinstance(error, kafka_errors.KafkaConnectionError | ConnectionError):
        # A broker that refuses a client's certificate says so after the handshake (TLS 1.3).
        return explain(error.__cause__) if isinstance(error.__cause__, ssl.SSLError) else "no broker takes a connection"
    return _text(error)


def _names(error: kafka_errors.KafkaError) -> str:
    about = error.args[0] if error.args else "(unnamed)"
    return ", ".join(sorted(about)) if isinstance(about, Collection) and not isinstance(about, str) else str(about)


def _text(error: BaseException) -> str:
    text = str(error.args[0]) if isinstance(error, kafka_errors.KafkaError) and error.args else str(error)
    return text if len(text) > 3 else type(error).__name__
