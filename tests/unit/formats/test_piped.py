"""What holds for the piped format, and what a format with options gets without a line anywhere else."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.call import Call, Response
from connector.core.formats import format_named, options_named
from connector.core.formats.body_format import Answer, BodyFormat
from connector.core.formats.known import Known
from connector.errors import MalformedResponse, SettingsError
from connector.settings import effective, load, parse
from connector.settings.reference import reference
from tests.unit.formats.example import Example
from tests.unit.needed import NEEDED
from tests.unit.pipeline_bench import Bench, Play, simulated
from tests.unit.virtual_time import in_virtual_time

EXAMPLE = Example(
    payloads=st.text("abc", min_size=1).map(str.encode),
    sample=b"a",
    rows_of=lambda body: body.split(b"|"),
    answer=lambda rows: Answer(b"|".join(row + b"!" for row in rows), "text/plain"),
    prediction=lambda payload: payload + b"!",
)


def piped(**options: Any) -> BodyFormat:
    declared = options_named("piped")
    assert declared is not None
    return format_named("piped", declared(**options))


def refused(request: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        parse({"request": request})
    return str(caught.value)


# The protocol


@given(st.lists(st.text("abc", min_size=1, max_size=2).map(str.encode), min_size=1, max_size=6))
def test_by_the_note_each_payload_gets_the_prediction_of_the_row_that_it_became(payloads: list[bytes]) -> None:
    fmt = piped(distinct=True, separator=";")
    body = fmt.join(payloads)
    rows = body.data.split(b";")
    assert rows == list(dict.fromkeys(payloads))
    assert fmt.split(Answer(b";".join(row + b"!" for row in rows)), body, Known()) == [each + b"!" for each in payloads]


def test_an_ambiguous_answer_is_taken_apart_once_calls_of_enough_sizes_were_answered_so() -> None:
    fmt, known = piped(evidence=3), Known()
    for payloads in ([b"a", b"b"], [b"a", b"b"], [b"a", b"b", b"c"]):
        with pytest.raises(MalformedResponse, match="may be a prediction with blanks"):
            fmt.split(Answer(b" ".join(payloads)), fmt.join(payloads), known)
    payloads = [b"a", b"b", b"c", b"d"]
    assert fmt.split(Answer(b"1 2 3 4"), fmt.join(payloads), known) == [b"1", b"2", b"3", b"4"]
    with pytest.raises(MalformedResponse):
        fmt.split(Answer(b"1 2 3"), fmt.join(payloads), known)


# The settings


def test_the_reference_has_a_section_with_each_option() -> None:
    assert """
  # The options of request.format: piped.
  piped:
    # The character between two rows.
    separator: '|'
    # Whether payloads that are the same are sent as one row.
    distinct: false
    # How many different numbers of rows must have been answered with blanks before that is believed.
    evidence: 2
