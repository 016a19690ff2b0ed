"""Outcome: what a call's end means for its events, and the policy that decides it.

The policy is data: a Rule for every kind of failure, found by the service's error code. SageMaker throttles with status
400, so a status decides only where there is no code that is known.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from connector.core.calls.call import Transport
from connector.core.reason import Reason
from connector.core.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from connector.core.calls.call import Failure
    from connector.errors import MalformedResponse

MESSAGE_BYTES: Final = 1024
"""The most bytes of UTF-8 that a message or a detail keeps."""
LARGE_BODY: Final = 1024 * 1024
"""A body of more bytes than this may be why the connection was reset: services close it on a body too large."""


class Kind(Enum):
    """What happens to the events of a call."""

    meaning: str
    """What happens, in a sentence."""

    def __new__(cls, value: str, meaning: str) -> Kind:
        member = object.__new__(cls)
        member._value_ = value
        member.meaning = meaning
        return member

    OK = "ok", "Each event has its result."
    RETRY = "retry", "The same batch is called again after a backoff, for as long as it takes."
    SPLIT = "split", "The halves of the batch are called apart, to find the events that are to blame."
    DEAD_LETTER = "dead_letter", "The event cannot be answered."
    HALT = "halt", "Consuming stops until settings or access are mended; the batch is kept."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call's end, or a check before it, means for its events.

    `message` is safe in logs; `detail` is what the container said, may echo payloads, and is for dead letters only;
    `status` is the container's where it gave one, else the service's; `log_stream` is the ARN of the container's log.
    """

    kind: Kind
    reason: Reason
    message: str = ""
    detail: str = ""
    status: int | None = None
    log_stream: str | None = None


OK: Final = Outcome(Kind.OK, Reason.OK)
"""The outcome of a call with as many predictions as events."""


class Proof(Enum):
    """What has to hold before a single event is dead-lettered; until then it is retried."""

    SUCCEEDED_MEANWHILE = "succeeded_meanwhile"
    """Another event of its route was answered, so it is not the model that is broken."""
    TIMEOUTS_ARE_FINAL = "timeouts_are_final"
    """`dead_letter.timeouts` is set."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the policy: `retries` times Retry, then `kind` for a batch and `single` for an event alone.

    `single` waits for its `proof`. `blames_headers` says that an event whose header chose the route is to blame.
    """

    reason: Reason
    kind: Kind
    single: Kind
    retries: int = 0
    proof: Proof | None = None
    blames_headers: bool = False


def _same(reason: Reason, kind: Kind, *, blames_headers: bool = False) -> Rule:
    return Rule(reason, kind, kind, blames_headers=blames_headers)


def _bisected(reason: Reason, *, retries: int = 0, proof: Proof | None = None) -> Rule:
    return Rule(reason, Kind.SPLIT, Kind.DEAD_LETTER, retries, proof)


THROTTLED: Final = _same(Reason.THROTTLED, Kind.RETRY)
MODEL_NOT_READY: Final = _same(Reason.MODEL_NOT_READY, Kind.RETRY)
CONTAINER_UNAVAILABLE: Final = _same(Reason.CONTAINER_UNAVAILABLE, Kind.RETRY)
SERVICE_UNAVAILABLE: Final = _same(Reason.SERVICE_UNAVAILABLE, Kind.RETRY)
CREDENTIALS: Final = _same(Reason.CREDENTIALS, Kind.RETRY)
NO_CREDENTIALS: Final = _same(Reason.CREDENTIALS, Kind.HALT)
ACCESS_DENIED: Final = _same(Reason.ACCESS_DENIED, Kind.HALT)
MISCONFIGURED: Final = _same(Reason.MISCONFIGURED, Kind.HALT)
UNKNOWN_ROUTE: Final = _same(Reason.MISCONFIGURED, Kind.HALT, blames_headers=True)
REJECTED_ROUTE: Final = _bisected(Reason.REJECTED_ROUTE)
REJECTED_BY_MODEL: Final = _bisected(Reason.REJECTED_BY_MODEL)
TOO_LARGE: Final = _bisected(Reason.TOO_LARGE)
RESPONSE_MISMATCH: Final = _bisected(Reason.RESPONSE_MISMATCH)
MODEL_ERROR: Final = _bisected(Reason.MODEL_ERROR, retries=2, proof=Proof.SUCCEEDED_MEANWHILE)
TIMEOUT: Final = _bisected(Reason.TIMEOUT, retries=2, proof=Proof.TIMEOUTS_ARE_FINAL)
RESET_WHILE_SENDING: Final = Rule(Reason.SERVICE_UNAVAILABLE, Kind.SPLIT, Kind.RETRY)


