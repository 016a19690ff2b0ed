"""The pipeline against anyone: whatever producers and the endpoint write, events are answered once, and good ones go on."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connector.core.answers.dead_letter import without_value
from connector.core.calls.call import Call, Failure, Reply, Response, Transport
from connector.core.event import Event
from tests.unit.factories import make_ledger
from tests.unit.formats.examples import EXAMPLES
from tests.unit.pipeline_bench import Bench, Play, simulated
from tests.unit.virtual_time import EPOCH, in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from connector.core.answers.outgoing import Outgoing
    from connector.core.formats.body_format import Body, BodyFormat

NEVER_LOGGED = frozenset({"call_broke", "crashed", "source_failed"})
"""What only a fault of the connector's own brings about."""

HOSTILE_BYTES = [
    b"",
    b" ",
    b"\n",
    b"\xff",
    b"\x00",
    b"1",
    b"1,2\r",
    b'"',
    b'"a""b",c',
    b"NaN",
    b"[Infinity,-Infinity]",
    b"1e999",
    b"-0",
    b"9" * 30,
    b"9" * 5000,
    b'{"a":1,"a":2}',
    b'"\\ud800"',
    b'{"\\udfff":"\\ud800x"}',
    b'{"predictions":{"predictions":[1]}}',
    b'{"predictions":[1,2]}',
    b"\xef\xbb\xbf[1]",
    '["a"]'.encode("utf-16"),
    b"[" * 200 + b"]" * 200,
    b"[" * 300 + b"]" * 300,
    b"[" * 1023 + b"]" * 1023,
    b"[" * 20_000,
    b'{"a":' * 20_000,
    b"\n" * 20_000,
    b"," * 20_000,
    gzip.compress(b"[1]"),
    b"\x1f\x8b\x08\x00not really",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=3)
).map(lambda document: json.dumps(document).encode())
BYTES = st.sampled_from(HOSTILE_BYTES) | JSON | st.binary(max_size=40)
ANY_TEXT = st.text(st.characters(), max_size=30)
"""Lone surrogates too: an SDK that reads JSON makes them of `\\ud800`."""


