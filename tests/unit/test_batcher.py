"""The batcher's trickiest cases, one by one."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from connector.core.batches.batcher import Batcher, BatchPolicy, Ordering
from connector.core.epochs.ledger import Ledger
from connector.core.event import Route
from tests.unit.factories import make_event, make_events, make_ledger, take

if TYPE_CHECKING:
    from connector.core.batches.batch import Batch


def batcher(
    *,
    max_events: int = 4,
    max_bytes: int = 1000,
    linger: float = 0.0,
    one_id: bool = False,
    ordering: Ordering = Ordering.KEY,
) -> Batcher:
    return Batcher(BatchPolicy(max_events, max_bytes, linger, one_id, ordering))


def answer(owner: Batcher, batch: Batch) -> None:
    """Have the results of a batch in hand, as the owner notes it."""
    for event in batch.events:
        event.ledger.answered(event)
    owner.answered(batch)


def offsets(batch: Batch | None) -> list[int]:
    return [] if batch is None else [event.offset for event in batch.events]


# -- when a batch closes ---------------------------------------------------------------------------------------------


def test_linger_counts_from_the_oldest_event() -> None:
    b, ledger = batcher(linger=5.0), make_ledger()
    b.add(make_events(ledger, "a", arrived=10.0))
    b.add(make_events(ledger, "b", first=1, arrived=14.0))
    assert b.peek(14.9) is None
    assert b.wake_at() == 15.0
    assert offsets(b.peek(15.0)) == [0, 1]


def test_a_full_batch_does_not_wait_for_its_linger() -> None:
    b = batcher(linger=5.0)
    b.add(make_events(make_ledger(), "abcd"))
    assert offsets(b.peek(0.0)) == [0, 1, 2, 3]


def test_a_batch_grows_past_its_linger_until_a_slot_takes_it() -> None:
    b, ledger = batcher(linger=1.0), make_ledger()
    b.add(make_events(ledger, "a"))
    assert offsets(b.peek(50.0)) == [0]
    b.add(make_events(ledger, "bcde", first=1, arrived=50.0))
    assert offsets(take(b, 50.0)) == [0, 1, 2, 3]
    assert b.peek(50.9) is None
    assert offsets(take(b, 51.0)) == [4]


def test_an_event_that_no_longer_fits_closes_the_batch_and_opens_the_next() -> None:
    b, ledger = batcher(linger=5.0, max_bytes=10), make_ledger()
    b.add([make_event(ledger, offset, b"%d" % offset, payload=b"1234") for offset in range(3)])
    assert offsets(take(b)) == [0, 1]
    assert b.peek(0.0) is None


def test_an_event_larger_than_a_body_goes_alone() -> None:
    b, ledger = batcher(linger=5.0, max_bytes=10), make_ledger()
    b.add([make_event(ledger, 0, b"a", payload=b"x" * 11), make_event(ledger, 1, b"b")])
    assert offsets(take(b)) == [0]


def test_the_body_formats_own_bytes_count() -> None:
    b, ledger = Batcher(BatchPolicy(64, 20, 5.0, one_id=False, overhead=2, row_overhead=1)), make_ledger()
    b.add([make_event(ledger, offset, b"%d" % offset, payload=b"12345") for offset in range(4)])
    batch = take(b)
    assert (offsets(batch), batch.size) == ([0, 1, 2], 20)


def test_the_batch_with_the_oldest_event_goes_first_though_it_closed_later() -> None:
    b, ledger = batcher(linger=5.0), make_ledger()
    b.add([make_event(ledger, 0, b"a", arrived=0.0, route=Route("slow"))])
    b.add(make_events(ledger, "bcde", first=1, arrived=4.0))
    assert offsets(b.peek(4.0)) == [1, 2, 3, 4]
    assert offsets(b.peek(5.0)) == [0]


def test_an_event_that_waited_for_its_lane_makes_its_batch_as_old_as_itself() -> None:
    b, ledger = batcher(max_events=2, linger=9.0), make_ledger()
    b.add(make_events(ledger, "ax"))
    held = take(b)
    b.add(make_events(ledger, "a", first=2, arrived=1.0))
    b.add(make_events(ledger, "bc", first=3, arrived=2.0))
    b.add(make_events(ledger, "d", first=5, arrived=3.0))
    b.answered(held)
    assert offsets(b.peek(3.0)) == [5, 2]


def test_a_part_is_as_old_as_its_oldest_event() -> None:
    b, ledger = batcher(max_events=3), make_ledger()
    b.add(make_events(ledger, "abx"))
    held = take(b)
    b.add(make_events(ledger, "a", first=3, arrived=1.0))
    b.add(make_events(ledger, "b", first=4, arrived=2.0))
    b.add(make_events(ledger, "c", first=5, arrived=3.0))
    b.answered(held)
    batch = take(b, 3.0)
    assert offsets(batch) == [5, 3, 4]
    b.split(batch)
    assert offsets(b.peek(3.0)) == [5, 3]


def test_a_long_linger_keeps_no_batch_alive_that_closed_by_count() -> None:
    b, ledger = batcher(max_events=1, linger=1e6), make_ledger()
    for offset in range(500):
        b.add([make_event(ledger, offset)])
        b.answered(take(b))
    assert len(b._due) < 100


# -- lanes -----------------------------------------------------------------------------------------------------------


def test_a_hot_key_fills_a_batch_and_the_rest_of_it_waits_for_the_answers() -> None:
    b = batcher(max_events=4)
    b.add(make_events(make_ledger(), "aaaaaa"))
    batch = take(b)
    assert offsets(batch) == [0, 1, 2, 3]
    assert b.peek(0.0) is None
    b.answered(batch)
    assert offsets(take(b)) == [4, 5]


def test_a_hot_key_does_not_hold_up_other_keys() -> None:
    b = batcher(max_events=2)
    b.add(make_events(make_ledger(), "aaaabc"))
    assert offsets(take(b)) == [0, 1]
    assert offsets(take(b)) == [4, 5]


def test_a_key_with_another_route_waits_for_its_earlier_event() -> None:
    b, ledger = batcher(), make_ledger()
    b.add([make_event(ledger, offset, b"a", route=Route(name)) for offset, name in enumerate("xyx")])
    for offset, name in enumerate("xyx"):
        batch = take(b)
        assert (batch.route, offsets(batch)) == (Route(name), [offset])
        assert b.peek(0.0) is None
        b.answered(batch)


def test_a_batch_that_waits_for_its_retry_holds_its_lanes() -> None:
    b, ledger = batcher(), make_ledger()
    b.add(make_events(ledger, "ab"))
    batch = take(b)
    events = batch.events
    b.retry(batch, 7.0)
    b.add(make_events(ledger, "ac", first=2))
    assert offsets(take(b)) == [3]
    assert b.peek(6.9) is None
    assert b.wake_at() == 7.0
    assert take(b, 7.0) is batch
    assert batch.events is events
    assert offsets(batch) == [0, 1]


def test_partitions_do_not_share_lanes_of_equal_keys() -> None:
    b = batcher(max_events=1)
    b.add([make_event(make_ledger(partition), 0, b"a") for partition in range(2)])
    assert {take(b).events[0].source, take(b).events[0].source} == {"inference-requests/0/0", "inference-requests/1/0"}


def test_events_without_a_key_share_batches_and_wait_for_nothing() -> None:
    b = batcher(max_events=2)
    b.add(make_events(make_ledger(), "....."))
    assert [offsets(take(b)) for _ in range(3)] == [[0, 1], [2, 3], [4]]


def test_an_event_without_a_key_goes_alone_at_once_when_a_batch_has_one_key() -> None:
    b, ledger = batcher(one_id=True, linger=5.0), make_ledger()
    b.add([make_event(ledger, 0), make_event(ledger, 1, b""), make_event(ledger, 2, b""), make_event(ledger, 3, b"a")])
    first, second = take(b), take(b)
    assert (offsets(first), offsets(second)) == ([0], [1])
    assert b.peek(0.0) is None
    b.answered(second)
    assert offsets(take(b)) == [2]


def test_ordering_by_partition_has_one_call_a_partition_whatever_the_keys_and_holes() -> None:
    b, ledger = batcher(max_events=2, ordering=Ordering.PARTITION), make_ledger()
    b.add([make_event(ledger, offset, key) for offset, key in ((3, b"a"), (7, None), (8, b"b"))])
    batch = take(b)
    assert offsets(batch) == [3, 7]
    assert b.peek(0.0) is None
    b.answered(batch)
    assert offsets(take(b)) == [8]


def test_without_ordering_equal_keys_are_called_side_by_side() -> None:
    b = batcher(max_events=1, ordering=Ordering.NONE)
    b.add(make_events(make_ledger(), "aa"))
    assert [offsets(take(b)), offsets(take(b))] == [[0], [1]]


# -- probes ----------------------------------------------------------------------------------------------------------


def test_a_probe_takes_one_event_and_what_it_leaves_keeps_its_order() -> None:
    b = batcher()
    b.add(make_events(make_ledger(), "aab"))
    batch = b.peek(0.0)
    assert batch is not None
    probe = b.behead(batch)
    assert (b.peek(0.0), offsets(probe)) == (probe, [0])
    b.take(probe)
    assert b.peek(0.0) is None
    b.answered(probe)
    assert offsets(take(b)) == [1, 2]


def test_a_probe_is_of_another_lane_where_one_is_due() -> None:
    b, ledger = batcher(one_id=True), make_ledger()
    a, other = make_events(ledger, "ab")
    b.add([a, other])
    assert offsets(b.probe(0.0, None)) == [0]
    assert offsets(b.probe(0.0, b.lane_of(a))) == [1]
    take(b)
    assert offsets(b.probe(0.0, b.lane_of(other))) == [1]


def test_an_expired_event_leaves_its_batch_and_the_rest_holds_its_lanes() -> None:
    b, ledger = batcher(), make_ledger()
    b.add(make_events(ledger, "ab"))
    batch = take(b)
    old, kept = b.cut(batch, batch.events[:1], batch.events[1:])
    b.answered(old)
    b.retry(kept, 3.0)
    b.add(make_events(ledger, "b", first=2))
    assert b.peek(2.0) is None
    assert take(b, 3.0) is kept
    b.answered(kept)
    assert offsets(take(b, 3.0)) == [2]


# -- the end of epochs -----------------------------------------------------------------------------------------------


def test_a_drain_calls_only_what_stands_below_an_answered_event() -> None:
    b, ledger = batcher(max_events=2, linger=9.0), make_ledger()
    b.add(make_events(ledger, "abcdefg"))
    take(b)
    answer(b, take(b))
    b.drain()
    assert b.peek(0.0) is None


def test_a_drain_ends_backoffs_and_lingers_of_what_stands_in_the_gap() -> None:
    b, ledger = batcher(max_events=2, linger=9.0), make_ledger()
    b.add(make_events(ledger, "abcd"))
    backing_off = take(b)
    b.retry(backing_off, 60.0)
    answered = take(b)
    b.add([make_event(ledger, 4, b"e", route=Route("slow")), *make_events(ledger, "fg", first=5)])
    answer(b, answered)
    answer(b, take(b))
    b.drain()
    assert {tuple(offsets(take(b))), tuple(offsets(take(b)))} == {(0, 1), (4,)}
    assert b.peek(0.0) is None


def test_an_answer_during_a_drain_brings_what_stands_below_it() -> None:
    b, ledger = batcher(max_events=3, linger=9.0), make_ledger()
    b.add(make_events(ledger, "abc"))
    answered = take(b)
    b.add([make_event(ledger, 6, b"x", route=Route("slow")), make_event(ledger, 7, b"x", route=Route("slow"))])
    late = b.peek(9.0)
    assert late is not None
    b.add(make_events(ledger, "de", first=3))
    b.take(late)
    answer(b, answered)
    ledger.highest_answered = 4
    b.drain()
    narrowed = take(b)
    assert offsets(narrowed) == [3]
    assert b.peek(9.0) is None
    answer(b, late)
    assert offsets(take(b)) == [4]


def test_what_a_drain_puts_back_keeps_its_place_in_its_lane() -> None:
    b, ledger = batcher(max_events=4, linger=9.0), make_ledger()
    b.add(make_events(ledger, "aaaaa"))
    b.add([make_event(ledger, 8, b"x", route=Route("slow"))])
    ledger.highest_answered = 1
    b.drain()
    narrowed = take(b)
    assert offsets(narrowed) == [0]
    ledger.highest_answered = 7
    answer(b, narrowed)
    assert offsets(take(b)) == [1, 2, 3, 4]


def test_a_cleared_batcher_takes_events_as_at_the_start() -> None:
    b, ledger = batcher(linger=1.0), make_ledger()
    b.add(make_events(ledger, "abcde"))
    b.retry(take(b), 5.0)
    b.drain()
    b.clear()
    assert b.empty
    assert b.wake_at() is None
    b.add(make_events(make_ledger(epoch=2), "a"))
    assert offsets(take(b, 1.0)) == [0]


# -- memory ------------------------------------------------------------------------------------------------------------


class Watched(Ledger):
    """A ledger that can be referred to weakly; it lives for as long as any of its events."""


@pytest.mark.parametrize("halved", [False, True])
def test_answered_events_are_gone_at_once_and_not_at_the_next_garbage_collection(*, halved: bool) -> None:
    b, ledger = batcher(), Watched("inference-requests", 0, 1)
    ledger.place(0, None)
    alive = weakref.ref(ledger)
    gc.disable()
    try:
        b.add(make_events(ledger, "abcd"))
        batch = take(b)
        if halved:
            b.split(batch)
            for _ in range(2):
                batch = take(b)
                b.answered(batch)
        else:
            b.answered(batch)
        del batch, ledger
        assert b.empty
        assert b.peek(0.0) is None
        assert alive() is None
    finally:
        gc.enable()
