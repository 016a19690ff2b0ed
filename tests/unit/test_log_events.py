"""Every log event has the fields that it declares, at every place that logs it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from connector.telemetry.log import EVENT_FIELDS
from connector.telemetry.log_events import FIELDS, LogEvent

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


class Place(NamedTuple):
    """One call that logs: where, which events it can be, the fields that it always has, and those that it can have."""

    at: str
    events: list[LogEvent]
    always: set[str]
    possible: set[str]


def places(source: str, name: str) -> Iterator[Place]:
    """Every call in a module that logs; raises ValueError for one that cannot be read."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in LEVELS:
            continue
        if not node.args:
            continue  # a task's `exception()`
        at = f"{name}:{node.lineno}"
        if not (events := list(events_of(node.args[0]))):
            raise ValueError(f"{at} logs something that is no LogEvent")
        always, possible = fields_of(tree, node.keywords, at)
        extra = {"exception"} if node.func.attr == "exception" else set()
        yield Place(at, events, always | extra, possible | extra)


def events_of(node: ast.expr) -> Iterator[LogEvent]:
    if isinstance(node, ast.IfExp):
        yield from events_of(node.body)
        yield from events_of(node.orelse)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "LogEvent":
        yield LogEvent[node.attr]


def fields_of(tree: ast.Module, keywords: list[ast.keyword], at: str) -> tuple[set[str], set[str]]:
    """The fields that these arguments always give, and those that they can give."""
    always: set[str] = set()
    possible: set[str] = set()
    for keyword in keywords:
        if keyword.arg is not None:
            more, possibly = {field_named(keyword.arg)}, {field_named(keyword.arg)}
        else:
            more, possibly = fields_in(tree, keyword.value, at)
        always |= more
        possible |= possibly
    return always, possible


def fields_in(tree: ast.Module, node: ast.expr, at: str) -> tuple[set[str], set[str]]:
    """The fields of what is written after `**`: a dict, one of two dicts, or a name that the module gives to such."""
    if isinstance(node, ast.Dict):
        always: set[str] = set()
        possible: set[str] = set()
        for key, value in zip(node.keys, node.values, strict=True):
            if key is None:
                more, possibly = fields_in(tree, value, at)
            elif isinstance(key, ast.Constant):
                more, possibly = {field_named(str(key.value))}, {field_named(str(key.value))}
            else:
                raise ValueError(f"{at} computes the name of a field")
            always |= more
            possible |= possibly
        return always, possible
    if isinstance(node, ast.IfExp):
        found = [fields_in(tree, node.body, at), fields_in(tree, node.orelse, at)]
    elif isinstance(node, ast.Name):
        found = [fields_in(tree, value, at) for value in given_to(tree, node.id)]
    else:
        found = []
    if not found:
        raise ValueError(f"{at} takes its fields from where this test cannot read them: write them as a dict beside it")
    return set.intersection(*(always for always, _ in found)), set.union(*(possible for _, possible in found))


def given_to(tree: ast.Module, name: str) -> Iterator[ast.expr]:
    """The dicts that a module gives to this name."""
    for node in ast.walk(tree):
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Dict | ast.IfExp) and any(
            isinstance(one, ast.Name) and one.id == name for one in targets
        ):
            yield value


def field_named(argument: str) -> str:
    return "exception" if argument == "exc_info" else argument


def wrong(found: list[Place]) -> Iterator[str]:
    """What is not as it is declared, in a sentence each."""
    at: dict[LogEvent, list[Place]] = defaultdict(list)
    for place in found:
        for event in place.events:
            at[event].append(place)
    for event in LogEvent:
        if event not in at:
            yield f"{event} is logged nowhere"
            continue
        required, sometimes = set(event.fields), set(event.sometimes)
        for place in at[event]:
            if undeclared := place.possible - required - sometimes:
                yield f"{place.at} gives {event} {sorted(undeclared)}, which it does not declare"
            if missing := required - place.always:
                yield f"{place.at} does not give {event} {sorted(missing)}"
        if never := sometimes.difference(*(place.possible for place in at[event])):
            yield f"{event} has nowhere {sorted(never)}"
        if always := sometimes.intersection(*(place.always for place in at[event])):
            yield f"{event} has everywhere {sorted(always)}"


@pytest.fixture(scope="module")
def logged() -> list[Place]:
    files = sorted((ROOT / "connector").rglob("*.py"))
    found = [place for file in files for place in places(file.read_text(), str(file.relative_to(ROOT)))]
    assert len(found) > 20
    return found


def test_every_log_event_is_logged_and_everywhere_with_the_fields_that_it_declares(logged: list[Place]) -> None:
    assert not list(wrong(logged))


def test_every_field_has_a_sentence_and_is_used() -> None:
    used = {field for event in LogEvent for field in (*event.fields, *event.sometimes)}
    assert used == set(FIELDS)
    assert all(sentence.endswith(".") for sentence in (*FIELDS.values(), *(event.sentence for event in LogEvent)))


def test_fields_are_declared_in_the_order_in_which_a_line_has_them() -> None:
    assert tuple(FIELDS)[: len(EVENT_FIELDS)] == EVENT_FIELDS
    order = list(FIELDS)
    for event in LogEvent:
        for fields in (event.fields, event.sometimes):
            assert list(fields) == sorted(fields, key=order.index), event


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("log.info(LogEvent.READY, topic=1)", "gives ready ['topic']"),
        ("log.info(LogEvent.ADVICE)", "does not give advice ['problem']"),
        ("log.info(LogEvent.ADVICE, **({'problem': 1} if log else {}))", "does not give advice ['problem']"),
        ("log.exception(LogEvent.READY)", "gives ready ['exception']"),
        ("log.info(LogEvent.STOPPED if log else LogEvent.STOPPING, exc_info=1)", "gives stopping ['exception']"),
    ],
)
def test_a_line_that_is_not_as_declared_is_found(logged: list[Place], line: str, sentence: str) -> None:
    assert any(sentence in found for found in wrong([*logged, *places(line, "here")]))


def test_an_event_that_is_logged_nowhere_is_found(logged: list[Place]) -> None:
    without = [place for place in logged if LogEvent.STUCK not in place.events]
    assert list(wrong(without)) == ["stuck is logged nowhere"]


@pytest.mark.parametrize("line", ["log.info('text')", "log.info(LogEvent.ADVICE, **elsewhere)"])
def test_a_line_that_cannot_be_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="here:1"):
        list(places(line, "here"))
