"""LocalEndpoint, as the real SDK sees it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aioboto3
import aiohttp
import jsonschema
import pytest
from aiohttp import web
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import SettingsError, StartupError
from connector.local.endpoint.captures import Capture, CaptureWriter, read
from connector.local.endpoint.emulator import LocalEndpoint
from connector.local.endpoint.faults import KINDS, Fault, FaultPlan
from connector.local.endpoint.hosted_endpoint import HostedEndpoint
from connector.local.endpoint.model import Constant, Container, Digits, Echo, ModelFailure
from connector.local.endpoint.process import EndpointProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.integration

SCHEMA = json.loads((Path(__file__).parents[1] / "data" / "sagemaker-capture.schema.json").read_text())


class _Failing:
    quick = True

    def predict(self, body: bytes, content_type: str, accept: str) -> tuple[bytes, str]:
        raise ModelFailure(422, "no such feature")


@asynccontextmanager
async def _client(url: str, **config: Any) -> AsyncIterator[Any]:
    session = aioboto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    settings = Config(retries={"total_max_attempts": 1}, read_timeout=config.pop("read_timeout", 10), **config)
    async with session.client("sagemaker-runtime", endpoint_url=url, config=settings) as client:
        yield client


@asynccontextmanager
async def _serving(*hosted: HostedEndpoint, **options: Any) -> AsyncIterator[tuple[LocalEndpoint, Any]]:
    endpoints = hosted or (HostedEndpoint("echo", {"AllTraffic": Echo()}),)
    async with LocalEndpoint(endpoints, **options) as endpoint, _client(endpoint.url) as client:
        yield endpoint, client


async def _invoke(client: Any, name: str = "echo", body: bytes = b"1,2\n3,4\n", **members: Any) -> bytes:
    members.setdefault("ContentType", "text/csv")
    response = await client.invoke_endpoint(EndpointName=name, Body=body, **members)
    async with response["Body"] as stream:  # a read that fails does not give its connection back
        answer: bytes = await stream.read()
    return answer


async def _refusal(client: Any, *arguments: Any, **members: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as refused:
        await _invoke(client, *arguments, **members)
    response: dict[str, Any] = refused.value.response
    return response


async def test_every_member_reaches_the_endpoint_and_every_member_of_the_answer_comes_back() -> None:
    hosted = HostedEndpoint(
        "shop",
        {"blue": Constant("1"), "green": Constant("2")},
        containers={"second": Constant("3")},
        components={"part": Constant("4")},
    )
    async with _serving(hosted) as (endpoint, client):
        response = await client.invoke_endpoint(
            EndpointName="shop", Body=b"x\ny", ContentType="text/csv", TargetVariant="green", InferenceId="device 7"
        )
        assert await response["Body"].read() == b"2\n2\n"
        assert response["ContentType"] == "text/csv"
        assert response["InvokedProductionVariant"] == "green"
        assert await _invoke(client, "shop", TargetContainerHostname="second") == b"3\n3\n"
        assert await _invoke(client, "shop", InferenceComponentName="part") == b"4\n4\n"
        assert {await _invoke(client, "shop") for _ in range(2)} == {b"1\n1\n", b"2\n2\n"}
    seen = endpoint.calls[0]
    assert (seen.number, seen.inference_id, seen.rows, seen.status) == (1, "device 7", 2, 200)
    assert seen.body_sha256 == hashlib.sha256(b"x\ny").hexdigest()


async def test_a_multi_model_endpoint_wants_a_model_that_it_has() -> None:
    hosted = HostedEndpoint("many", {"AllTraffic": Echo()}, models={"a.tar.gz": Constant("a")})
    async with _serving(hosted, HostedEndpoint("one", {"AllTraffic": Echo()})) as (_, client):
        assert await _invoke(client, "many", body=b"x", TargetModel="a.tar.gz") == b"a\n"
        for name, members in (("many", {}), ("many", {"TargetModel": "b"}), ("one", {"TargetModel": "a.tar.gz"})):
            assert (await _refusal(client, name, **members))["Error"]["Code"] == "ValidationError"


async def test_a_session_is_opened_kept_and_refused_when_unknown() -> None:
    async with _serving() as (_, client):
        response = await client.invoke_endpoint(EndpointName="echo", Body=b"x", SessionId="NEW_SESSION")
        session, _, expires = response["NewSessionId"].partition("; ")
        assert expires.startswith("Expires=")
        assert await _invoke(client, body=b"x", SessionId=session) == b"x"
        refusal = await _refusal(client, SessionId="stranger")
        assert refusal["Error"]["Message"] == "Session stranger was not found."


@pytest.mark.parametrize(
    ("members", "member"),
    [
        ({"InferenceId": "i" * 65}, "inferenceId"),
        ({"InferenceId": "naïve"}, "inferenceId"),
        ({"CustomAttributes": "a" * 1025}, "customAttributes"),
        ({"SessionId": "not a session"}, "sessionId"),
        ({"TargetModel": "m" * 1025}, "targetModel"),
    ],
)
async def test_a_member_that_breaks_its_rule_is_a_validation_error(members: dict[str, str], member: str) -> None:
    async with _serving() as (_, client):
        refusal = await _refusal(client, **members)
    assert refusal["Error"]["Code"] == "ValidationError"
    assert f"at '{member}' failed to satisfy constraint" in refusal["Error"]["Message"]


# aiohttp advises against bytes over 1 MiB.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_the_longest_body_and_id_are_taken_and_a_byte_more_is_not() -> None:
    async with _serving() as (_, client):
        assert len(await _invoke(client, body=b"x" * (6 << 20), InferenceId="i" * 64)) == 6 << 20
        refusal = await _refusal(client, body=b"x" * ((6 << 20) + 1))
    assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 413


_S3_SIGNATURE = (
    f"AWS4-HMAC-SHA256 Credential=A/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature={'0' * 64}"
)


async def test_an_unknown_endpoint_is_named_as_the_service_does() -> None:
    async with _serving() as (_, client):
        error = (await _refusal(client, "nothing"))["Error"]
    assert error == {"Code": "ValidationError", "Message": "Endpoint nothing of account 123456789012 not found."}


@pytest.mark.parametrize(
    ("authorization", "kind"),
    [
        (None, "MissingAuthenticationTokenException"),
        ("Bearer token", "IncompleteSignatureException"),
        (_S3_SIGNATURE, "InvalidSignatureException"),
    ],
)
async def test_a_call_without_a_good_signature_is_refused(authorization: str | None, kind: str) -> None:
    headers = {"X-Amz-Date": "20260101T000000Z"} | ({"Authorization": authorization} if authorization else {})
    async with (
        _serving() as (endpoint, _),
        aiohttp.ClientSession() as session,
        session.post(f"{endpoint.url}/endpoints/echo/invocations", data=b"x", headers=headers) as response,
    ):
        assert (response.status, response.headers["x-amzn-ErrorType"]) == (403, kind)


async def test_a_models_failure_is_a_model_error_with_its_members() -> None:
    async with _serving(HostedEndpoint("failing", {"main": _Failing()})) as (_, client):
        refusal = await _refusal(client, "failing")
    assert refusal["Error"]["Code"] == "ModelError"
    assert refusal["ResponseMetadata"]["HTTPStatusCode"] == 424
    assert refusal["OriginalStatusCode"] == 422
    assert refusal["OriginalMessage"] == "no such feature"
    assert refusal["LogStreamArn"].startswith("arn:aws:logs:us-east-1:123456789012:log-group:/aws/sagemaker/Endpoints/")
    assert refusal["Error"]["Message"] == 'Received client error (422) from main with message "no such feature".'


ANSWERS = {
    "throttle": (400, "ThrottlingException"),
    "throttle_untyped": (400, "400"),
    "too_many_requests": (429, "429"),
    "model_not_ready": (429, "ModelNotReadyException"),
    "service_unavailable": (503, "ServiceUnavailable"),
    "internal_failure": (500, "InternalFailure"),
    "internal_dependency": (530, "InternalDependencyException"),
    "model_error": (424, "ModelError"),
    "validation": (400, "ValidationError"),
    "access_denied": (403, "AccessDeniedException"),
    "expired_token": (403, "ExpiredTokenException"),
    "endpoint_not_found": (400, "ValidationError"),
}
SPOILT = {"wrong_rows": b"0\n", "garbage": b"\xff\x00<garbage>", "delay": b"1,2\n3,4\n"}
# aiobotocore says "could not connect" of a reset, and lets aiohttp's own error through for a response cut short.
BROKEN = {"hang": ReadTimeoutError, "reset": EndpointConnectionError, "truncate": aiohttp.ClientPayloadError}


def test_every_fault_is_tried() -> None:
    assert {*ANSWERS, *SPOILT, *BROKEN} == set(KINDS)


@pytest.mark.parametrize("kind", ANSWERS)
async def test_the_sdk_sees_a_fault_as_the_services_error(kind: str) -> None:
    async with _serving(faults=[Fault(kind, calls=frozenset({1}))]) as (endpoint, client):
        refusal = await _refusal(client)
        assert (refusal["ResponseMetadata"]["HTTPStatusCode"], refusal["Error"]["Code"]) == ANSWERS[kind]
        assert (refusal["Error"].get("Message") is None) == kind.startswith("throttle")
        assert await _invoke(client) == b"1,2\n3,4\n"
    assert [(call.status, call.fault) for call in endpoint.calls] == [(ANSWERS[kind][0], kind), (200, None)]


@pytest.mark.parametrize("kind", SPOILT)
async def test_the_sdk_sees_a_fault_as_another_answer(kind: str) -> None:
    async with _serving(faults=[Fault(kind, seconds=0.2)]) as (endpoint, client):
        assert await _invoke(client) == SPOILT[kind]
    call = endpoint.calls[0]
    assert call.finished is not None
    assert (call.finished - call.started >= 0.2) == (kind == "delay")


@pytest.mark.parametrize("kind", BROKEN)
async def test_the_sdk_sees_a_fault_as_a_broken_connection(kind: str) -> None:
    async with LocalEndpoint(
        [HostedEndpoint("echo", {"AllTraffic": Echo()})], faults=[Fault(kind, times=1)]
    ) as endpoint:
        async with _client(endpoint.url, read_timeout=1) as client:
            with pytest.raises(BROKEN[kind]):
                await _invoke(client, body=b"x" * 10_000)
            assert await _invoke(client) == b"1,2\n3,4\n"
        assert endpoint.stats.in_flight == 0


async def test_other_processes_steer_it_over_http() -> None:
    async with _serving() as (endpoint, client), aiohttp.ClientSession(endpoint.url) as session:
        poison = Fault("model_error", status=400, payload=b"poison")
        async with session.put("/_/faults", json=[poison.as_json()]) as response:
            assert await response.json() == {"faults": 1}
        assert (await _refusal(client, body=b"1\npoison"))["OriginalStatusCode"] == 400
        await _invoke(client, body=b"1\n2", InferenceId="fine")
        async with session.get("/_/calls?since=1") as response:
            assert [(call["inference_id"], call["status"]) for call in await response.json()] == [("fine", 200)]
        async with session.get("/_/stats") as response:
            stats = await response.json()
        assert (stats["calls"], stats["rows"], stats["by_status"]) == (2, 4, {"424": 1, "200": 1})
        async with session.get("/_/faults") as response:
            assert [Fault.parse(fault) for fault in await response.json()] == [poison]
        async with session.put("/_/faults", json=[{"kind": "no such"}]) as response:
            assert response.status == 400
        assert list(endpoint.faults) == [poison]


async def test_calls_at_once_are_counted() -> None:
    async with _serving(latency=0.2) as (endpoint, client):
        await asyncio.gather(*(_invoke(client) for _ in range(5)))
    assert endpoint.stats.max_in_flight == 5
    assert endpoint.stats.in_flight == 0


async def test_digits_are_recognised_and_bad_rows_refused() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.data[898:1098], digits.target[898:1098]
    csv = "\n".join(",".join(f"{pixel:g}" for pixel in image) for image in images).encode()
    async with _serving(HostedEndpoint("digits", {"AllTraffic": Digits()})) as (_, client):
        predicted = (await _invoke(client, "digits", csv)).decode().split()
        assert sum(int(label) == int(said) for label, said in zip(labels, predicted, strict=True)) > 170
        rows = json.dumps({"instances": images.tolist()}).encode()
        answer = json.loads(await _invoke(client, "digits", rows, ContentType="application/json"))
        assert [str(label) for label in answer["predictions"]] == predicted
        lines = "\n".join(json.dumps({"features": image.tolist()}) for image in images).encode()
        answered = await _invoke(client, "digits", lines, ContentType="application/jsonlines", Accept="text/csv")
        assert answered.decode().split() == predicted
        for body, content_type, accept, status in (
            (csv + b"\n1,2", "text/csv", "text/csv", 400),
            (csv + b"\nx", "text/csv", "text/csv", 400),
            (b"{", "application/json", "text/csv", 400),
            (csv, "image/png", "text/csv", 415),
            (csv, "text/csv", "image/png", 406),
        ):
            refusal = await _refusal(client, "digits", body, ContentType=content_type, Accept=accept)
            assert refusal["OriginalStatusCode"] == status


async def test_a_container_gets_the_call_and_its_failures_are_model_errors() -> None:
    async def invocations(request: web.Request) -> web.Response:
        body = await request.read()
        if body == b"bad":
            return web.Response(status=500, text="Traceback")
        attributes = request.headers["X-Amzn-SageMaker-Custom-Attributes"]
        headers = {"X-Amzn-SageMaker-Custom-Attributes": attributes.upper()}
        return web.Response(body=body[::-1], headers=headers, content_type="text/csv")

    application = web.Application()
    application.router.add_post("/invocations", invocations)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    container = Container(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        async with _serving(HostedEndpoint("proxy", {"AllTraffic": container})) as (_, client):
            response = await client.invoke_endpoint(EndpointName="proxy", Body=b"1,2", CustomAttributes="trace")
            assert (await response["Body"].read(), response["CustomAttributes"]) == (b"2,1", "TRACE")
            refusal = await _refusal(client, "proxy", b"bad")
            assert (refusal["OriginalStatusCode"], refusal["OriginalMessage"]) == (500, "Traceback")
            await runner.cleanup()
            assert (await _refusal(client, "proxy"))["OriginalStatusCode"] == 0
    finally:
        await runner.cleanup()


async def test_each_call_is_one_capture_line_of_the_services_schema(tmp_path: Path) -> None:
    binary = bytes(range(256))
    calls: list[tuple[bytes, str, str, dict[str, str]]] = [
        (b"1,2\n3,4\n", "text/csv", "CSV", {"InferenceId": "device-7", "CustomAttributes": "trace=1"}),
        (b'{"instances": [1]}', "application/json", "JSON", {}),
        (binary, "application/x-npy", "BASE64", {"InferenceId": "device-8"}),
        (binary, "text/csv", "BASE64", {}),
    ]
    async with _serving(captures=CaptureWriter(tmp_path)) as (endpoint, client):
        for body, content_type, _, members in calls:
            await _invoke(client, body=body, ContentType=content_type, **members)
        (path,) = tmp_path.rglob("*.jsonl")
        lines = path.read_text().splitlines()
        endpoint.faults = [Fault("model_error")]
        await _refusal(client)
        assert len(path.read_text().splitlines()) == len(lines)
    documents = [json.loads(line) for line in lines]
    validator = jsonschema.Draft202012Validator(SCHEMA, format_checker=jsonschema.FormatChecker())
    for document, (_, _, encoding, members) in zip(documents, calls, strict=True):
        validator.validate(document)
        assert document["captureData"]["endpointInput"]["encoding"] == encoding
        assert document["eventMetadata"].get("inferenceId") == members.get("InferenceId")
        hour = document["eventMetadata"]["inferenceTime"][:13].replace("-", "/").replace("T", "/")
        assert path.parent == tmp_path / "echo" / "AllTraffic" / hour
    captures = list(read(tmp_path))
    assert [(capture.input, capture.input_type) for capture in captures] == [(call[0], call[1]) for call in calls]
    assert captures[0].custom_attributes == ("trace=1",)
    assert captures[0].output == b"1,2\n3,4\n"
    assert captures[1].output == b'{"predictions": [1]}'
    assert len({capture.event_id for capture in captures}) == len(calls)


def test_a_line_that_is_being_written_and_a_side_that_is_absent_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "e" / "v" / "2026" / "01" / "01" / "00"
    folder.mkdir(parents=True)
    whole = {"captureData": {}, "eventMetadata": {"eventId": "1"}, "eventVersion": "0"}
    (folder / "a.jsonl").write_text(json.dumps(whole) + "\n" + '{"captureDa')
    (capture,) = read(tmp_path)
    assert isinstance(capture, Capture)
    assert (capture.endpoint, capture.variant, capture.event_id, capture.input) == ("e", "v", "1", None)


def test_a_share_of_the_calls_is_captured(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path, share=0.5)
    capture = Capture("e", "v", "1", time=datetime(2026, 1, 1, tzinfo=UTC), input=b"x")
    for _ in range(200):
        writer.write(capture)
    writer.close()
    assert 60 < len(list(read(tmp_path))) < 140


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 5), st.integers(1, 5))
def test_conditions_of_a_fault_are_all_needed(poisoned: list[bool], every: int, times: int) -> None:
    plan = FaultPlan([Fault("reset", payload=b"bad", every=every, times=times)])
    bodies = [b"bad" if bad else b"good" for bad in poisoned]
    hit = [number for number, body in enumerate(bodies, 1) if plan.next("e", body, 0.0)]
    wanted = [number for number, bad in enumerate(poisoned, 1) if bad and number % every == 0]
    assert hit == wanted[:times]


@given(st.floats(0.05, 1), st.integers(0, 1000))
def test_a_rate_is_the_same_for_the_same_seed(rate: float, seed: int) -> None:
    plans = [FaultPlan([Fault("throttle", rate=rate)], seed=seed) for _ in range(2)]
    first, second = ([bool(plan.next("e", b"", 0.0)) for _ in range(50)] for plan in plans)
    assert first == second


def test_a_fault_ends_with_its_time_and_delays_add_up_with_others() -> None:
    plan = FaultPlan([Fault("delay"), Fault("throttle", until=5), Fault("reset")], at=100)
    assert [fault.kind for fault in plan.next("e", b"", 105)] == ["delay", "throttle"]
    assert [fault.kind for fault in plan.next("e", b"", 106)] == ["delay", "reset"]


@pytest.mark.parametrize(
    "data",
    ["throttle", {"rate": 1}, {"kind": "no"}, {"kind": "throttle", "rate": 0}, {"kind": "throttle", "often": 1}],
)
def test_a_fault_that_cannot_be_read_is_refused_in_a_sentence(data: object) -> None:
    with pytest.raises(SettingsError, match=r"\.$"):
        Fault.parse(data)


async def test_an_endpoint_in_its_own_process_is_steered_and_ends_with_it(tmp_path: Path) -> None:
    with EndpointProcess("remote", model="echo", captures=tmp_path) as process:
        async with _client(process.url) as client:
            assert await _invoke(client, "remote") == b"1,2\n3,4\n"
            process.set_faults([Fault("throttle")])
            assert (await _refusal(client, "remote"))["Error"]["Code"] == "ThrottlingException"
        assert [call["status"] for call in process.calls()] == [200, 400]
        assert process.stats()["calls"] == 2
        assert [capture.input for capture in read(tmp_path)] == [b"1,2\n3,4\n"]
    with pytest.raises(StartupError, match="does not run"):
        _ = process.pid


async def test_a_taken_port_is_named() -> None:
    async with _serving() as (endpoint, _):
        port = int(endpoint.url.rpartition(":")[2])
        with pytest.raises(StartupError, match=f"Port {port} on 127.0.0.1 cannot be used"):
            await LocalEndpoint([], port=port).__aenter__()
