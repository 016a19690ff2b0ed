"""Problems: each is said by one part, with the fields of its sentence, and the board tells the gravest."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from connector.telemetry.log_events import LogEvent
from connector.telemetry.problems import Problem, Problems

CODE = Path(__file__).parents[2] / "connector"
EACH = pytest.mark.parametrize("problem", Problem)


def fields_of(problem: Problem, number: int = 0) -> dict[str, object]:
    return dict.fromkeys(problem.fields, number)


def calls_of_the_board() -> list[tuple[Problem, str, str, frozenset[str]]]:
    """Of each `set` and `clear` in the code: the problem, the verb, the module, and the fields."""
    calls: list[tuple[Problem, str, str, frozenset[str]]] = []
    for path in CODE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="set" | "clear" as verb),
                    args=[ast.Attribute(value=ast.Name(id="Problem"), attr=name), *_],
                ):
                    fields = frozenset(str(keyword.arg) for keyword in node.keywords)
                    calls.append((Problem[name], verb, path.relative_to(CODE).as_posix(), fields))
    return calls


CALLS = calls_of_the_board()


@EACH
def test_a_problem_is_a_word_a_sentence_and_what_to_do(problem: Problem) -> None:
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", problem.value)
    assert problem.name == problem.value.upper()
    assert not problem.sentence.endswith(".")
    assert problem.remedy.endswith(".")


@EACH
def test_a_problem_is_set_and_cleared_by_one_module_and_by_nobody_else(problem: Problem) -> None:
    modules = defaultdict(set)
    for called, verb, module, _ in CALLS:
        if called is problem:
            modules[verb].add(module)
    assert len(modules["set"]) == 1
    # A process that stops does not go on.
    assert modules["clear"] == (modules["set"] if problem is not Problem.STOPPING else set())


@EACH
def test_whoever_sets_a_problem_gives_the_fields_of_its_sentence(problem: Problem) -> None:
    given = {fields for called, verb, _, fields in CALLS if called is problem and verb == "set"}
    assert given == {frozenset(problem.fields)}


def test_what_the_source_cannot_do_is_logged_when_it_begins_when_it_is_another_and_when_it_ends() -> None:
    problems = Problems()
    with structlog.testing.capture_logs() as log:
        for topics in ("a", "a", "a, b"):
            problems.set(Problem.TOPIC_MISSING, topics=topics, servers="kafka:9092")
        for _ in range(2):
            problems.clear(Problem.TOPIC_MISSING)
    assert log == [
        {
            "event": LogEvent.SOURCE_PROBLEM,
            "log_level": "warning",
            "reason": "topic_missing",
            "problem": f"topic {topics} does not exist at kafka:9092: create it, and work begins",
        }
        for topics in ("a", "a, b")
    ] + [{"event": LogEvent.SOURCE_RECOVERED, "log_level": "info", "reason": "topic_missing"}]


def test_whoever_logs_more_than_the_sentence_is_told_whether_it_is_news() -> None:
    problems = Problems()
    with structlog.testing.capture_logs() as log:
        assert problems.set(Problem.PUBLISH_FAILS, "out", topic="out", error="no answer in time")
        assert not problems.set(Problem.PUBLISH_FAILS, "out", topic="out", error="no answer in time")
        assert problems.set(Problem.PUBLISH_FAILS, "dlq", topic="dlq", error="no answer in time")
        assert problems.set(Problem.PUBLISH_FAILS, "out", topic="out", error="access to topic out is denied")
        problems.clear(Problem.PUBLISH_FAILS, "out")
        assert problems.set(Problem.PUBLISH_FAILS, "out", topic="out", error="access to topic out is denied")
    assert log == []


@given(st.lists(st.tuples(st.sampled_from(Problem), st.sampled_from("ab"), st.none() | st.integers(0, 2))))
def test_the_board_shows_what_was_set_and_not_cleared_and_the_gravest_first(
    steps: list[tuple[Problem, str, int | None]],
) -> None:
    problems = Problems()
    holding: dict[tuple[Problem, str], str] = {}
    for problem, of, number in steps:
        if number is None:
            problems.clear(problem, of)
            holding.pop((problem, of), None)
        else:
            news = problems.set(problem, of, **fields_of(problem, number))
            sentence = problem.sentence.format(**fields_of(problem, number))
            assert news is (holding.get((problem, of)) != sentence)
            holding[problem, of] = sentence
        assert problems.holds(problem, of) is ((problem, of) in holding)
    held = problems.held
    assert {(one.problem, one.of): one.sentence for one in held} == holding
    order = list(Problem)
    assert [one.problem for one in held] == sorted((one.problem for one in held), key=order.index)
    assert problems.gravest == (held[0] if held else None)
