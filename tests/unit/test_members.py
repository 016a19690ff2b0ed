"""What holds for the members of a route."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.loaders import Loader
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.core.routes.members import RULES, problem

every_member = pytest.mark.parametrize("member", RULES)


@pytest.fixture(scope="module")
def service_rules() -> dict[str, dict[str, Any]]:
    """The shape of each member of InvokeEndpoint in the installed botocore's model."""
    shapes = Loader().load_service_model("sagemaker-runtime", "service-2")["shapes"]
    return {name: shapes[ref["shape"]] for name, ref in shapes["InvokeEndpointInput"]["members"].items()}


def java_pattern(source: str) -> re.Pattern[str]:
    """The service's pattern, as Python reads it."""
    python = source.replace(r"[\p{Print}]", "[ -~]").replace(r"\p{ASCII}", r"[\x00-\x7f]").replace(r"\z", r"\Z")
    return re.compile(python, re.ASCII)


def test_the_members_are_those_of_the_installed_sdk(service_rules: dict[str, dict[str, Any]]) -> None:
    assert set(RULES) == set(service_rules) - {"Body", "InferenceId"}


@every_member
def test_the_rule_is_that_of_the_installed_sdk(member: str, service_rules: dict[str, dict[str, Any]]) -> None:
    rule, shape = RULES[member], service_rules[member]
    assert (rule.max_length, rule.min_length, rule.source) == (shape["max"], shape.get("min", 0), shape["pattern"])


@settings(max_examples=200)
@given(
    member=st.sampled_from(sorted(RULES)),
    value=st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1)
    | st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", fullmatch=True)
    | st.sampled_from(["NEW_SESSION", "model.tar.gz", "a-", "-a", "a--b", " a", "a", "-"]),
)
def test_printable_text_passes_exactly_when_the_services_rule_lets_it(member: str, value: str) -> None:
    rule = RULES[member]
    allowed = len(value) <= rule.max_length and java_pattern(rule.source).fullmatch(value) is not None
    assert (problem(member, value) is None) == allowed


@given(
    member=st.sampled_from(sorted(RULES)),
    value=st.text(),
    stray=st.characters(max_codepoint=31) | st.characters(min_codepoint=127),
    at=st.integers(0),
)
def test_nothing_but_printable_ascii_passes(member: str, value: str, stray: str, at: int) -> None:
    place = at % (len(value) + 1)
    assert problem(member, value[:place] + stray + value[place:]) is not None


@every_member
def test_the_longest_value_passes_and_a_longer_one_does_not(member: str) -> None:
    longest = "a" * RULES[member].max_length
    assert problem(member, longest) is None
    assert f"{len(longest) + 1} characters" in str(problem(member, longest + "a"))


@every_member
def test_an_empty_value_does_not_pass(member: str) -> None:
    assert problem(member, "") == f"{member} is empty"


@pytest.mark.parametrize("member", ["Body", "InferenceId", "accept"])
def test_what_no_route_carries_is_named_beside_what_one_can(member: str) -> None:
    assert re.match(f"{member} is no member .* Accept, .*TargetVariant$", str(problem(member, "a")))