""" in reference()
    assert "json_lines, piped, raw." in reference()


def test_a_file_and_the_environment_set_options() -> None:
    settings = parse({"request": {"format": "piped", "piped": {"separator": ";", "evidence": 1}}})
    assert settings.request.body_format().join([b"a", b"a"]).data == b"a;a"
    assert effective(settings)["request"]["piped"] == {"separator": ";", "distinct": False, "evidence": 1}
    environment = {"FORMAT": "piped", "PIPED__SEPARATOR": ";", "PIPED__DISTINCT": "true"}
    settings = load(None, NEEDED | {f"CONNECTOR_REQUEST__{name}": value for name, value in environment.items()})
    assert settings.request.body_format().join([b"a", b"b", b"a"]).data == b"a;b"


@pytest.mark.parametrize("section", [None, {}])
def test_a_chosen_format_has_its_defaults(section: dict[str, Any] | None) -> None:
    settings = parse({"request": {"format": "piped", "piped": section}})
    assert settings.request.body_format().join([b"a", b"a"]).data == b"a|a"
    assert settings == parse({"request": {"format": "piped"}})


def test_options_of_a_format_that_is_not_chosen_are_refused() -> None:
    rest = "belongs to request.format: piped, and the format is csv; remove it, or choose that format"
    messages = [f"request.piped.distinct: {rest}", f"request.piped.evidence: {rest}"]
    assert refused({"piped": {"separator": "|", "distinct": True, "evidence": 3}}).splitlines() == messages
    with pytest.raises(SettingsError) as caught:
        load(None, NEEDED | {"CONNECTOR_REQUEST__PIPED__DISTINCT": "true"})
    assert str(caught.value) == messages[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"separator": ";;"}, "request.piped.separator: must be one ASCII character, not ';;'"),
        ({"separator": 1}, "request.piped.separator: must be text, not 1; put it in quotes"),
        ({"evidence": 0}, "request.piped.evidence: must be at least 1, not 0"),
        ({"evidence": 1.5}, "request.piped.evidence: must be a whole number, not 1.5"),
        ({"evidence": True}, "request.piped.evidence: must be a number, not true"),
        ({"distinct": "perhaps"}, "request.piped.distinct: must be true or false, not 'perhaps'"),
        (
            {"seperator": ";"},
            "request.piped.seperator: there is no such setting; did you mean request.piped.separator?",
        ),
        (";", "request.piped: must hold keys of its own, one below the other, not ';'"),
    ],
)
def test_a_wrong_option_is_one_sentence_with_its_key(options: object, message: str) -> None:
    assert refused({"format": "piped", "piped": options}) == message.removesuffix(", not ';'")


def test_a_variable_that_is_no_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean CONNECTOR_REQUEST__PIPED__SEPARATOR"):
        load(None, NEEDED | {"CONNECTOR_REQUEST__PIPED__SEPERATOR": ";"})


# The pipeline


@in_virtual_time
async def test_events_go_through_the_pipeline_by_the_options_and_the_note() -> None:
    def script(call: Call) -> Play:
        rows = call.body.split(b";")
        assert (call.content_type, call.accept) == ("text/plain", "text/plain")
        return Play(Response(b";".join(row + b"!" for row in rows), "text/plain"))

    with simulated():
        request = {"format": "piped", "payload": "/x", "piped": {"separator": ";", "distinct": True}}
        bench = Bench(script, legible=False, request=request)
        bench.deliver(*[orjson.dumps({"id": number, "x": x}) for number, x in enumerate("abab")])
        await bench.complete()
        assert [seen.call.body for seen in bench.endpoint.seen] == [b"a;b"]
        assert [result.value for result in bench.results.appended] == [b"a!", b"b!", b"a!", b"b!"]


@in_virtual_time
async def test_what_is_known_of_a_model_saves_it_calls_and_is_not_believed_of_another() -> None:
    def script(call: Call) -> Play:
        return Play(Response(call.body.replace(b"|", b" "), "text/plain"))

    def sizes() -> list[int]:
        return [seen.call.body.count(b"|") + 1 for seen in bench.endpoint.seen]

    with simulated():
        endpoint = {"target_model": {"header": "model"}, "custom_attributes": {"header": "attributes"}}
        bench = Bench(script, legible=False, request={"format": "piped"}, endpoint=endpoint)
        bench.deliver(b"a", b"b", b"c", b"d", headers=[("model", b"one")])
        await bench.complete()
        assert sizes() == [4, 2, 2], "a batch was halved, and its halves were the evidence"
        bench.deliver(b"e", b"f", b"g", b"h", headers=[("model", b"one"), ("attributes", b"trace=1")])
        await bench.complete()
        assert sizes()[3:] == [4], "attributes name no other model"
        bench.deliver(b"i", b"j", b"k", b"l", headers=[("model", b"two")])
        await bench.complete()
        assert sizes()[4:] == [4, 2, 2]
        assert [result.value for result in bench.results.appended] == [bytes([value]) for value in b"abcdefghijkl"]
        assert not bench.dead_letters.appended
