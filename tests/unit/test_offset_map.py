"""The offset map against the set of offsets that it stands for, and against every text that somebody may have committed."""

from __future__ import annotations

import base64
import random
import time
import zlib
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from connector.core.epochs.offset_map import MAX_BYTES, MAX_SAMPLES, OffsetMap, Run, decode, encode, fits

NOON = 1_785_000_000_000
positions = st.integers(0, 2**62)


def runs_of(position: int, steps: list[tuple[int, int]]) -> list[Run]:
    """Runs by distance and length."""
    runs, last = [], position
    for distance, length in steps:
        runs.append((last + distance, last + distance + length))
        last += distance + length
    return runs


def events_of(runs: list[Run]) -> list[int]:
    return [offset for first, end in runs for offset in range(first, end)]


def stamped(offsets: list[int]) -> dict[int, int]:
    """Offsets and their timestamps, which differ and do not always ascend."""
    return {offset: NOON + offset * 37 % 1009 for offset in offsets}


@st.composite
def maps(draw: st.DrawFn) -> tuple[int, list[Run], dict[int, int]]:
    """A position, runs behind it, and the timestamps of all offsets in them, in any order of completion."""
    position = draw(positions)
    distances = st.integers(1, draw(st.sampled_from([1, 3, 300])))
    lengths = st.integers(1, draw(st.sampled_from([1, 3, 40])))
    runs = runs_of(position, draw(st.lists(st.tuples(distances, lengths), min_size=1, max_size=60)))
    offsets = draw(st.permutations(events_of(runs)[:200])) + events_of(runs)[200:]
    return position, runs, stamped(offsets)


def found(known: OffsetMap | None, delivered: list[int], timestamps: dict[int, int]) -> list[int]:
    """What the map names of events that are delivered."""
    assert known is not None
    return [offset for offset in delivered if known.finished(offset, timestamps.get(offset, NOON))]


def named_by(text: str, position: int) -> list[int]:
    """Every offset that a text names."""
    known = decode(text, position)
    assert known is not None
    return events_of(known.runs(position))


def sealed(body: bytes, position: int) -> str:
    """A body as a text that is not damaged."""
    checksum = zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big")))
    return "c1:" + base64.urlsafe_b64encode(checksum.to_bytes(4, "big") + body).rstrip(b"=").decode()


# -- what it says ------------------------------------------------------------------------------------------------------


@given(maps())
def test_exactly_the_named_events_are_found(drawn: tuple[int, list[Run], dict[int, int]]) -> None:
    position, runs, timestamps = drawn
    text = encode(position, runs, timestamps)
    assert text.isascii()
    assert len(text) <= MAX_BYTES
    around = sorted({*timestamps, *range(position, position + 50), *(end for _, end in runs)})
    assert found(decode(text, position), around, timestamps) == sorted(timestamps)


@given(maps(), st.data())
def test_events_that_are_gone_are_not_missed(drawn: tuple[int, list[Run], dict[int, int]], data: st.DataObject) -> None:
    position, runs, timestamps = drawn
    named = sorted(timestamps)
    known = decode(encode(position, runs, timestamps), position)
    assert known is not None
    kept = [offset for offset in named if offset == named[0] or data.draw(st.booleans())]
    assert found(known, kept, timestamps) == kept


@given(maps(), st.data())
def test_nothing_is_found_before_a_sample_is_confirmed(
    drawn: tuple[int, list[Run], dict[int, int]], data: st.DataObject
) -> None:
    position, runs, timestamps = drawn
    known = decode(encode(position, runs, timestamps), position)
    assert known is not None
    samples = list(known.samples(0))
    gone = set(samples[: data.draw(st.integers(0, len(samples)))])
    kept = [offset for offset in sorted(timestamps) if offset not in gone]
    confirming = min((offset for offset in samples if offset not in gone), default=None)
    assert found(known, kept, timestamps) == [o for o in kept if confirming is not None and o >= confirming]


@given(maps(), st.data())
def test_one_other_timestamp_discards_the_map_for_good(
    drawn: tuple[int, list[Run], dict[int, int]], data: st.DataObject
) -> None:
    position, runs, timestamps = drawn
    known = decode(encode(position, runs, timestamps), position)
    assert known is not None
    other = data.draw(st.sampled_from(list(known.samples(0))))
    named = sorted(timestamps)
    assert found(known, named, timestamps | {other: NOON - 1}) == [offset for offset in named if offset < other]
    assert known.discarded
    assert known.exhausted


@given(maps())
def test_a_topic_with_other_timestamps_gets_nothing_skipped(drawn: tuple[int, list[Run], dict[int, int]]) -> None:
    position, runs, timestamps = drawn
    later = {offset: timestamp + 5000 for offset, timestamp in timestamps.items()}
    assert found(decode(encode(position, runs, timestamps), position), sorted(later), later) == []


@given(maps())
def test_samples_are_few_and_the_first_event_is_one(drawn: tuple[int, list[Run], dict[int, int]]) -> None:
    position, runs, timestamps = drawn
    known = decode(encode(position, runs, timestamps), position)
    assert known is not None
    assert 1 <= len(known.samples(0)) <= MAX_SAMPLES
    assert min(known.samples(0)) == min(timestamps)
    assert known.samples(0).items() <= timestamps.items()


def test_samples_of_events_completed_in_order_are_spread_evenly() -> None:
    known = decode(encode(0, [(1, 15_001)], stamped(list(range(1, 15_001)))), 0)
    assert known is not None
    assert {after - before for before, after in pairwise(known.samples(0))} == {1000}