def _table(*rows: tuple[Rule, Iterable[str]]) -> Mapping[str, Rule]:
    return {code: rule for rule, codes in rows for code in codes}


_CONTAINER_CODES: Final = frozenset({"modelerror", "modelstreamerror"})
_VALIDATION_CODES: Final = frozenset({"validationerror", "validation"})
_CODES: Final = _table(
    (THROTTLED, ("throttling", "throttled", "toomanyrequests", "requestlimitexceeded", "requestthrottled", "slowdown")),
    (THROTTLED, ("limitexceeded", "bandwidthlimitexceeded", "provisionedthroughputexceeded")),
    (MODEL_NOT_READY, ("modelnotready",)),
    (SERVICE_UNAVAILABLE, ("internalfailure", "internalerror", "internalserver", "internalservererror")),
    (SERVICE_UNAVAILABLE, ("serviceunavailable", "internaldependency", "internalstreamfailure", "requesttimeout")),
    (TOO_LARGE, ("requestentitytoolarge", "requesttoolarge", "entitytoolarge", "payloadtoolarge")),
    (CREDENTIALS, ("expiredtoken", "tokenrefreshrequired", "invalidtoken", "missingauthenticationtoken")),
    (CREDENTIALS, ("unrecognizedclient", "invalidclienttokenid", "invalidaccesskeyid", "authfailure")),
    (CREDENTIALS, ("invalidsignature", "signaturedoesnotmatch", "incompletesignature")),
    (CREDENTIALS, ("requestexpired", "requesttimetooskewed")),
    (ACCESS_DENIED, ("accessdenied", "unauthorized", "unauthorizedoperation", "notauthorized", "optinrequired")),
    (UNKNOWN_ROUTE, (*_VALIDATION_CODES, "resourcenotfound")),
)
"""Error codes in lower case without "Exception": those of the runtime API's model, and those common to AWS services."""

_STATUSES: Final[Mapping[int, Rule]] = {
    401: ACCESS_DENIED,
    403: ACCESS_DENIED,
    407: ACCESS_DENIED,
    408: SERVICE_UNAVAILABLE,
    413: TOO_LARGE,
    429: THROTTLED,
}
"""Statuses that speak for themselves where no known code does: the service's, or those of a proxy in front of it."""

_CONTAINER_STATUSES: Final[Mapping[int, Rule]] = {
    **dict.fromkeys((0, 408, 409, 425, 429, 502, 503, 504, 507), CONTAINER_UNAVAILABLE),
    **dict.fromkeys((404, 405), MISCONFIGURED),
}
"""What a container's own status means, in a ModelError; other 4xx reject the payload, all else is a failing model."""

_TRANSPORTS: Final[Mapping[Transport, Rule]] = {
    Transport.CONNECT: SERVICE_UNAVAILABLE,
    Transport.RESET: SERVICE_UNAVAILABLE,
    Transport.READ_TIMEOUT: TIMEOUT,
    Transport.NO_CREDENTIALS: NO_CREDENTIALS,
}

_VALIDATION_MESSAGES: Final = (
    # "Request ... has oversize body.", "Value at 'body' failed to satisfy constraint: Member must have length less than
    # or equal to 6291456", "HTTP content length exceeded 5246976 bytes.". The words stand alone, so that an endpoint
    # whose name holds one of them is not taken for a body.
    (
        re.compile(
            r"oversized?\s+(?:body|payload|request)"
            r"|(?<![\w.-])(?:body|payload|content.length|request size)(?![\w.-])"
            r".*(?:exceed|too (?:large|big)|larger than|less than or equal)",
            re.IGNORECASE | re.DOTALL,
        ),
        TOO_LARGE,
    ),
    # "Endpoint fraud of account 123456789012 not found.": its name comes from the settings, never from a header.
    (re.compile(r"^\s*endpoint \S+ of account \d* ?not found", re.IGNORECASE), MISCONFIGURED),
    # "Inference Component has no capacity to process this request.": it is scaled to zero, and this call wakes it.
    (re.compile(r"has no capacity to process", re.IGNORECASE), MODEL_NOT_READY),
)
"""What a ValidationError can mean besides an unknown route: SageMaker has one code for all, and only the text tells."""


