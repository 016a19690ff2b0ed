"""Reason: why a call or an event ended as it did, what that means, and what a person can do about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

_NOTHING: Final = "Nothing."
_PRODUCERS: Final = "Look at what is produced to the input topic, and at request.format."
_HEADERS: Final = "Look at the headers that are produced, and at those that the endpoint settings name."
_MODEL: Final = "Look at the model's deployment, and at its container's log."


class Reason(StrEnum):
    """Why an outcome is what it is: a label of metrics, and the `inference-error` of a dead letter."""

    meaning: str
    """The reason in a sentence."""
    remedy: str
    """What a person can do when it lasts, in a sentence."""

    def __new__(cls, value: str, meaning: str, remedy: str) -> Reason:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member

    OK = "ok", "The endpoint gave one prediction for each event.", _NOTHING
    THROTTLED = (
        "throttled",
        "The service takes fewer calls than it gets.",
        "Give the endpoint more instances or a higher quota, or lower concurrency.max_in_flight.",
    )
    MODEL_NOT_READY = (
        "model_not_ready",
        "The model is still being loaded, or its instances are still starting.",
        "Wait; when it lasts, look at the model's deployment, and at its container's log.",
    )
    CONTAINER_UNAVAILABLE = (
        "container_unavailable",
        "The model's container did not answer, or says it cannot answer now.",
        _MODEL,
    )
    REJECTED_BY_MODEL = "rejected_by_model", "The model's container says that the payload is wrong.", _MODEL
    MISCONFIGURED = (
        "misconfigured",
        "The service or the container does not know what the settings ask for.",
        "Look at the endpoint settings, and at whether what they name is deployed.",
    )
    MODEL_ERROR = "model_error", "The model's container failed while it worked on the body.", _MODEL
    SERVICE_UNAVAILABLE = (
        "service_unavailable",
        "The service failed, or could not be reached.",
        "Look at the network between here and the runtime API, at endpoint.region, and at endpoint.url.",
    )
    TOO_LARGE = (
        "too_large",
        "The body is larger than the service or the settings allow.",
        "Look at the size of what is produced, and at batch.max_bytes.",
    )
    TIMEOUT = "timeout", "No answer came within endpoint.read_timeout.", _MODEL
    CREDENTIALS = (
        "credentials",
        "The service does not accept the credentials or the signature of the call.",
        "Look at where the SDK gets its credentials from, and at the clock of this machine.",
    )
    ACCESS_DENIED = (
        "access_denied",
        "The credentials do not allow this call, or there are none.",
        "Give the role sagemaker:InvokeEndpoint on the endpoint, or the process credentials.",
    )
    REJECTED_ROUTE = "rejected_route", "The service does not know the route that the event's headers chose.", _HEADERS
    RESPONSE_MISMATCH = "response_mismatch", "The response is not one prediction for each event.", _MODEL
    UNDECODABLE = "undecodable", "The payload is not of the configured format.", _PRODUCERS
    EMPTY = "empty", "The event has no value, or an empty one.", _PRODUCERS
    INVALID_ROUTE = (
        "invalid_route",
        "A header of the event holds a value that its route member does not allow.",
        _HEADERS,
    )
    EXPIRED = (
        "expired",
        "The event is older than retry.max_age.",
        "Look at why events get so old, and at retry.max_age.",
    )
