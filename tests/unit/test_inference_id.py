"""InferenceId: total, legal, equal for equal keys, different for different keys and for events without one."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from connector.core.epochs.ledger import Ledger
from connector.core.event import Event
from connector.core.formats import format_named
from connector.core.routes.inference_id import batch_id, legal
from connector.core.routes.router import Router

TOPIC = "inference-requests"
ROUTER = Router("fraud-detector", {}, format_named("raw"), None, 10**6, own_ids=True)
LONG_TOPIC = "t" * 249
TOPIC_CHARACTERS = "abcXYZ019._-"

topics = st.one_of(
    st.text(TOPIC_CHARACTERS, min_size=1, max_size=249),
    st.sampled_from([TOPIC, LONG_TOPIC, "b", "a-1", "0-0"]),
    st.text(),
)
partitions = st.integers(min_value=0, max_value=2**31 - 1)
offsets = st.integers(min_value=0, max_value=2**63 - 1)
coordinates = st.tuples(topics, partitions, offsets)
# Keys close to every border of the rule: printable or not, blanks at the ends, hex, and what looks like coordinates.
keys = st.one_of(
    st.binary(max_size=80),
    st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), max_size=70).map(str.encode),
    st.text("0123456789abcdefABCDEF", min_size=62, max_size=66).map(str.encode),
    coordinates.map(lambda c: f"{c[0]}-{c[1]}-{c[2]}".encode("utf-8", "surrogatepass")),
    st.text("a-01 .", max_size=10).map(str.encode),
)


def event_id(key: bytes | None, topic: str, partition: int, offset: int) -> str:
    """What the router gives to an event."""
    event = Event(Ledger(topic, partition, 1), offset, key, b"1", (), 0, 0.0, 1)
    assert ROUTER.admit(event) is None
    return event.inference_id


def id_of_key(key: bytes) -> str:
    return event_id(key, TOPIC, 0, 0)


def relatives(key: bytes) -> list[bytes]:
    """Keys that a careless rule would give the same id as this one."""
    text = id_of_key(key).encode()
    return [
        text,
        text.upper(),
        sha256(key).hexdigest().encode(),
        sha256(key).digest(),
        key.strip(),
        key + b" ",
        b" " + key,
        key + b"\0",
        key[:64],
        key.lower(),
        b"b-" + text,
    ]


@pytest.mark.parametrize(
    "key",
    [
        "device-07",
        "device 7",
        "0",
        "~",
        "x" * 64,
        "a" * 63,
        "order-2024-0007",
        "-1-2",
        "é".encode("ascii", "replace").decode(),
    ],
)
def test_a_legal_key_is_its_own_id(key: str) -> None:
    assert event_id(key.encode(), TOPIC, 3, 17) == key


@pytest.mark.parametrize(
    "key",
    [
        b"x" * 65,
        b" device",
        b"device ",
        b"de\nvice",
        b"device\n",
        b"\x7f",
        "gerät".encode(),
        b"\x00\x01",
        b"0" * 64,
        b"ABCDEF00" * 8,
        b"inference-requests-3-17",
        b"another.topic-0-0",
    ],
)
def test_any_other_key_is_hashed(key: bytes) -> None:
    assert event_id(key, TOPIC, 3, 17) == sha256(key).hexdigest()


@pytest.mark.parametrize("key", [None, b""])
def test_an_event_without_a_key_has_its_coordinates(key: bytes | None) -> None:
    assert event_id(key, TOPIC, 3, 17) == "inference-requests-3-17"


@pytest.mark.parametrize("topic", [LONG_TOPIC, "t" * 61, "not a topic", "é", ""])
def test_coordinates_that_do_not_fit_are_hashed(topic: str) -> None:
    inference_id = event_id(None, topic, 0, 0)
    assert len(inference_id) == 64
    assert int(inference_id, 16) >= 0


def test_coordinates_of_64_characters_are_not_hashed() -> None:
    assert event_id(None, "t" * 60, 0, 0) == "t" * 60 + "-0-0"


@given(st.one_of(st.none(), keys), coordinates)
@example(None, ("\ud800", 0, 0))
def test_every_event_has_an_id_that_the_service_and_http_take(key: bytes | None, at: tuple[str, int, int]) -> None:
    inference_id = event_id(key, *at)
    assert legal(inference_id)
    assert not inference_id.endswith(" ")


@given(keys.filter(bool), coordinates, coordinates)
def test_equal_keys_give_equal_ids(key: bytes, here: tuple[str, int, int], there: tuple[str, int, int]) -> None:
    assert event_id(key, *here) == event_id(key, *there)


@given(keys.filter(bool), keys.filter(bool))
def test_different_keys_give_different_ids(one: bytes, other: bytes) -> None:
    assume(one != other)
    assert id_of_key(one) != id_of_key(other)


@given(keys.filter(bool))
@example(b"\xff")
@example(b"x" * 65)
@example(b"inference-requests-0-0")
def test_a_key_made_of_another_key_or_its_id_has_another_id(key: bytes) -> None:
    for relative in relatives(key):
        assert not relative or relative == key or id_of_key(relative) != id_of_key(key)


@given(keys.filter(bool), coordinates)
def test_no_key_gives_the_id_of_an_event_without_one(key: bytes, at: tuple[str, int, int]) -> None:
    assert id_of_key(key) != event_id(None, *at)


@given(coordinates)
@example((LONG_TOPIC, 0, 0))
@example((TOPIC, 0, 0))
def test_a_key_made_of_coordinates_or_of_their_id_does_not_give_their_id(at: tuple[str, int, int]) -> None:
    inference_id = event_id(None, *at)
    text = f"{at[0]}-{at[1]}-{at[2]}".encode("utf-8", "surrogatepass")
    digest = sha256(text).hexdigest()
    what_is_hashed = f"c-{digest[:62]}".encode()
    for key in (text, inference_id.encode(), digest.encode(), sha256(text).digest(), what_is_hashed):
        assert id_of_key(key) != inference_id


def test_what_is_hashed_for_long_coordinates_is_a_key_that_is_never_hashed() -> None:
    digest = sha256(f"{LONG_TOPIC}-3-17".encode()).hexdigest()
    what_is_hashed = f"c-{digest[:62]}"
    assert event_id(None, LONG_TOPIC, 3, 17) == sha256(what_is_hashed.encode()).hexdigest()
    assert id_of_key(what_is_hashed.encode()) == what_is_hashed


@given(coordinates, coordinates)
@example(("a-1", 2, 3), ("a", 1, 2))
def test_different_events_without_a_key_have_different_ids(
    one: tuple[str, int, int], other: tuple[str, int, int]
) -> None:
    assert (one == other) == (event_id(None, *one) == event_id(b"", *other))


batches = st.lists(st.tuples(st.text(TOPIC_CHARACTERS, min_size=1, max_size=20), partitions, offsets), max_size=8)


def test_the_id_of_a_batch_is_the_digest_of_its_coordinates() -> None:
    digest = sha256(b"t/0/1\nt/2/3").hexdigest()
    assert batch_id(iter([("t", 0, 1), ("t", 2, 3)])) == f"b-{digest[:40]}"


@given(batches)
def test_the_id_of_a_batch_is_legal_and_of_a_fixed_length(batch: list[tuple[str, int, int]]) -> None:
    assert legal(batch_id(batch))
    assert len(batch_id(batch)) == 42


@given(batches, batches)
def test_two_batches_have_the_same_id_exactly_when_they_are_the_same_events_in_the_same_order(
    one: list[tuple[str, int, int]], other: list[tuple[str, int, int]]
) -> None:
    assert (batch_id(one) == batch_id(other)) == (one == other)


@given(st.lists(st.tuples(st.just("t"), partitions, offsets), min_size=2, max_size=5, unique=True))
def test_a_batch_in_another_order_has_another_id(batch: list[tuple[str, int, int]]) -> None:
    assert batch_id(batch) != batch_id(batch[::-1])


@pytest.mark.parametrize(("inference_id", "expected"), [("a", True), ("a ", True), ("", False), (" a", False)])
def test_legal_is_the_rule_of_the_field(inference_id: str, expected: bool) -> None:
    assert legal(inference_id) is expected


@given(st.text(st.characters(max_codepoint=0x100), max_size=70))
def test_legal_means_1_to_64_printable_ascii_the_first_not_a_blank(text: str) -> None:
    expected = 1 <= len(text) <= 64 and all(" " <= c <= "~" for c in text) and text[0] != " "
    assert legal(text) is expected
