"""JSON for tests: any value, and texts of any value as two writers spell it."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import strategies as st

JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
JSON_TEXTS = JSON_VALUES.map(lambda value: json.dumps(value).encode()) | JSON_VALUES.map(orjson.dumps)
NEARLY_JSON = st.text(alphabet='[]{}":,1a\\ \n\r', max_size=10).map(str.encode)


def in_a_list(payload: bytes) -> bytes:
    """What the models of the JSON tests answer to a payload: a list of it."""
    return orjson.dumps([json.loads(payload)])
