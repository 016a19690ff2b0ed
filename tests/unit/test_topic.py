"""What topics make impossible or expensive, in sentences."""

from __future__ import annotations

import uuid

import pytest

from connector.kafka.topic import Topic, advice
from connector.settings import parse

KAFKA = parse({}).kafka
NAMES = (KAFKA.input_topic, KAFKA.output_topic, KAFKA.dead_letter_topic)


def advised(partitions: tuple[int, int, int] = (4, 4, 4), limits: tuple[int | None, ...] = (1000, 1000, 4000)) -> str:
    """The advice about input, output and dead-letter topic with these partitions and limits."""
    topics = {
        name: Topic(name, uuid.uuid4(), count, limit)
        for name, count, limit in zip(NAMES, partitions, limits, strict=True)
    }
    return "\n".join(advice(KAFKA, topics))


def test_topics_that_fit_each_other_need_no_advice() -> None:
    assert advised() == ""


@pytest.mark.parametrize(("letters", "fits"), [(3047, False), (3048, True)])
def test_a_dead_letter_topic_needs_room_for_an_event_and_its_reason(letters: int, fits: bool) -> None:
    assert (
        "set max.message.bytes of inference-requests.dlq to 3048 or more" in advised(limits=(1000, 1, letters))
    ) is (not fits)


def test_fewer_output_partitions_than_input_partitions_are_said() -> None:
    assert "has 3 partitions" in advised(partitions=(4, 3, 1))
    assert advised(partitions=(4, 4, 1)) == ""


def test_limits_that_may_not_be_read_are_said_and_nothing_is_guessed() -> None:
    assert "may not be read with our access" in advised(limits=(None, None, None))
