"""Reason: why a call or an event ended as it did."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an outcome is what it is: a label of metrics, and the `inference-error` of a dead letter."""

    meaning: str
    """The reason in a sentence."""

    def __new__(cls, value: str, meaning: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = "ok", "The endpoint gave one prediction for each event."
    THROTTLED = "throttled", "The service takes fewer calls than it gets."
    MODEL_NOT_READY = "model_not_ready", "The model is still being loaded, or its instances are still starting."
    CONTAINER_UNAVAILABLE = (
        "container_unavailable",
        "The model's container did not answer, or says it cannot answer now.",
    )
    REJECTED_BY_MODEL = "rejected_by_model", "The model's container says that the payload is wrong."
    MISCONFIGURED = "misconfigured", "The service or the container does not know what the settings ask for."
    MODEL_ERROR = "model_error", "The model's container failed while it worked on the body."
    SERVICE_UNAVAILABLE = "service_unavailable", "The service failed, or could not be reached."
    TOO_LARGE = "too_large", "The body is larger than the service or the settings allow."
    TIMEOUT = "timeout", "No answer came within endpoint.read_timeout."
    CREDENTIALS = "credentials", "The service does not accept the credentials or the signature of the call."
    ACCESS_DENIED = "access_denied", "The credentials do not allow this call, or there are none."
    REJECTED_ROUTE = "rejected_route", "The service does not know the route that the event's headers chose."
    RESPONSE_MISMATCH = "response_mismatch", "The response is not one prediction for each event."
    UNDECODABLE = "undecodable", "The payload is not of the configured format."
    EMPTY = "empty", "The event has no value, or an empty one."
    INVALID_ROUTE = "invalid_route", "A header of the event holds a value that its route member does not allow."
    EXPIRED = "expired", "The event is older than retry.max_age."
