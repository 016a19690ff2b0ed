"""The policy for failed calls: every line of the table of outcomes, and what no failure can ever do."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.call import Failure, Transport
from connector.core.calls.outcome import (
    MESSAGE_BYTES,
    OK,
    Kind,
    Outcome,
    Rule,
    classify,
    cut,
    decide,
    mismatch,
    unanswerable,
)
from connector.core.reason import Reason
from connector.errors import MalformedResponse

MIB = 1024 * 1024
NEVER_DEAD_LETTERED = frozenset(
    {
        Reason.THROTTLED,
        Reason.MODEL_NOT_READY,
        Reason.CONTAINER_UNAVAILABLE,
        Reason.SERVICE_UNAVAILABLE,
        Reason.CREDENTIALS,
    }
)

RETRY, SPLIT, DEAD_LETTER, HALT = Kind.RETRY, Kind.SPLIT, Kind.DEAD_LETTER, Kind.HALT


def service(code: str | None, status: int | None, message: str | None = "What the service says.") -> Failure:
    return Failure(code=code, status=status, message=message)


def model_error(original_status: int | None) -> Failure:
    return Failure(
        code="ModelError",
        status=424,
        message='Received an error from primary with message "row: 4,8,15". See https://logs in account 1.',
        original_status=original_status,
        original_message="row: 4,8,15",
        log_stream="arn:aws:logs:eu-west-1:1:log-group:/aws/sagemaker/Endpoints/e",
    )


def transport(how: Transport, body_size: int = 100) -> Failure:
    return Failure(transport=how, message="What the transport says.", body_size=body_size)


def outcome(
    failure: Failure,
    *,
    rows: int = 8,
    failed_before: int = 0,
    succeeded_meanwhile: bool = False,
    from_headers: bool = False,
    dead_letter_timeouts: bool = False,
) -> Outcome:
    return decide(
        failure,
        rows=rows,
        attempts={classify(failure).reason: failed_before},
        succeeded_meanwhile=succeeded_meanwhile,
        from_headers=from_headers,
        dead_letter_timeouts=dead_letter_timeouts,
    )


SIZE_SENTENCES = (
    "Request 3f2b has oversize body.",
    "HTTP content length exceeded 6291456 bytes.",
    "Value at 'body' failed to satisfy constraint: Member must have length less than or equal to 6291456",
    "The payload is too large.",
)
ROUTE_SENTENCES = (
    "Endpoint fraud-payload does not serve models larger than 2 GB.",
    "Variant v2 of endpoint fraud not found.",
    "Value at 'customAttributes' failed to satisfy constraint: Member must have length less than or equal to 1024",
    "Session ID is not supported.",
)

ALWAYS: list[tuple[Failure, Reason, Kind, Kind]] = [
    # ThrottlingException, TooManyRequestsException, any 429 without code, 400 with null message and no type
    *[
        (service(code, 400), Reason.THROTTLED, RETRY, RETRY)
        for code in ("ThrottlingException", "Throttling", "ThrottledException", "TooManyRequestsException")
    ],
    (service("RequestLimitExceeded", 503), Reason.THROTTLED, RETRY, RETRY),
    (service("ThrottlingException", 400, None), Reason.THROTTLED, RETRY, RETRY),
    *[(service(code, 429, None), Reason.THROTTLED, RETRY, RETRY) for code in (None, "", "429", "Unknown")],
    *[
        (service(code, 400, message), Reason.THROTTLED, RETRY, RETRY)
        for code in (None, "", "400", "Unknown")
        for message in (None, "", " ")
    ],
    # ModelNotReadyException
    (service("ModelNotReadyException", 429), Reason.MODEL_NOT_READY, RETRY, RETRY),
    (
        service("ValidationError", 400, "Inference Component has no capacity to process this request. Wait."),
        Reason.MODEL_NOT_READY,
        RETRY,
        RETRY,
    ),
    # ModelError by OriginalStatusCode
    *[
        (model_error(status), Reason.CONTAINER_UNAVAILABLE, RETRY, RETRY)
        for status in (0, None, 408, 409, 425, 429, 502, 503, 504, 507)
    ],
    *[
        (model_error(status), Reason.REJECTED_BY_MODEL, SPLIT, DEAD_LETTER)
        for status in (400, 401, 403, 406, 413, 415, 422, 418, 499)
    ],
    *[(model_error(status), Reason.MISCONFIGURED, HALT, HALT) for status in (404, 405)],
    (Failure(status=424, original_status=400), Reason.REJECTED_BY_MODEL, SPLIT, DEAD_LETTER),
    (Failure(code="424", status=424), Reason.CONTAINER_UNAVAILABLE, RETRY, RETRY),
    # The service's own failures, and the network's
    *[
        (service(code, status), Reason.SERVICE_UNAVAILABLE, RETRY, RETRY)
        for code, status in (
            ("InternalFailure", 500),
            ("InternalServerException", 500),
            ("ServiceUnavailable", 503),
            ("ServiceUnavailableException", 503),
            ("InternalDependencyException", 530),
            ("InternalStreamFailure", 500),
            ("InternalFailure", 400),
            ("NobodyKnowsThisException", 500),
            ("500", 500),
            (None, 502),
            (None, 599),
        )
    ],
    (transport(Transport.CONNECT), Reason.SERVICE_UNAVAILABLE, RETRY, RETRY),
    (transport(Transport.CONNECT, 2 * MIB), Reason.SERVICE_UNAVAILABLE, RETRY, RETRY),
    (transport(Transport.RESET), Reason.SERVICE_UNAVAILABLE, RETRY, RETRY),
    (transport(Transport.RESET, MIB), Reason.SERVICE_UNAVAILABLE, RETRY, RETRY),
    # A reset while a body over 1 MiB was sent
    (transport(Transport.RESET, MIB + 1), Reason.SERVICE_UNAVAILABLE, SPLIT, RETRY),
    # 413, ValidationError about the body's size
    *[(service(code, 413), Reason.TOO_LARGE, SPLIT, DEAD_LETTER) for code in (None, "413", "Unknown")],
    (service("RequestEntityTooLargeException", 413), Reason.TOO_LARGE, SPLIT, DEAD_LETTER),
    *[
        (service(code, 400, sentence), Reason.TOO_LARGE, SPLIT, DEAD_LETTER)
        for code in ("ValidationError", "ValidationException", "400")
        for sentence in SIZE_SENTENCES
    ],
    # Credentials and access
    *[
        (service(code, 403), Reason.CREDENTIALS, RETRY, RETRY)
        for code in (
            "ExpiredToken",
            "ExpiredTokenException",
            "UnrecognizedClientException",
            "InvalidSignatureException",
            "SignatureDoesNotMatch",
            "IncompleteSignature",
            "IncompleteSignatureException",
            "RequestExpired",
            "InvalidClientTokenId",
            "MissingAuthenticationToken",
            "MissingAuthenticationTokenException",
        )
    ],
    *[
        (service(code, status), Reason.ACCESS_DENIED, HALT, HALT)
        for code, status in (("AccessDenied", 403), ("AccessDeniedException", 400), (None, 403))
    ],
    (transport(Transport.NO_CREDENTIALS), Reason.CREDENTIALS, HALT, HALT),
    # A redirect: the address is not the runtime API's
    (service(None, 301), Reason.MISCONFIGURED, HALT, HALT),
]


@pytest.mark.parametrize(("failure", "reason", "of_a_batch", "of_an_event"), ALWAYS)
def test_each_line_of_the_table_without_conditions(
    failure: Failure, reason: Reason, of_a_batch: Kind, of_an_event: Kind
) -> None:
    for rows, kind in ((2, of_a_batch), (256, of_a_batch), (1, of_an_event)):
        for failed_before, from_headers in product((0, 1, 1000), (False, True)):
            got = outcome(failure, rows=rows, failed_before=failed_before, from_headers=from_headers)
            assert (got.kind, got.reason) == (kind, reason)


@pytest.mark.parametrize("status", [500, 501, 505, 599, 200, 302, 999, -1])
def test_a_failing_model_is_retried_twice_then_split(status: int) -> None:
    kinds = [outcome(model_error(status), failed_before=n).kind for n in range(4)]
    assert kinds == [RETRY, RETRY, SPLIT, SPLIT]


def test_an_event_that_fails_the_model_is_a_dead_letter_only_once_another_was_answered() -> None:
    alone = [outcome(model_error(500), rows=1, failed_before=n).kind for n in (0, 1, 2, 1000)]
    assert alone == [RETRY, RETRY, RETRY, RETRY]
    proven = [outcome(model_error(500), rows=1, failed_before=n, succeeded_meanwhile=True).kind for n in (0, 1, 2)]
    assert proven == [RETRY, RETRY, DEAD_LETTER]
    assert outcome(model_error(500), rows=1, failed_before=2, succeeded_meanwhile=True).reason is Reason.MODEL_ERROR


def test_a_batch_that_times_out_three_times_is_split() -> None:
    failure = transport(Transport.READ_TIMEOUT)
    for final in (False, True):
        kinds = [outcome(failure, failed_before=n, dead_letter_timeouts=final).kind for n in range(4)]
        assert kinds == [RETRY, RETRY, SPLIT, SPLIT]


def test_an_event_that_times_out_is_retried_for_ever_unless_timeouts_are_dead_lettered() -> None:
    failure = transport(Transport.READ_TIMEOUT)
    kept = [outcome(failure, rows=1, failed_before=n, succeeded_meanwhile=True).kind for n in (0, 1, 2, 1000)]
    assert kept == [RETRY, RETRY, RETRY, RETRY]
    given_up = [outcome(failure, rows=1, failed_before=n, dead_letter_timeouts=True) for n in (0, 1, 2)]
    assert [one.kind for one in given_up] == [RETRY, RETRY, DEAD_LETTER]
    assert given_up[-1].reason is Reason.TIMEOUT


@pytest.mark.parametrize(
    "failure",
    [
        *[service("ValidationError", 400, sentence) for sentence in ROUTE_SENTENCES],
        service("ValidationException", 400),
        service("ValidationError", 400, None),
        service("400", 400),
        service("ResourceNotFoundException", 404),
        service("NobodyKnowsThisException", 418),
        service(None, 404),
    ],
)
def test_an_unknown_route_halts_when_the_settings_chose_it_and_blames_the_event_when_a_header_did(
    failure: Failure,
) -> None:
    for rows in (1, 8):
        halted = outcome(failure, rows=rows)
        assert (halted.kind, halted.reason) == (HALT, Reason.MISCONFIGURED)
    split = outcome(failure, from_headers=True)
    assert (split.kind, split.reason) == (SPLIT, Reason.REJECTED_ROUTE)
    dead = outcome(failure, rows=1, from_headers=True)
    assert (dead.kind, dead.reason) == (DEAD_LETTER, Reason.REJECTED_ROUTE)


@pytest.mark.parametrize("name", ["fraud", "payload-too-large-detector"])
def test_an_unknown_endpoint_halts_whatever_headers_chose_because_its_name_is_the_settings_own(name: str) -> None:
    for from_headers in (False, True):
        halted = outcome(
            service("ValidationError", 400, f"Endpoint {name} of account 1 not found."),
            rows=8,
            from_headers=from_headers,
        )
        assert (halted.kind, halted.reason) == (HALT, Reason.MISCONFIGURED)


def test_counts_of_other_reasons_do_not_count() -> None:
    got = decide(
        model_error(500),
        rows=8,
        attempts={Reason.THROTTLED: 50, Reason.TIMEOUT: 2},
        succeeded_meanwhile=True,
        from_headers=False,
        dead_letter_timeouts=True,
    )
    assert got.kind is RETRY


@pytest.mark.parametrize(
    "code",
    [
        "com.amazonaws.sagemaker#ThrottlingException",
        "ThrottlingException:http://internal.amazon.com/coral/com.amazonaws.sagemaker/",
        "com.amazonaws.sagemaker#ThrottlingException:http://internal.amazon.com/",
        " throttlingexception ",
    ],
)
def test_a_code_is_known_in_every_form_it_has_on_the_wire(code: str) -> None:
    assert classify(service(code, 400)).reason is Reason.THROTTLED


def test_a_response_with_another_count_is_split_until_one_event_is_left() -> None:
    error = MalformedResponse("3 predictions came back for 4 events.")
    split = mismatch(error, 4)
    assert (split.kind, split.reason, split.message) == (SPLIT, Reason.RESPONSE_MISMATCH, str(error))
    dead = mismatch("No prediction.", 1)
    assert (dead.kind, dead.reason, dead.message) == (DEAD_LETTER, Reason.RESPONSE_MISMATCH, "No prediction.")


def test_an_event_that_cannot_be_called_is_a_dead_letter_with_its_sentence() -> None:
    assert unanswerable(Reason.EMPTY, "No value.") == Outcome(DEAD_LETTER, Reason.EMPTY, "No value.")


def test_ok_is_ok() -> None:
    assert (OK.kind, OK.reason) == (Kind.OK, Reason.OK)


def test_what_a_container_says_reaches_the_dead_letter_and_never_the_message() -> None:
    got = outcome(model_error(400), rows=1)
    assert got.detail == "row: 4,8,15"
    assert got.message == "ModelError: The model's container answered 400."
    assert got.status == 400
    assert got.log_stream == "arn:aws:logs:eu-west-1:1:log-group:/aws/sagemaker/Endpoints/e"


@pytest.mark.parametrize("code", ["ModelError", "ModelStreamError", None, "424"])
def test_the_message_of_a_model_error_quotes_the_container_and_is_kept_out_too(code: str | None) -> None:
    got = outcome(Failure(code=code, status=424, message='message "row: 4,8,15"'))
    assert "4,8,15" not in got.message
    assert got.detail == 'message "row: 4,8,15"'


def test_what_the_service_says_is_the_message_on_one_line_with_its_code() -> None:
    got = outcome(service("ValidationError", 400, "Endpoint fraud\nof account 1   not found."))
    assert got.message == "ValidationError: Endpoint fraud of account 1 not found."
    assert (got.detail, got.status) == ("", 400)


def test_a_failure_without_a_message_says_what_its_reason_means() -> None:
    assert outcome(service("400", 400, None)).message == Reason.THROTTLED.meaning


def test_every_reason_is_a_label_with_a_sentence() -> None:
    for reason in Reason:
        assert reason.replace("_", "").islower()
        assert f"{reason}" == reason.name.lower()
        assert reason.meaning.endswith(".")
        assert reason.value == reason


numbers = st.one_of(
    st.none(), st.integers(), st.sampled_from([0, 200, 301, 400, 403, 404, 413, 424, 429, 500, 503, 530])
)
codes = st.one_of(
    st.none(),
    st.text(),
    st.sampled_from(
        [
            "ModelError",
            "ValidationError",
            "ThrottlingException",
            "AccessDenied",
            "Unknown",
            "400",
            "ExpiredToken",
            "#",
            ":",
        ]
    ),
)
messages = st.one_of(
    st.none(),
    st.text(st.characters()),
    st.sampled_from([*SIZE_SENTENCES, *ROUTE_SENTENCES, "é" * 5000, "\ud800" * 9999]),
)
failures = st.builds(
    Failure,
    code=codes,
    status=numbers,
    message=messages,
    transport=st.one_of(st.none(), st.sampled_from(Transport)),
    original_status=numbers,
    original_message=messages,
    log_stream=st.one_of(st.none(), st.text()),
    body_size=st.integers(min_value=0),
)
counts = st.dictionaries(st.sampled_from(Reason), st.integers(min_value=0, max_value=10**9))


@given(
    failure=failures,
    rows=st.integers(min_value=1, max_value=10**6),
    attempts=counts,
    succeeded_meanwhile=st.booleans(),
    from_headers=st.booleans(),
    dead_letter_timeouts=st.booleans(),
)
def test_no_failure_escapes_the_policy(
    failure: Failure,
    rows: int,
    attempts: dict[Reason, int],
    *,
    succeeded_meanwhile: bool,
    from_headers: bool,
    dead_letter_timeouts: bool,
) -> None:
    assert isinstance(classify(failure), Rule)
    got = decide(
        failure,
        rows=rows,
        attempts=attempts,
        succeeded_meanwhile=succeeded_meanwhile,
        from_headers=from_headers,
        dead_letter_timeouts=dead_letter_timeouts,
    )
    assert got.kind is not Kind.OK
    assert got.message
    assert len(got.message.encode()) <= MESSAGE_BYTES
    assert len(got.detail.encode()) <= MESSAGE_BYTES
    if got.kind is SPLIT:
        assert rows > 1, "a single event has no halves"
    if got.kind is DEAD_LETTER:
        assert rows == 1, "only a single event is known to be to blame"
        assert got.reason not in NEVER_DEAD_LETTERED


@given(
    st.sampled_from([row[0] for row in ALWAYS if row[1] in NEVER_DEAD_LETTERED and row[3] is RETRY]),
    st.integers(min_value=1, max_value=10**6),
    st.integers(min_value=0, max_value=10**9),
)
def test_a_transient_failure_never_dead_letters_at_any_attempt(failure: Failure, rows: int, failed_before: int) -> None:
    got = outcome(
        failure,
        rows=rows,
        failed_before=failed_before,
        succeeded_meanwhile=True,
        from_headers=True,
        dead_letter_timeouts=True,
    )
    large_reset = failure.transport is Transport.RESET and failure.body_size > MIB and rows > 1
    assert got.kind is (SPLIT if large_reset else RETRY)


@given(st.text(st.characters()), st.integers(min_value=0, max_value=50))
def test_a_cut_text_is_the_start_of_the_text_and_as_long_as_fits(text: str, limit: int) -> None:
    encoded = text.encode("utf-8", "replace")
    kept = cut(text, limit).encode()
    assert encoded.startswith(kept)
    assert len(kept) <= limit
    assert len(kept) == len(encoded) or limit - len(kept) < 4
