"""What holds for the router."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, cast

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connector.core.epochs.ledger import Ledger
from connector.core.event import Event, Route
from connector.core.formats import format_named, names
from connector.core.reason import Reason
from connector.core.routes.members import RULES
from connector.core.routes.router import HeaderRef, Refusal, Router
from connector.errors import SettingsError

MAX_BYTES = 64
MEMBERS: dict[str, str | HeaderRef] = {
    "Accept": "text/csv",
    "TargetModel": HeaderRef("model"),
    "SessionId": HeaderRef("session"),
}
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["model", "session", "other"]),
        st.sampled_from([b"a.tar.gz", b"b.tar.gz", b"NEW_SESSION", b"", b"\xff", b"a\r\nb"]) | st.binary(),
    )
)


def event(value: bytes | None = b"1,2", headers: Sequence[tuple[str, bytes | None]] = ()) -> Event:
    return Event(
        ledger=Ledger("inference-requests", 0, 1),
        offset=7,
        key=b"device",
        value=value,
        headers=cast("Sequence[tuple[str, bytes]]", headers),
        timestamp=0,
        arrived=0.0,
        size=len(value or b""),
    )


def router(
    pointer: str | None = None,
    fmt: str = "csv",
    members: dict[str, str | HeaderRef] = MEMBERS,
    *,
    own_ids: bool = True,
) -> Router:
    return Router("fraud-detector", members, format_named(fmt), pointer, MAX_BYTES, own_ids=own_ids)


def refusal(of: Router, candidate: Event) -> Refusal:
    refused = of.admit(candidate)
    assert refused is not None
    return refused


@pytest.mark.parametrize("fmt", names())
@given(
    value=st.none()
    | st.binary()
    | st.sampled_from([b'{"a":[1,"2"]}', b'{"a":""}', b'{"a":"' + b"x" * 99 + b'"}', b"1,2"]),
    headers=HEADERS,
    pointer=st.none() | st.sampled_from(["", "/a", "/a/0"]),
)
@example(value=b'{"a":' + b"[" * 400 + b"]" * 400 + b"}", headers=[], pointer="/a")
@example(value=b'{"a":"\\ud800"}', headers=[], pointer="/a")
@example(value=b"[" * 100_000, headers=[], pointer="/a")
def test_an_event_is_admitted_or_refused_untouched(
    fmt: str, value: bytes | None, headers: list[tuple[str, bytes]], pointer: str | None
) -> None:
    candidate = event(value, headers)
    before = (candidate.value, list(candidate.headers), candidate.key, candidate.payload, candidate.route)
    refused = router(pointer, fmt).admit(candidate)
    if refused is None:
        assert candidate.payload
        assert candidate.route.endpoint == "fraud-detector"
        assert (candidate.value, list(candidate.headers), candidate.key) == before[:3]
    else:
        assert refused.reason in {Reason.EMPTY, Reason.UNDECODABLE, Reason.TOO_LARGE, Reason.INVALID_ROUTE}
        assert refused.message.endswith(".")
        after = (candidate.value, list(candidate.headers), candidate.key, candidate.payload, candidate.route)
        assert after == before


@pytest.mark.parametrize("value", [None, b""])
def test_an_event_without_a_value_is_empty(value: bytes | None) -> None:
    assert refusal(router(), event(value)).reason is Reason.EMPTY


def test_a_value_without_a_pointer_is_the_payload_itself() -> None:
    candidate = event(b"1,2")
    assert router().admit(candidate) is None
    assert candidate.payload is candidate.value


@pytest.mark.parametrize("fmt", names())
@given(size=st.integers(1, MAX_BYTES + 1))
def test_a_payload_is_too_large_exactly_when_its_body_alone_could_be(fmt: str, size: int) -> None:
    body_format = format_named(fmt)
    refused = router(fmt=fmt).admit(event(b"1" * size))
    if body_format.overhead + size + body_format.row_overhead > MAX_BYTES:
        assert refused is not None
        assert refused.reason is Reason.TOO_LARGE
    else:
        assert refused is None or refused.reason is Reason.UNDECODABLE


def test_a_payload_that_is_not_of_the_format_is_undecodable_in_the_formats_words() -> None:
    refused = refusal(router(), event(b"1,2\n3,4"))
    assert (refused.reason, refused.message) == (Reason.UNDECODABLE, format_named("csv").check(b"1,2\n3,4"))


# Fields


@given(st.text(min_size=1, max_size=MAX_BYTES // 4))
def test_a_string_field_is_its_own_text(text: str) -> None:
    candidate = event(orjson.dumps({"meta": 1, "rows": [{"features": text}]}))
    assert router("/rows/0/features", "raw").admit(candidate) is None
    assert candidate.payload == text.encode()


@given(
    st.lists(st.integers(-9, 9), max_size=9)
    | st.booleans()
    | st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.dictionaries(st.sampled_from("ab"), st.none())
)
def test_any_other_field_is_its_json(field: Any) -> None:
    candidate = event(b'{ "features" : ' + json.dumps(field).encode() + b" }")
    assert router("/features", "json_lines").admit(candidate) is None
    assert candidate.payload == orjson.dumps(field)


@pytest.mark.parametrize("value", [b'{"a":1}', b"[]", b"1", b'{"features":{}}', b'{"features":[1]}'])
def test_a_missing_field_is_undecodable_and_the_pointer_is_named(value: bytes) -> None:
    refused = refusal(router("/features/1"), event(value))
    assert (refused.reason, refused.message) == (Reason.UNDECODABLE, "The value has no field '/features/1'.")


def test_a_value_that_should_have_fields_and_is_not_json_is_undecodable() -> None:
    refused = refusal(router("/features"), event(b"1,2"))
    assert refused.reason is Reason.UNDECODABLE
    assert "'/features'" in refused.message


def test_an_empty_field_is_empty() -> None:
    assert refusal(router("/features"), event(b'{"features":""}')).reason is Reason.EMPTY


def test_what_is_no_pointer_is_refused_at_once() -> None:
    with pytest.raises(SettingsError):
        router("features")


# Routes


def admitted_route(of: Router, *headers: tuple[str, bytes | None]) -> Route:
    candidate = event(headers=headers)
    assert of.admit(candidate) is None
    return candidate.route


def test_events_of_constant_members_share_one_route() -> None:
    constant = router(members={"TargetVariant": "blue", "Accept": "text/csv"})
    route = admitted_route(constant, ("TargetVariant", b"green"), ("model", b"a"))
    assert route == Route("fraud-detector", (("Accept", "text/csv"), ("TargetVariant", "blue")), from_headers=False)
    assert admitted_route(constant) is route


def test_headers_that_the_settings_name_choose_members_and_no_others_do() -> None:
    route = admitted_route(router(), ("other", b"x"), ("model", b"a.tar.gz"), ("TargetVariant", b"blue"))
    assert route == Route("fraud-detector", (("Accept", "text/csv"), ("TargetModel", "a.tar.gz")), from_headers=True)


def test_an_event_without_the_headers_takes_the_constant_route_and_is_to_blame_for_it() -> None:
    of = router()
    route = admitted_route(of, ("other", b"x"))
    assert route == Route("fraud-detector", (("Accept", "text/csv"),), from_headers=True)
    assert admitted_route(of, ("model", None)) is route


@pytest.mark.parametrize(
    ("key", "inference_id"),
    [
        (b"device", "device"),
        (b"caf\xc3\xa9", sha256(b"caf\xc3\xa9").hexdigest()),
        (None, "inference-requests-0-7"),
        (b"", "inference-requests-0-7"),
    ],
)
def test_an_event_gets_the_id_of_its_key_or_of_its_coordinates(key: bytes | None, inference_id: str) -> None:
    of, one, other = router(), event(), event()
    for candidate in (one, other):
        candidate.key = None if key is None else bytes(bytearray(key))
        assert of.admit(candidate) is None
    assert one.inference_id == other.inference_id == inference_id
    assert not key or one.inference_id is other.inference_id, "made once a key"


def test_an_event_gets_no_id_where_batches_have_them_and_none_when_it_is_refused() -> None:
    unnamed, refused = event(), event(b"1\n2")
    assert router(own_ids=False).admit(unnamed) is None
    assert router().admit(refused) is not None
    assert unnamed.inference_id == refused.inference_id == ""


def test_one_header_can_choose_two_members() -> None:
    both = router(members={"TargetModel": HeaderRef("m"), "TargetVariant": HeaderRef("m")})
    assert admitted_route(both, ("m", b"a")).members == (("TargetModel", "a"), ("TargetVariant", "a"))


def test_of_a_header_that_occurs_twice_the_last_counts() -> None:
    assert admitted_route(router(), ("model", b"\xff"), ("model", b"b")).members[-1] == ("TargetModel", "b")


@given(st.lists(HEADERS.map(tuple), max_size=6))
def test_equal_header_values_give_the_identical_route_and_others_a_different_one(
    headers: list[tuple[tuple[str, bytes], ...]],
) -> None:
    of = router()
    routes: dict[tuple[bytes | None, ...], Route] = {}
    for each in headers * 2:
        candidate = event(headers=each)
        if of.admit(candidate) is None:
            chosen = (dict(each).get("model"), dict(each).get("session"))
            assert routes.setdefault(chosen, candidate.route) is candidate.route
    assert len(set(routes.values())) == len(routes)


@pytest.mark.parametrize("value", [b"", b"\xff", "é".encode(), b"a\r\nX-Injected: 1", b" a", b"a" * 1025, b"a\x00"])
def test_a_header_that_breaks_its_members_rule_is_refused_by_name_and_without_its_value(value: bytes) -> None:
    refused = refusal(router(), event(headers=[("model", value)]))
    assert refused.reason is Reason.INVALID_ROUTE
    assert "'model'" in refused.message
    assert "TargetModel" in refused.message
    assert "Injected" not in refused.message


def test_routes_beyond_those_that_are_kept_are_made_again_and_not_kept() -> None:
    of = router()
    first = admitted_route(of, ("session", b"0"))
    for number in range(3000):
        assert admitted_route(of, ("session", b"%d" % number)).members[-1] == ("SessionId", str(number))
    assert len(of._routes) <= 1024
    again = admitted_route(of, ("session", b"0"))
    assert again == first
    assert again is not first


# Models

NAMES_A_MODEL = ("TargetModel", "TargetVariant", "TargetContainerHostname", "InferenceComponentName")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["fraud", "churn"]),
            st.dictionaries(st.sampled_from(sorted(RULES)), st.sampled_from(["a", "b"])),
        ),
        min_size=2,
        max_size=2,
    )
)
def test_two_routes_are_of_one_model_exactly_when_nothing_that_names_a_model_differs(
    pair: list[tuple[str, dict[str, str]]],
) -> None:
    first, second = (Route(endpoint, tuple(sorted(members.items()))) for endpoint, members in pair)
    (one, its), (other, theirs) = pair
    same = one == other and all(its.get(name) == theirs.get(name) for name in NAMES_A_MODEL)
    assert (first.model == second.model) == same
    assert first.model.endpoint == one