@given(maps(), st.data())
def test_what_was_not_asked_about_is_the_rest(
    drawn: tuple[int, list[Run], dict[int, int]], data: st.DataObject
) -> None:
    position, runs, timestamps = drawn
    known = decode(encode(position, runs, timestamps), position)
    assert known is not None
    named, samples = sorted(timestamps), known.samples(0)
    asked = data.draw(st.integers(0, len(named)))
    found(known, named[:asked], timestamps)
    start = named[asked] if asked < len(named) else named[-1] + 1
    assert events_of(known.runs(start)) == named[asked:]
    assert known.samples(start) == {offset: at for offset, at in samples.items() if offset >= start}
    assert not known.exhausted
    known.finished(named[-1] + 1, NOON)
    assert known.exhausted


def test_samples_are_taken_from_what_is_carried_on_too() -> None:
    first, carried = stamped(list(range(1, 10_000))), stamped([20_000, 30_000, 40_000])
    known = decode(encode(0, [(1, 10_000), (20_000, 50_000)], first, carried), 0)
    assert known is not None
    assert known.samples(10_000) == carried
    assert 3 < len(known.samples(0)) <= MAX_SAMPLES


def test_a_map_whose_samples_are_all_gone_is_exhausted() -> None:
    known = decode(encode(0, [(1, 100)], {1: NOON, 50: NOON}), 0)
    assert known is not None
    assert not known.finished(2, NOON)
    assert not known.exhausted
    assert not known.finished(51, NOON)
    assert known.exhausted


# -- what fits ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 16_000), st.integers(1, 400), st.integers(0, 2**32))
def test_a_map_fits_or_is_empty(count: int, gap: int, seed: int) -> None:
    dice = random.Random(seed)
    runs = runs_of(7, [(dice.randint(1, gap), dice.randint(1, gap)) for _ in range(count)])
    timestamps = stamped([first for first, _ in runs])
    text = encode(7, runs, timestamps)
    assert len(text.encode()) <= MAX_BYTES
    span = runs[-1][1] - runs[0][0]
    if text:
        assert fits(count, span)
        assert named_by(text, 7) == events_of(runs)
    else:
        assert count > 500
        assert span > 20_000


@pytest.mark.parametrize(
    ("runs", "limit"),
    [
        ([(1, 50_000)], 60),
        ([(first, first + 100) for first in range(1, 40_000, 101)], 1200),
        ([(first, first + 1) for first in range(1, 20_000, 2)], 3600),
    ],
    ids=["one slow event", "a slow event in a hundred", "every second event"],
)
def test_the_shorter_form_is_taken(runs: list[Run], limit: int) -> None:
    text = encode(0, runs, {runs[0][0]: NOON})
    assert 0 < len(text) < limit
    assert named_by(text, 0) == events_of(runs)


def test_nothing_finished_is_an_empty_text() -> None:
    assert encode(7, [], {}) == ""
    assert decode("", 7) is None


def test_events_without_timestamps_are_not_named_since_nothing_could_confirm_them() -> None:
    assert encode(7, [(8, 10)], {8: -1, 9: -1}) == ""
    known = decode(encode(7, [(8, 10)], {8: -1, 9: NOON}), 7)
    assert found(known, [8, 9], {8: -1, 9: NOON}) == [9]


# -- what anybody may have written -------------------------------------------------------------------------------------


@given(maps(), positions)
def test_a_map_is_read_only_at_the_offset_it_was_committed_with(
    drawn: tuple[int, list[Run], dict[int, int]], elsewhere: int
) -> None:
    position, runs, timestamps = drawn
    assume(position != elsewhere)
    assert decode(encode(position, runs, timestamps), elsewhere) is None


@given(st.text() | st.text().map("c1:".__add__) | st.from_regex(r"c[0-9]:[A-Za-z0-9_=-]*"), positions)
def test_a_foreign_text_is_no_map(text: str, position: int) -> None:
    assert decode(text, position) is None


@given(maps(), st.data())
def test_a_damaged_map_is_no_map(drawn: tuple[int, list[Run], dict[int, int]], data: st.DataObject) -> None:
    position, runs, timestamps = drawn
    text = encode(position, runs, timestamps)
    at = data.draw(st.integers(0, len(text) - 2))
    cut = data.draw(st.integers(0, 3))
    damaged = text[:at] + data.draw(st.text(max_size=3)) + text[at + cut :]
    assume(damaged != text)
    assert decode(damaged, position) is None


def test_another_version_is_no_map() -> None:
    text = encode(0, [(1, 5)], {1: NOON})
    assert decode(text, 0) is not None
    assert decode("c2:" + text[3:], 0) is None


@given(st.binary(max_size=60) | st.binary(min_size=2900, max_size=3100), positions, st.integers(0, 9))
def test_a_body_that_only_looks_right_is_a_map_or_none_and_never_an_error(
    body: bytes, position: int, version: int
) -> None:
    known = decode(sealed(bytes([version]) + body, position), position)
    if known is not None:
        for offset in range(position, position + 40):
            known.finished(offset, NOON)
        assert all(first < end for first, end in known.runs(position))
        assert known.exhausted in (True, False)


@pytest.mark.parametrize(
    "body",
    [
        b"\0\0\1" + b"\xff" * 8 + b"\x0f",
        b"\0\1\1" + b"\xff" * 3000,
        b"\0\0" + b"\xff" * 3050 + b"\1\1",
        b"\0\0" + b"\1\xff\xff\xff\xff\x0f" * 500,
        b"\xff\x7f" + b"\1\1" * 1500,
    ],
)
def test_hostile_runs_are_not_expanded(body: bytes) -> None:
    started = time.process_time()
    known = decode(sealed(body, 5), 5)
    if known is not None:
        assert not known.finished(6, NOON)
        assert len(known.runs(5)) < 25_000
    assert time.process_time() - started < 0.5
