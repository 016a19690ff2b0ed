"""Repairs of aiokafka: everything that needs its private names, each with the failure that it prevents.

Those of its parser are in `unreadable.py`. They were tried with the versions in TRIED, and refuse any other. The item
numbers are those of docs/DESIGN.md, "Kafka".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import aiokafka
import aiokafka.client
import aiokafka.errors as kafka_errors
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator, create_conn
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest

from connector.core.epochs.ledger import Commit
from connector.errors import StartupError
from connector.kafka.explanation import explain
from connector.telemetry.log_events import LogEvent

TRIED = frozenset({"0.14.0"})
_AFTER_A_FAILED_UPDATE = 0.5
"""Seconds until a client asks for metadata again after nobody has answered."""
_NEXT_SERVER = 0.5
"""Seconds until the next bootstrap server is asked as well, while those before it have not answered."""
_TIMEOUTS_CUT_OFF = 3
"""Request time-outs without an answer of any broker after which the bootstrap servers are asked again."""
_AFTER_A_RIVAL = 5.0
"""Seconds until a member joins again whose name was taken, so that the other one can work meanwhile."""
_MEMBERSHIP = frozenset({JoinGroupRequest.API_KEY, SyncGroupRequest.API_KEY, HeartbeatRequest.API_KEY})
_OF_MEMBERS = _MEMBERSHIP | {OffsetCommitRequest.API_KEY}
_ILLEGAL_GENERATION, _UNKNOWN_MEMBER_ID, _FENCED_INSTANCE_ID = 22, 25, 82
"""Codes of answers to who is no member (https://kafka.apache.org/protocol#protocol_error_codes)."""
_STILL_A_MEMBER = frozenset({0, kafka_errors.RebalanceInProgressError.errno})
_OF_A_CONNECTION = (
    "security_protocol",
    "ssl_context",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "sasl_kerberos_service_name",
    "sasl_kerberos_domain_name",
    "sasl_oauth_token_provider",
)
_SILENCE = (TimeoutError, ConnectionError)
"""What says of a server no more than that it is not there."""
_NO_MEMBER = frozenset({_ILLEGAL_GENERATION, _UNKNOWN_MEMBER_ID, _FENCED_INSTANCE_ID})

_log = structlog.get_logger("connector.kafka")
_step = OAuthAuthenticator.step
_bootstrap = AIOKafkaClient.bootstrap


def check_version(version: str = aiokafka.__version__) -> None:
    """Refuse an aiokafka that the repairs were not tried with; raises StartupError."""
    if version not in TRIED:
        raise StartupError(
            f"aiokafka {version} is installed, but this connector repairs private parts of it and was tried only with "
            f"{', '.join(sorted(TRIED))}; install that version"
        )


def create_no_topics() -> None:
    """Let no client of this process create a topic by asking about it.

    aiokafka leaves that to the brokers, and by default they create: a topic that is deleted while we work would be back
    at once, with the brokers' number of partitions, and nobody would hear of it.
    """
    aiokafka.client.MetadataRequest = partial(MetadataRequest, allow_auto_topic_creation=False)


def pace_metadata(client: Any) -> None:
    """Let a client wait a while between updates of its metadata.

    A fetcher or sender that knows of a partition without leader asks for an update whenever one has ended. The partitions
    of a broker that was stopped in order have none, so that would be a hot loop until it is back: without any broker a
    core's worth of refused connections and 10,000 lines a second, with another one as many requests as that can take.
    """
    update, next_update = client._metadata_update, 0.0

    async def paced(cluster: Any, topics: Any) -> bool:
        nonlocal next_update
        if cluster is not client.cluster:  # somebody's single look
            return bool(await update(cluster, topics))
        await asyncio.sleep(next_update - time.monotonic())
        known = bool(await update(cluster, topics))
        next_update = time.monotonic() + (client._retry_backoff if known else _AFTER_A_FAILED_UPDATE)
        return known

    client._metadata_update = paced


def renew_security(client: Any, changed: Callable[[], Mapping[str, Any]]) -> None:
    """Let a client open every connection with what `changed` gives then, by the names of aiokafka's keyword arguments.

    aiokafka keeps the certificates and the password that it was made with. Once the brokers take others it is refused for
    as long as it lives, while it tries on without an error.
    """
    connect = client._get_conn

    async def renewing(node_id: Any, *, group: Any = ConnectionGroup.DEFAULT, no_hint: bool = False) -> Any:
        connection = client._conns.get((node_id, group))
        if connection is None or not connection.connected():
            for name, value in changed().items():
                setattr(client, f"_{name}", value)
        return await connect(node_id, group=group, no_hint=no_hint)

    client._get_conn = renewing


def race_bootstraps() -> None:
    """Let every client ask the next bootstrap server when one has not answered for a moment, and take the first answer.

    aiokafka asks them one after the other, each for as long as a request may take or longer: one that accepts and never
    answers, and every start of a client waits for it. A server that is only slow is still waited for.
    """
    AIOKafkaClient.bootstrap = _race


async def _race(client: Any) -> None:
    connection, metadata = await _first_answer(client, [])
    client.cluster.update_metadata(metadata)
    if client.cluster.brokers():
        connection.close()
    else:  # A cluster without topics may name no brokers: they are asked for through this connection.
        client._conns["bootstrap", ConnectionGroup.DEFAULT] = connection
    if client._sync_task is None:
        client._sync_task = asyncio.create_task(client._md_synchronizer())


def return_to_bootstrap(client: Any) -> None:
    """Let a client ask the bootstrap servers again when no broker that it knows of has answered for long.

    aiokafka asks them at its start only. When every broker has come back at another address, a client looks for them at
    the former ones for as long as it lives.
    """
    update, limit = client._metadata_update, client._request_timeout_ms / 1000
    again: float | None = None

    async def returning(cluster: Any, topics: Any) -> bool:
        nonlocal again
        if await update(cluster, topics):
            again = None
            return True
        if again is None:
            again = time.monotonic() + _TIMEOUTS_CUT_OFF * limit
        if cluster is not client.cluster or time.monotonic() < again:
            return False
        with contextlib.suppress(kafka_errors.KafkaConnectionError):
            connection, metadata = await _first_answer(client, list(topics) or None)
            connection.close()
            cluster.update_metadata(metadata)
        again = time.monotonic() + limit
        return False

    client._metadata_update = returning


async def _first_answer(client: Any, topics: list[str] | None) -> tuple[AIOKafkaConnection, Any]:
    """A connection to the bootstrap server that answered first, and its metadata of the topics; None for all of them.

    Raises KafkaConnectionError when all have failed, because of the failure that says most.
    """
    waiting = deque(client.hosts)
    asked: set[asyncio.Task[tuple[AIOKafkaConnection, Any]]] = set()
    failures: list[BaseException] = []
    try:
        while waiting or asked:
            if waiting:
                host, port, _ = waiting.popleft()
                asked.add(asyncio.create_task(_ask(client, host, port, topics)))
            limit = _NEXT_SERVER if waiting else None
            done, _ = await asyncio.wait(asked, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (failure := task.exception()) is None:
                    asked.discard(task)
                    return task.result()
                failures.append(failure)
            asked -= done
    finally:
        for task in asked:
            task.cancel()
            task.add_done_callback(_close_late)
        if asked:
            await asyncio.wait(asked, timeout=_NEXT_SERVER)
    telling = next((failure for failure in failures if not isinstance(failure, _SILENCE)), failures[0])
    raise kafka_errors.KafkaConnectionError(f"none of {client.hosts} can be asked for the cluster") from telling


async def _ask(client: Any, host: str, port: int, topics: list[str] | None) -> tuple[AIOKafkaConnection, Any]:
    connection: AIOKafkaConnection | None = None
    try:
        connection = await create_conn(
            host,
            port,
            client_id=client._client_id,
            request_timeout_ms=client._request_timeout_ms,
            max_idle_ms=client._connections_max_idle_ms,
            **{name: getattr(client, f"_{name}") for name in _OF_A_CONNECTION},
        )
        return connection, await connection.send(MetadataRequest(topics, allow_auto_topic_creation=False))
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, Exception):
            _log.warning(LogEvent.SERVER_FAILED, server=f"{host}:{port}", error=explain(error))
        raise


def _close_late(task: asyncio.Task[tuple[AIOKafkaConnection, Any]]) -> None:
    """Close the connection of an answer that came second."""
    if not task.cancelled() and task.exception() is None:
        task.result()[0].close()


def hear_refused_tokens() -> None:
    """Let a broker's refusal of a token end the login.

    aiokafka takes any answer to a token for a yes. The broker waits for the end of the refusal (RFC 7628, section 3.2.3),
    so every request that follows is answered with nonsense: a cluster without brokers, and a start that hangs.
    """
    OAuthAuthenticator.step = _step_of_a_login


async def _step_of_a_login(authenticator: OAuthAuthenticator, answer: bytes | None) -> tuple[bytes, bool] | None:
    if authenticator._token_sent and answer:
        raise kafka_errors.SaslAuthenticationFailed(f"the token is refused: {answer.decode(errors='replace')[:300]}")
    step: tuple[bytes, bool] | None = await _step(authenticator, answer)
    return step


def keep_poll_detection(consumer: AIOKafkaConsumer) -> None:
    """Keep `max.poll.interval` watched after a `getmany` that raised or was cancelled.

    Its fetch context does not count down on an exception, so the consumer would look busy for good, and a loop that
    died later would keep its partitions for ever.
    """
    state = consumer._subscription

    @contextlib.contextmanager
    def fetch_context() -> Iterator[None]:
        state._fetch_count += 1
        try:
            yield
        finally:
            state._fetch_count -= 1
            if state._fetch_count == 0:
                state._last_fetch_ended = time.monotonic()

    state.fetch_context = fetch_context


def on_coordinator_answer(consumer: AIOKafkaConsumer, heard: Callable[[Any, float], None]) -> None:
    """Call `heard` with every answer of the group coordinator, and the moment at which it was asked.

    aiokafka itself is silent when the network is.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_req

    async def listening(request: Any) -> Any:
        asked = time.monotonic()
        response = await send(request)
        heard(response, asked)
        return response

    coordinator._send_req = listening


def is_member(response: Any) -> bool | None:
    """Whether an answer of the coordinator takes us for a member of the group; None when it does not say."""
    if response.API_KEY not in _MEMBERSHIP:
        return None
    if response.error_code in _STILL_A_MEMBER:
        return True
    return False if response.error_code in _NO_MEMBER else None


def on_rival(consumer: AIOKafkaConsumer, met: Callable[[], None]) -> None:
    """Call `met` when another process has joined with our `group_instance_id`, and let it work a while before we return.

    The group then takes us for gone. aiokafka joins again at once, so the other one is gone, and so on, at every
    heartbeat and without a word. A member that is unknown before its session can have ended was replaced (aiokafka's
    heartbeats and commits carry no instance id, so they are not told so), and a joiner is told: FENCED_INSTANCE_ID.
    """
    coordinator = consumer._coordinator
    if coordinator._group_instance_id is None:
        return
    send, session = coordinator._send_req, coordinator._session_timeout_ms / 1000
    member_until = returning = 0.0

    async def watching(request: Any) -> Any:
        nonlocal member_until, returning
        if isinstance(request, JoinGroupRequest) and (wait := returning - time.monotonic()) > 0:
            await asyncio.wait([coordinator._closing], timeout=wait)
            if coordinator._closing.done():
                raise kafka_errors.GroupCoordinatorNotAvailableError()
        response = await send(request)
        if response.API_KEY in _OF_MEMBERS:
            codes, now = _error_codes(response), time.monotonic()
            if _FENCED_INSTANCE_ID in codes or (_UNKNOWN_MEMBER_ID in codes and now < member_until):
                member_until, returning = 0.0, now + _AFTER_A_RIVAL
                met()
            elif codes <= _STILL_A_MEMBER:
                member_until = now + session
        return response

    coordinator._send_req = watching


def _error_codes(response: Any) -> set[int]:
    """The error codes of a coordinator's answer, which a commit has for each partition."""
    if hasattr(response, "error_code"):
        return {response.error_code}
    return {code for _, partitions in response.topics for _, code in partitions}


def generation(consumer: AIOKafkaConsumer) -> int:
    """The generation of our membership; below 0 when the group has kicked us out, so that our partitions are lost."""
    return int(consumer._coordinator.generation)


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Let a member join its group anew, which gives its partitions up and takes what the group gives it."""
    consumer._coordinator.request_rejoin()


def client(consumer: AIOKafkaConsumer) -> Any:
    """The client of a consumer, for requests that the consumer has no method for, without connections of their own."""
    return consumer._client


def position(consumer: AIOKafkaConsumer, partition: TopicPartition) -> int | None:
    """Where the next fetch of a partition begins; the public `position()` waits until there is one."""
    assignment = consumer._subscription.subscription and consumer._subscription.subscription.assignment
    if assignment is None or partition not in assignment.tps:
        return None
    state = assignment.state_value(partition)
    return int(state.position) if state.has_valid_position else None


def heartbeat_died(consumer: AIOKafkaConsumer) -> bool:
    """Whether a background task of the membership ended by an error, after which the consumer cannot recover.

    aiokafka starts neither a heartbeat nor its reading of commits again before the next rebalance, which nobody asks
    for: until the group gives the partitions away, and after that, it tells the same error at every turn.
    """
    if consumer._closed:
        return False
    coordinator = consumer._coordinator
    tasks = (coordinator._heartbeat_task, coordinator._commit_refresh_task)
    return bool(coordinator._coordination_task.done()) or any(
        task is not None and task.done() and not task.cancelled() and task.exception() is not None for task in tasks
    )


async def committed(
    consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Commit | None]:
    """What the group has committed of every given partition, None where it has nothing; raises KafkaError.

    aiokafka's own `committed()` ignores the response's top-level error and takes a missing answer for "no commit": a
    group committed at 70 would start at 0, or at the end.
    """
    wanted: dict[str, list[int]] = defaultdict(list)
    for partition in partitions:
        wanted[partition.topic].append(partition.partition)
    coordinator = consumer._coordinator
    await coordinator.ensure_coordinator_known()
    response = await coordinator._send_req(OffsetFetchRequest(coordinator.group_id, list(wanted.items())))
    _raise_for(response.error_code, coordinator)
    commits: dict[TopicPartition, Commit | None] = {}
    for topic, answers in response.topics:
        for number, offset, metadata, error_code in answers:
            _raise_for(error_code, coordinator)
            commits[TopicPartition(topic, number)] = None if offset < 0 else Commit(offset, metadata or "")
    for topic, numbers in wanted.items():
        for number in numbers:
            if TopicPartition(topic, number) not in commits:
                raise kafka_errors.GroupLoadInProgressError(f"no answer for {topic}/{number}")
    return commits


def _raise_for(error_code: int, coordinator: Any) -> None:
    error = kafka_errors.for_code(error_code)
    if error is kafka_errors.NoError:
        return
    if error in (kafka_errors.NotCoordinatorForGroupError, kafka_errors.GroupCoordinatorNotAvailableError):
        coordinator.coordinator_dead()
    raise error()


def keep_batches(producer: AIOKafkaProducer) -> None:
    """Never let a batch expire while its partition has no leader.

    An expired batch uses up a sequence number that is never rewound: every later send to that partition would fail.
    """
    producer._message_accumulator._batch_ttl = math.inf


def follow_sends(producer: AIOKafkaProducer, permission: Callable[[], Awaitable[None]]) -> None:
    """Hold every request with records back until there is permission, and remember which requests are under way.

    Between our `send` and the moment at which its request is written lie queues, retries and reconnections, so whoever
    has lost the right to publish meanwhile must be stopped here. `abandon` ends what is under way: the sender only waits
    for it.
    """
    sender = producer._sender
    send, transact, under_way = (
        sender._send_produce_req,
        sender._maybe_do_transactional_request,
        set[asyncio.Task[Any]](),
    )

    async def followed(node_id: int, batches: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await permission()
            await send(node_id, batches)
        finally:
            under_way.discard(task)

    def followed_transaction() -> asyncio.Task[Any] | None:
        task: asyncio.Task[Any] | None = transact()
        if task is not None:
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        return task

    sender._send_produce_req, sender._under_way = followed, under_way
    sender._maybe_do_transactional_request = followed_transaction


async def abandon(producer: AIOKafkaProducer, limit: float = 1.0) -> None:
    """Give a producer up without waiting for its pending sends, and so that it sends nothing more.

    `stop()` waits for every pending send, which may be for ever, and a `stop()` that is given up leaves the sender at
    work: its records appear later. So do those of a request that waits for a connection while the client is closed, so
    the producer must be one of `follow_sends`.
    """
    producer._closed = True
    accumulator = producer._message_accumulator
    accumulator._closed = True
    # A batch that waits for its next try is taken out twice once it has failed, and the second time raises.
    accumulator._pending_batches = _Forgiving(accumulator._pending_batches)
    accumulator.fail_all(kafka_errors.ProducerClosed())
    for batch in itertools.chain(*accumulator._batches.values(), accumulator._pending_batches):
        batch._drain_waiter.add_done_callback(_take_exception)  # nobody waits for it
    task = producer._sender.sender_task
    if task is not None and not task.done():
        # Aiokafka's own callback takes every idempotent producer for a transactional one, and raises.
        task.remove_done_callback(producer._sender._fail_all)
        task.add_done_callback(_take_exception)
        task.cancel()
        await asyncio.sleep(0)  # a request that was made just before is under way by then
        tasks = {task, *producer._sender._under_way}
        for one in tasks:
            one.cancel()
        await asyncio.wait(tasks, timeout=limit)
    transactions = producer._txn_manager
    for waiter in (transactions._transaction_waiter, *(future for *_, future in transactions._pending_txn_offsets)):
        if waiter is not None:
            waiter.add_done_callback(_take_exception)
    with contextlib.suppress(kafka_errors.KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(limit):
            await producer.client.close()


async def stop_consumer(consumer: AIOKafkaConsumer, limit: float) -> None:
    """Stop a consumer, and give it up when that has not ended after `limit` seconds."""
    stopping = asyncio.create_task(consumer.stop())
    stopping.add_done_callback(_take_exception)
    try:
        await asyncio.wait([stopping], timeout=limit)
    finally:
        await abandon_consumer(consumer)


async def abandon_consumer(consumer: AIOKafkaConsumer, limit: float = 1.0) -> None:
    """Give a consumer up without waiting for an answer, and so that it sends nothing more.

    `stop()` waits for a rebalance, a heartbeat and the answer to its farewell, each as long as the network is silent,
    and a `stop()` that is given up leaves most of the consumer at work: fetches and heartbeats go on, and a commit that
    waits for a connection appears later.
    """
    client, fetcher, coordinator = consumer._client, consumer._fetcher, consumer._coordinator
    consumer._closed = True
    connections, client._conns = list(client._conns.values()), _NoConnections()
    client._md_synchronizer = _give_up  # the end of a `start()` that is under way
    if coordinator is not None and not coordinator._closing.done():
        coordinator._closing.set_result(None)
    if fetcher is not None:
        fetcher._closed = True
        for waiter in fetcher._fetch_waiters:
            fetcher._notify(waiter)
    end = time.monotonic() + limit
    # More than once: aiokafka's coordination goes on when it is cancelled while it waits for the heartbeat to end.
    while (tasks := _tasks_of(consumer, client, fetcher, coordinator)) and time.monotonic() < end:
        for task in tasks:
            task.add_done_callback(_take_exception)
            task.cancel()
        await asyncio.wait(tasks, timeout=limit / 10)
    if fetcher is not None:
        consumer._subscription.abort_waiters(kafka_errors.ConsumerStoppedError())
    closing = []
    for connection in connections:
        if connection._writer is not None:
            connection._writer.transport.abort()  # closing would wait until what is written has left
        closing.append(connection.close())
    if closing:
        await asyncio.wait(closing, timeout=limit)


def _tasks_of(*owners: Any) -> set[asyncio.Task[Any]]:
    """The tasks that run a method of one of the owners: aiokafka keeps no list of them, and some of them are shielded."""
    tasks = set()
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        owner = frame.f_locals.get("self") if frame is not None else None
        if owner is not None and any(owner is one for one in owners):
            tasks.add(task)
    return tasks


class _NoConnections(dict[Any, Any]):
    """The connections of a client that was given up: one that opens late is closed again, and counts as refused."""

    def __setitem__(self, node: Any, connection: Any) -> None:
        connection.close()
        _give_up()


def _give_up() -> None:
    raise kafka_errors.KafkaConnectionError("the client was given up")


class _Forgiving(set[Any]):
    """A set from which may be removed what is not there."""

    remove = set.discard


def _take_exception(task: asyncio.Future[Any]) -> None:
    """What an abandoned task ends with is of no interest; not asking would make asyncio log it."""
    if not task.cancelled():
        task.exception()
