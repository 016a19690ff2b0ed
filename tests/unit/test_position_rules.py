"""Where an epoch starts and goes on, over every policy, commit and extent of a partition."""

from __future__ import annotations

from typing import Literal, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connector.core.epochs.ledger import Commit
from connector.core.epochs.position import NOWHERE, Position, PositionPolicy

Reset = Literal["earliest", "latest", "fail"]

OFFSETS = st.integers(0, 2**40)
EXTENTS = st.tuples(OFFSETS, OFFSETS).map(lambda pair: (min(pair), max(pair)))
COMMITS = st.none() | st.builds(Commit, OFFSETS, st.text(max_size=3))
RESETS: st.SearchStrategy[Reset] = st.sampled_from(get_args(Reset))
STOOD = OFFSETS | st.just(NOWHERE)


def policy(reset: Reset) -> PositionPolicy:
    return PositionPolicy(reset)


def go_on(reset: Reset, stood: int, committed: Commit | None, extent: tuple[int, int]) -> Position:
    return policy(reset).go_on(stood, committed, *extent)


# -- the first position ------------------------------------------------------------------------------------------------


@given(reset=RESETS, extent=EXTENTS)
def test_a_partition_that_is_new_to_a_known_group_starts_at_its_beginning(
    reset: Reset, extent: tuple[int, int]
) -> None:
    assert policy(reset).first(*extent, known_group=True) == Position(extent[0])


@given(extent=EXTENTS)
def test_the_policy_chooses_for_a_group_without_any_commit(extent: tuple[int, int]) -> None:
    begin, end = extent
    assert policy("earliest").first(begin, end, known_group=False) == Position(begin)
    assert policy("latest").first(begin, end, known_group=False) == Position(end)


def test_policy_fail_leaves_the_first_position_to_a_person() -> None:
    assert policy("fail").first(0, 9, known_group=False) == Position(None)


# -- going on ----------------------------------------------------------------------------------------------------------


@given(reset=RESETS, stood=STOOD, committed=COMMITS, extent=EXTENTS)
def test_a_position_is_in_the_partition_or_left_to_a_person(
    reset: Reset, stood: int, committed: Commit | None, extent: tuple[int, int]
) -> None:
    position = go_on(reset, stood, committed, extent)
    if position.offset is None:
        assert reset == "fail"
        assert position == Position(None)
    else:
        assert extent[0] <= position.offset <= extent[1]


@given(reset=RESETS, stood=STOOD, committed=COMMITS, extent=EXTENTS)
def test_an_epoch_goes_on_forward_and_counts_every_event_that_it_passes(
    reset: Reset, stood: int, committed: Commit | None, extent: tuple[int, int]
) -> None:
    position = go_on(reset, stood, committed, extent)
    if position.offset is not None and not position.another_epoch:
        assert position.offset - stood == position.lost >= 0
    else:
        assert position.lost == 0


@given(reset=RESETS, committed=COMMITS, extent=EXTENTS, data=st.data())
def test_what_is_readable_where_we_stood_is_read_there(
    reset: Reset, committed: Commit | None, extent: tuple[int, int], data: st.DataObject
) -> None:
    stood = data.draw(st.integers(*extent))
    assert go_on(reset, stood, committed, extent) == Position(stood)


@given(reset=st.sampled_from(["earliest", "latest"]), stood=OFFSETS, committed=COMMITS, extent=EXTENTS)
def test_retention_moves_the_epoch_to_the_first_event_that_is_left(
    reset: Reset, stood: int, committed: Commit | None, extent: tuple[int, int]
) -> None:
    begin = extent[0]
    assume(stood < begin)
    assert go_on(reset, stood, committed, extent) == Position(begin, lost=begin - stood)


@pytest.mark.parametrize("reset", ["earliest", "latest"])
@given(stood=STOOD, committed=COMMITS, extent=EXTENTS)
def test_a_topic_that_ends_before_we_stood_was_created_again_and_its_commits_count_for_nothing(
    reset: Reset, stood: int, committed: Commit | None, extent: tuple[int, int]
) -> None:
    begin, end = extent
    assume(stood > end)
    expected = Position(begin, commit=None, another_epoch=True, recreated=True)
    assert go_on(reset, stood, committed, extent) == expected


@given(stood=STOOD, committed=COMMITS, extent=EXTENTS)
def test_policy_fail_skips_nothing_until_a_person_commits_another_offset_that_exists(
    stood: int, committed: Commit | None, extent: tuple[int, int]
) -> None:
    begin, end = extent
    assume(not begin <= stood <= end)
    position = go_on("fail", stood, committed, extent)
    if committed is not None and begin <= committed.offset <= end:
        assert position == Position(committed.offset, committed, another_epoch=True)
    else:
        assert position.offset is None
