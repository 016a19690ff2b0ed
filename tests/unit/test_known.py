"""What is known of a model's answers: never more than was shown, and never without bound."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from connector.core.event import Model
from connector.core.formats import known as limits
from connector.core.formats.known import Known, KnownModels

SEEN = st.lists(st.tuples(st.integers(0, 100).map(str), st.integers(1, 20)), max_size=300)


def known_after(seen: list[tuple[str, int]]) -> Known:
    known = Known()
    for shape, rows in seen:
        known.saw(shape, rows)
    return known


@given(SEEN)
def test_nothing_is_known_that_was_not_seen_and_no_more_than_there_is_room_for(seen: list[tuple[str, int]]) -> None:
    truth = defaultdict(set)
    for shape, rows in seen:
        truth[shape].add(rows)
    known = known_after(seen)
    remembered = [shape for shape in truth if known.sizes(shape)]
    assert all(known.sizes(shape) <= truth[shape] for shape in truth)
    assert all(len(known.sizes(shape)) <= limits._SIZES for shape in truth)
    assert len(remembered) == min(len(truth), limits._SHAPES)
    assert not known.sizes("never seen")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, limits._SIZES)), max_size=60))
def test_a_few_shapes_in_a_few_sizes_are_known_exactly(seen: list[tuple[str, int]]) -> None:
    known = known_after(seen)
    for shape in "abc":
        assert known.sizes(shape) == {rows for name, rows in seen if name == shape}


def test_a_shape_that_is_seen_again_and_again_outlives_any_number_of_others() -> None:
    known = Known()
    for number in range(limits._SHAPES * 3):
        known.saw("lines", number % 3 + 1)
        known.saw(f"field-{number}", 1)
    assert known.sizes("lines") == {1, 2, 3}
    assert len(known._sizes) == limits._SHAPES


def test_a_shape_is_remembered_in_no_more_sizes_than_there_is_room_for() -> None:
    known = known_after([("lines", rows) for rows in range(1, limits._SIZES * 2)])
    assert known.sizes("lines") == set(range(1, limits._SIZES + 1))


def test_a_shape_as_long_as_a_response_likes_is_not_remembered() -> None:
    known = known_after([("x" * limits._LONGEST, 2), ("y" * (limits._LONGEST + 1), 2)])
    assert known.sizes("x" * limits._LONGEST) == {2}
    assert not known.sizes("y" * (limits._LONGEST + 1))


def test_each_model_is_known_by_its_own_answers() -> None:
    models = KnownModels()
    models.of(Model("fraud", "a.tar.gz")).saw("lines", 2)
    assert models.of(Model("fraud", "a.tar.gz")).sizes("lines") == {2}
    assert not models.of(Model("fraud", "b.tar.gz")).sizes("lines")
    assert not models.of(Model("fraud")).sizes("lines")


def test_of_more_models_than_there_is_room_for_the_first_is_forgotten() -> None:
    models = KnownModels()
    for number in range(limits._MODELS + 1):
        models.of(Model("fraud", str(number))).saw("lines", 2)
    assert len(models._models) == limits._MODELS
    assert models.of(Model("fraud", "1")).sizes("lines") == {2}
    assert not models.of(Model("fraud", "0")).sizes("lines")
