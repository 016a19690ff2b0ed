"""What a page may show to strangers: why, and never who, which account or where."""

from __future__ import annotations

import pytest

from connector.core.reason import Reason
from connector.core.redaction import for_strangers
from connector.telemetry.problems import Problem


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "User: arn:aws:sts::123456789012:assumed-role/connector/pod may not call arn:aws-cn:x:y:123456789012:z",
            "User: *** may not call ***",
        ),
        ("account 123456789012 is suspended", "account *** is suspended"),
        ("Kafka at kafka-0.kafka:9092,10.0.0.7:9093 cannot be reached", "Kafka at ***,*** cannot be reached"),
        ("Kafka at [fe80::1]:9092 cannot be reached", "Kafka at *** cannot be reached"),
        ("Connect call failed ('10.0.0.7', 9092)", "Connect call failed ***"),
        ("no answer of https://sts.amazonaws.com/x, tried 3 times", "no answer of ***, tried 3 times"),
        ("the host 10.0.0.7 refuses", "the host *** refuses"),
        ("degraded since 12:03, 4 calls", "degraded since 12:03, 4 calls"),
        (
            "topic inference-requests/3 has events 17 to 123456789",
            "topic inference-requests/3 has events 17 to 123456789",
        ),
    ],
)
def test_a_sentence_keeps_what_it_says_and_hides_who_and_where(text: str, shown: str) -> None:
    assert for_strangers(text) == shown


@pytest.mark.parametrize("sentence", [*(one.sentence for one in Problem), *(one.meaning for one in Reason)])
def test_our_own_words_stay_as_they_are(sentence: str) -> None:
    assert for_strangers(sentence) == sentence
