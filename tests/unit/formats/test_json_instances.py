"""What holds for the json_instances format alone; test_json_array.py has what it shares with json_array."""

from __future__ import annotations

import json

import orjson

from connector.core.formats.body_format import Answer
from connector.core.formats.json_instances import JsonInstances
from tests.unit.formats.example import Example
from tests.unit.formats.json_values import JSON_TEXTS, in_a_list

EXAMPLE = Example(
    payloads=JSON_TEXTS,
    sample=b"[1,2]",
    rows_of=lambda body: [orjson.dumps(row) for row in json.loads(body)["instances"]],
    answer=lambda rows: Answer(b'{"predictions": [' + b", ".join(map(in_a_list, rows)) + b"]}", "application/json"),
    prediction=in_a_list,
)


def test_the_name_of_the_array_is_that_of_tensorflow_serving() -> None:
    assert JsonInstances().join([b"[1,2]", b'{"a": 1}']).data == b'{"instances":[[1,2],{"a": 1}]}'