class Row(NamedTuple):
    """An event as somebody produced it."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]
    timestamp: int
    partition: int


ROUTED = {"target_model": {"header": "model"}, "session_id": {"header": "sitzung-\N{SNOWMAN}"}, "accept": "*/*"}
ROWS = st.builds(
    Row,
    key=st.none() | st.sampled_from([b"", b"a", b"b"]) | st.binary(max_size=80),
    value=st.none() | BYTES,
    headers=st.lists(
        st.tuples(
            st.sampled_from(["model", "sitzung-\N{SNOWMAN}", "inference-id", "inference-variant", "content-type", ""])
            | st.text(max_size=10),
            st.none() | st.sampled_from([b"m1", b"m2", b"NEW_SESSION"]) | st.binary(max_size=20),
        ),
        max_size=3,
    ),
    # Kafka's own are milliseconds, -1 for none, and whatever a producer says.
    timestamp=st.sampled_from([-1, 0, EPOCH * 1000, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1),
    partition=st.integers(0, 2),
)

RESPONSES = st.builds(
    Response,
    body=BYTES | st.sampled_from([b"1", b"1\n1", b"1,1", b"[1,1]", b"1\n1\n1\n1", b"[[1],[1],[1]]"]),
    content_type=st.none()
    | st.sampled_from(
        ["text/csv", "application/json", "application/json; charset=utf-16", "application/jsonlines", ";"]
    )
    | ANY_TEXT,
    variant=st.none() | ANY_TEXT,
    custom_attributes=st.none() | ANY_TEXT,
    new_session=st.none() | ANY_TEXT,
    closed_session=st.none() | ANY_TEXT,
)
STATUSES = st.sampled_from([None, 0, 200, 302, 400, 401, 403, 404, 408, 413, 424, 429, 500, 503, 530]) | st.integers()
FAILURES = st.builds(
    Failure,
    code=st.sampled_from([None, "", "ModelError", "ns#ModelError:http://x", "Unknown", "ThrottlingException", ":", "#"])
    | st.sampled_from(["ValidationError", "AccessDeniedException", "ExpiredTokenException", "ModelNotReadyException"])
    | ANY_TEXT,
    status=STATUSES,
    message=st.none()
    | st.sampled_from(["Endpoint x of account 1 not found.", "body exceeds", "has no capacity to process", "\n\n"])
    | ANY_TEXT
    | ANY_TEXT.map(lambda text: text * 200),
    transport=st.none() | st.sampled_from(Transport),
    original_status=STATUSES,
    original_message=st.none() | ANY_TEXT | st.just("\ud800" * 5000),
    log_stream=st.none() | ANY_TEXT | st.just("\udcff" * 5000),
    body_size=st.sampled_from([0, 1 << 30]),
)
REPLIES: st.SearchStrategy[Reply] = RESPONSES | FAILURES

SETTINGS = st.fixed_dictionaries(
    {
        "request": st.fixed_dictionaries(
            {"format": st.sampled_from(sorted(EXAMPLES)), "payload": st.sampled_from([None, None, "", "/a", "/0"])}
        ),
        "correlation": st.fixed_dictionaries({"mode": st.sampled_from(["key", "batch"])}),
        "result": st.fixed_dictionaries(
            {"envelope": st.booleans(), "timestamp": st.sampled_from(["now", "event"])},
        ),
        "kafka": st.fixed_dictionaries({"ordering": st.sampled_from(["key", "partition", "none"])}),
        "batch": st.fixed_dictionaries(
            {"max_events": st.sampled_from([1, 3, 8]), "linger": st.sampled_from([0, "5ms"])}
        ),
        "bisect": st.fixed_dictionaries({"max_calls": st.sampled_from([0, 64])}),
        "retry": st.fixed_dictionaries({"max_age": st.sampled_from([None, "1h"])}),
        "dead_letter": st.fixed_dictionaries(
            {
                "window": st.sampled_from([1, 5, 200]),
                "max_ratio": st.sampled_from([0.5, 1.0]),
                "timeouts": st.booleans(),
            }
        ),
        "log": st.fixed_dictionaries({"payloads": st.booleans()}),
    }
)


class Counting:
    """A body format that remembers how many rows each of its bodies has."""

    def __init__(self, fmt: BodyFormat) -> None:
        self._format = fmt
        self.rows: dict[bytes, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._format, name)

    def join(self, payloads: Sequence[bytes]) -> Body:
        body = self._format.join(payloads)
        self.rows[body.data] = len(payloads)
        return body


class AnyonesBench(Bench):
    """A bench whose endpoint gives some replies first, and is good when they are used up."""

    def __init__(self, replies: Sequence[Reply], sections: dict[str, Any]) -> None:
        super().__init__(self._script, legible=False, endpoint=ROUTED, **sections)
        self._coming = list(replies)
        self._counting = Counting(self.pipeline._format)
        self.pipeline._format = self._counting
        self.delivered: list[Event] = []

    def _script(self, call: Call) -> Play:
        return Play(self._coming.pop(0) if self._coming else self._good(call), 0.01)

    def _good(self, call: Call) -> Response:
        example = EXAMPLES[self.settings.request.format]
        answer = example.answer([example.sample] * self._counting.rows[call.body])
        return Response(answer.body, answer.content_type)

    def receive(self, *rows: Row) -> None:
        """Deliver events, one at a time."""
        for key, value, headers, timestamp, partition in rows:
            ledger = self.ledgers.setdefault(partition, make_ledger(partition))
            size = len(value or b"") + len(key or b"")
            event = Event(ledger, self._offsets[partition], key, value, headers, timestamp, self.loop.time(), size)
            self._offsets[partition] += 1
            assert ledger.deliver(event)
            self.delivered.append(event)
            self.pipeline.deliver([event])

    @property
    def answers(self) -> Counter[str]:
        """How often each event was answered, by its coordinates."""
        return Counter(outgoing.event.source for outgoing in [*self.results.appended, *self.dead_letters.appended])


def check_that_kafka_takes(outgoings: Sequence[Outgoing]) -> None:
    """Build them as the sink does, and what takes their place where they are too large."""
    for outgoing in outgoings:
        for sent in (outgoing, without_value(outgoing, 1)) if outgoing.reason else (outgoing,):
            builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1 << 30)
            assert builder.append(0, sent.timestamp, sent.key, sent.value, sent.headers)


def good(request: Mapping[str, Any]) -> Row:
    """An event that the model takes, in the format and with the pointer of these settings."""
    payload, pointer = EXAMPLES[request["format"]].sample, request.get("payload")
    text = payload.decode()
    value = {None: payload, "": orjson.dumps(text)}.get(pointer, orjson.dumps({"a": text, "0": text}))
    return Row(b"good", value, [], EPOCH * 1000, 0)


@settings(max_examples=150)
@given(sections=SETTINGS, rows=st.lists(ROWS, max_size=12), replies=st.lists(REPLIES, max_size=12))
@example(
    sections={"request": {"format": "raw"}},
    rows=[good({"format": "raw"})],
    replies=[Failure("ModelError", 424, original_status=400, log_stream="\ud800")],
)
@in_virtual_time
async def test_whatever_comes_each_event_is_answered_once_and_a_good_one_afterwards_has_its_result(
    sections: dict[str, dict[str, Any]], rows: list[Row], replies: list[Reply]
) -> None:
    with simulated() as log:
        bench = AnyonesBench(replies, sections)
        bench.receive(*rows)
        await bench.idle(within=1e6)
        assert bench.answers == Counter(event.source for event in bench.delivered)

        bench._coming.clear()
        bench.receive(good(sections["request"]))
        await bench.idle(within=1e6)
        if not bench.problem():
            bench.check_that_nothing_is_left()
        assert bench.results.appended[-1].event is bench.delivered[-1]
        assert not NEVER_LOGGED.intersection(line["event"] for line in log)
        check_that_kafka_takes([*bench.results.appended, *bench.dead_letters.appended])
        if bench.settings.result.envelope:
            for result in bench.results.appended:
                assert json.loads(result.value or b"")["source"]["offset"] == result.event.offset
