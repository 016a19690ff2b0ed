"""The signature: refused for a minute it is something that a person must mend, and accepted once it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from connector.core.calls.call import Failure
from connector.core.calls.outcome import Kind, Outcome
from connector.core.calls.signature import PATIENCE, Signature
from connector.core.reason import Reason
from connector.telemetry.problems import Problem
from tests.unit.pipeline_bench import Bench, Play, ok, simulated
from tests.unit.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Sequence

SKEWED = Failure(
    "InvalidSignatureException", 403, "Signature expired: 20261128T120000Z is earlier than 20261128T121500Z"
)
REFUSED = Outcome(Kind.RETRY, Reason.CREDENTIALS)
OUTCOMES = {
    "refused": REFUSED,
    "answered": Outcome(Kind.OK, Reason.OK),
    "rejected": Outcome(Kind.SPLIT, Reason.REJECTED_BY_MODEL),
    "away": Outcome(Kind.RETRY, Reason.SERVICE_UNAVAILABLE),
}


@given(st.lists(st.tuples(st.sampled_from([*OUTCOMES]), st.floats(0, 50)), max_size=20))
def test_it_is_refused_since_the_first_refusal_that_no_accepted_call_has_followed(
    ends: Sequence[tuple[str, float]],
) -> None:
    signature, now, since = Signature(), 0.0, None
    for end, later in ends:
        now += later
        signature.note(OUTCOMES[end], now)
        if end == "refused":
            since = now if since is None else since
        elif end != "away":
            since = None
        expected = None if since is None or now - since <= PATIENCE else now - since
        assert signature.refused_for(now) == expected


@in_virtual_time
async def test_a_clock_that_is_wrong_for_more_than_a_minute_is_not_ready_until_a_call_is_accepted() -> None:
    with simulated() as log:
        bench = Bench(lambda _: Play(SKEWED))
        bench.deliver(b"1", b"2")
        await bench.wait(50)
        assert not bench.problems.held, "credentials may just be renewed"
        await bench.wait(60)
        (held,) = bench.problems.held
        assert held.problem is Problem.SIGNATURE_REFUSED
        assert "clock" in held.sentence
        assert "endpoint.region" in held.sentence
        assert "Signature expired" in held.sentence
        bench.endpoint.script = lambda call: Play(ok(call))
        await bench.complete()
        assert not bench.problems.held
    assert [line["event"] for line in log].count("signature_refused") == 1