def classify(failure: Failure) -> Rule:
    """Find the rule for a failure: by how the transport failed, else by the error code, else by the exact status."""
    if failure.transport is not None:
        if failure.transport is Transport.RESET and failure.body_size > LARGE_BODY:
            return RESET_WHILE_SENDING
        return _TRANSPORTS[failure.transport]
    code = _plain(failure.code)
    status = failure.status
    if _from_container(failure):
        return _container_rule(failure.original_status)
    if code in _VALIDATION_CODES or (not code and status == 400):
        text = cut(failure.message or "")
        if not code and not text.strip():
            return THROTTLED  # how SageMaker throttles: status 400, a null message and no type
        for pattern, rule in _VALIDATION_MESSAGES:
            if pattern.search(text):
                return rule
    known = _CODES.get(code)
    if known is not None:
        return known
    if status is None or status < 300 or status >= 500:
        return SERVICE_UNAVAILABLE
    if status < 400:
        return MISCONFIGURED  # a redirect: endpoint.url is not the runtime API
    return _STATUSES.get(status, UNKNOWN_ROUTE)


def decide(
    failure: Failure,
    *,
    rows: int,
    attempts: Mapping[Reason, int],
    succeeded_meanwhile: bool,
    from_headers: bool,
    dead_letter_timeouts: bool,
) -> Outcome:
    """Decide what becomes of a batch of `rows` events whose call failed.

    `attempts` counts, by reason, how often this batch failed before, and a half inherits its batch's counts;
    `succeeded_meanwhile` says that another event of the route was answered since the first of these failures;
    `from_headers` that an event header chose a member of the route; `dead_letter_timeouts` is `dead_letter.timeouts`.
    """
    rule = classify(failure)
    if rule.blames_headers and from_headers:
        rule = REJECTED_ROUTE
    if attempts.get(rule.reason, 0) < rule.retries:
        kind = Kind.RETRY
    elif rows > 1:
        kind = rule.kind
    elif (rule.proof is Proof.SUCCEEDED_MEANWHILE and not succeeded_meanwhile) or (
        rule.proof is Proof.TIMEOUTS_ARE_FINAL and not dead_letter_timeouts
    ):
        kind = Kind.RETRY
    else:
        kind = rule.single
    container = _from_container(failure)
    return Outcome(
        kind,
        rule.reason,
        message=_sentence(failure, rule.reason),
        detail=redacted(cut(failure.original_message or failure.message or "")) if container else "",
        status=failure.status if failure.original_status is None else failure.original_status,
        log_stream=None if failure.log_stream is None else cut(failure.log_stream),
    )


def mismatch(error: MalformedResponse | str, rows: int) -> Outcome:
    """Decide what becomes of a batch of `rows` events whose response is not one prediction for each event."""
    kind = RESPONSE_MISMATCH.kind if rows > 1 else RESPONSE_MISMATCH.single
    return Outcome(kind, Reason.RESPONSE_MISMATCH, cut(str(error)))


def unanswerable(reason: Reason, message: str) -> Outcome:
    """The outcome of an event that is dead-lettered without a call, and the sentence that says why."""
    return Outcome(Kind.DEAD_LETTER, reason, cut(message))


def cut(text: str, limit: int = MESSAGE_BYTES) -> str:
    """Cut a text to at most `limit` bytes of UTF-8, between characters; what UTF-8 cannot hold becomes "?"."""
    return text[:limit].encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _plain(code: str | None) -> str:
    """Reduce an error code to the form that the table has, "" when it says nothing.

    The wire has `namespace#Code:uri` too, and botocore puts the status, or "Unknown", where there is no code.
    """
    if not code:
        return ""
    plain = code.split(":", 1)[0].rsplit("#", 1)[-1].strip().lower().removesuffix("exception")
    return "" if plain.isdigit() or plain == "unknown" else plain


def _from_container(failure: Failure) -> bool:
    """Say whether the model's container failed, and not the service; 424 is ModelError's status, and only its."""
    if failure.transport is not None:
        return False
    code = _plain(failure.code)
    return code in _CONTAINER_CODES or (not code and (failure.status == 424 or failure.original_status is not None))


def _container_rule(status: int | None) -> Rule:
    if status is None:
        return CONTAINER_UNAVAILABLE
    known = _CONTAINER_STATUSES.get(status)
    if known is not None:
        return known
    return REJECTED_BY_MODEL if 400 <= status < 500 else MODEL_ERROR


def _sentence(failure: Failure, reason: Reason) -> str:
    """Say on one line what came back, without credentials and without anything that the container said.

    Even ModelError's own message is left out: the service quotes the container in it.
    """
    if _from_container(failure):
        text = (
            f"The model's container answered {failure.original_status}." if failure.original_status else reason.meaning
        )
    else:
        text = redacted(cut(failure.message or "")).strip() or reason.meaning
    if _plain(failure.code):
        text = f"{failure.code}: {text}"
    return cut(" ".join(text.split()))
