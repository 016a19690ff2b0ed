"""LocalKafka: a real Apache Kafka cluster on this machine, without Docker."""

from __future__ import annotations

import asyncio
import base64
import random
import re
import shutil
import socket
import struct
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from connector.errors import StartupError
from connector.local import folders
from connector.local.child import Child
from connector.local.kafka.broker_settings import Addresses, ListenerSecurity, server_properties
from connector.local.kafka.distribution import KAFKA_VERSION, Distribution
from connector.local.startable import Startable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any

    from aiokafka.admin import AIOKafkaAdminClient

_HOST = "127.0.0.1"
_CLUSTER_ID = base64.urlsafe_b64encode(b"connector-local.").decode().rstrip("=")
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
_TAKEN = re.compile(r"failed to bind to (\S+): Address already in use")
_START_LIMIT = 90.0
_STOP_LIMIT = 10.0
# Below the ports that Linux (32768) and macOS (49152) give to outgoing connections: a client that keeps trying to reach
# a killed broker at such a port ends up connected to itself, and the broker finds the port taken when it comes back.
_FREE_PORTS = range(20_000, 32_000)

_RESOURCES = {"topic": 2, "group": 3, "cluster": 4, "transactional_id": 5}
_OPERATIONS = {"ALL": 2, "READ": 3, "WRITE": 4, "CREATE": 5, "DELETE": 6, "ALTER": 7, "DESCRIBE": 8}
_OPERATIONS |= {"CLUSTER_ACTION": 9, "DESCRIBE_CONFIGS": 10, "ALTER_CONFIGS": 11, "IDEMPOTENT_WRITE": 12}


class LocalKafka(Startable):
    """Apache Kafka with `brokers` brokers, a context manager; data in a temporary folder unless `data` names one.

    `port` is the client port of broker 0, the others follow it; None takes free ones. `properties` are lines of
    server.properties that win over the built-in ones. `proxies` are ports, one a broker, that clients are sent to instead
    of the client port: something that listens there must pass on what it gets. `progress` is told, in sentences, what
    takes long. Safe to start from any thread; the methods block. With a `data` folder of its own a later cluster goes on
    where this one ended.
    """

    def __init__(
        self,
        brokers: int = 1,
        *,
        port: int | None = None,
        data: Path | None = None,
        properties: Mapping[str, str] | None = None,
        security: ListenerSecurity | None = None,
        proxies: Sequence[int] = (),
        heap: str = "512m",
        progress: Callable[[str], None] | None = None,
    ) -> None:
        self.brokers = brokers
        self.security = security or ListenerSecurity()
        self._port = port
        self._folder = data
        self._properties = dict(properties or {})
        self._proxies = proxies
        self._heap = heap
        self._progress = progress
        self._addresses: list[Addresses] = []
        self._children: list[Child | None] = [None] * brokers
        self._resources = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of the client listeners themselves, host:port with commas between."""
        return ",".join(f"{_HOST}:{own.client}" for own in self._addresses)

    @property
    def admin_servers(self) -> str:
        """The addresses of a plain-text listener whose every client may do everything, however clients are secured."""
        return ",".join(f"{_HOST}:{own.internal}" for own in self._addresses)

    def start(self) -> None:
        """Fetch what is missing, format the folders, and start every broker; returns when all of them serve.

        Raises StartupError.
        """
        self._distribution = Distribution.get(self._progress)
        if self._folder is None:
            self._data = folders.temporary("connector-kafka-")
            self._resources.callback(shutil.rmtree, self._data, ignore_errors=True)
        else:
            self._data = self._folder.absolute()
            self._check_folder()
        self._addresses = _choose_ports(
            self.brokers,
            self._port,
            separate_internal=self.security.protocol != "PLAINTEXT" or bool(self._proxies),
            proxies=self._proxies,
        )
        with folders.written(self._data, "name another folder for Kafka's data"):
            for node in range(self.brokers):
                folder = self._data / f"broker-{node}"
                folder.mkdir(parents=True, exist_ok=True)
                text = server_properties(node, self._addresses, self.security, folder / "data", self._properties)
                (folder / "server.properties").write_text(text)
            self._format()
            deadline = time.monotonic() + _START_LIMIT
            for node in range(self.brokers):
                self._children[node] = self._java(
                    node, "kafka.Kafka", str(self._data / f"broker-{node}" / "server.properties")
                )
        for node in range(self.brokers):
            self._wait_until_serving(node, deadline, known_brokers=self.brokers)

    def stop(self, broker: int | None = None) -> None:
        """Stop one broker, or all of them and remove temporary data; a broker that takes over 10 s is killed."""
        children = [self._children[broker]] if broker is not None else self._children
        running = [child for child in children if child is not None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + _STOP_LIMIT
        for child in running:
            child.wait(max(deadline - time.monotonic(), 0))
            child.kill()
        if broker is None:
            self._children = [None] * self.brokers
            self._resources.close()
        else:
            self._children[broker] = None

    def kill(self, broker: int = 0) -> None:
        """SIGKILL one broker."""
        self._child(broker).kill()
        self._children[broker] = None

    def restart(self, broker: int = 0) -> None:
        """Start a broker that was stopped or killed, or stop and start one that runs; returns when it serves."""
        if self._children[broker] is not None:
            self.stop(broker)
        properties = str(self._data / f"broker-{broker}" / "server.properties")
        self._children[broker] = self._java(broker, "kafka.Kafka", properties)
        self._wait_until_serving(broker, time.monotonic() + _START_LIMIT, known_brokers=1)

    def pause(self, broker: int = 0) -> None:
        """SIGSTOP one broker: its connections stay open and nothing answers."""
        self._child(broker).pause()

    def resume(self, broker: int = 0) -> None:
        """SIGCONT one broker."""
        self._child(broker).resume()

    def pid(self, broker: int = 0) -> int:
        """The process id of one broker."""
        return self._child(broker).pid

    def check(self) -> None:
        """Raise StartupError when a broker ended by itself."""
        for node, child in enumerate(self._children):
            if child is not None and not child.running:
                if taken := _TAKEN.search(child.last_lines(100)):
                    raise StartupError(
                        f"Kafka's broker {node} cannot listen on {taken[1]}, which was taken a moment ago: start again, "
                        "or choose another port."
                    )
                raise StartupError(f"Kafka's broker {node} ended by itself. Its last lines:\n{child.last_lines()}")

    def create_topics(self, topics: Mapping[str, int], replication: int = 1) -> None:
        """Create topics, name to number of partitions; those that exist stay as they are."""
        from aiokafka.admin import NewTopic

        async def create(admin: AIOKafkaAdminClient) -> None:
            missing = {name: count for name, count in topics.items() if name not in await admin.list_topics()}
            response = await admin.create_topics(
                [NewTopic(name, count, replication) for name, count in missing.items()]
            )
            for name, code, message in response.topic_errors:
                if code:
                    raise StartupError(f"The topic {name} could not be created: {message or f'Kafka error {code}'}.")

        _run_in_thread(self._administer(create))

    def allow(self, user: str, resource: str, name: str, *operations: str) -> None:
        """Let a user do `operations` (READ, WRITE, ... or ALL) on a topic, group, cluster or transactional_id.

        `name` may be `*`; the cluster's is `kafka-cluster`. Takes effect within some 100 ms.
        """
        self._change_access("CreateAclsRequest", user, resource, name, operations)

    def disallow(self, user: str, resource: str, name: str, *operations: str) -> None:
        """Take back what `allow` gave with the same arguments."""
        self._change_access("DeleteAclsRequest", user, resource, name, operations)

    def _change_access(self, kind: str, user: str, resource: str, name: str, operations: tuple[str, ...]) -> None:
        from aiokafka.protocol import admin as protocol

        async def change(admin: AIOKafkaAdminClient) -> None:
            for operation in operations:
                literal, allow = 3, 3
                request = getattr(protocol, kind)(
                    _RESOURCES[resource], name, literal, f"User:{user}", "*", _OPERATIONS[operation], allow
                )
                response = await admin._send_request(request)
                results = response.creation_responses if kind == "CreateAclsRequest" else response.filter_responses
                for code, message, *_ in results:
                    if code:
                        raise StartupError(f"Access of {user} to {resource} {name} could not be changed: {message}")

        _run_in_thread(self._administer(change))

    async def _administer(self, act: Callable[[AIOKafkaAdminClient], Coroutine[Any, Any, None]]) -> None:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self.admin_servers)
        try:
            await admin.start()
            await act(admin)
        finally:
            await admin.close()

    def _child(self, broker: int) -> Child:
        child = self._children[broker]
        if child is None:
            raise StartupError(f"Kafka's broker {broker} does not run.")
        return child

    def _java(self, node: int, main_class: str, *arguments: str) -> Child:
        java = self._distribution
        options = [*_JVM, f"-Xmx{self._heap}", "-cp", java.class_path, main_class, *arguments]
        return Child(java.java, options, self._data / f"broker-{node}" / "broker.log")

    def _check_folder(self) -> None:
        present = len(list(self._data.glob("broker-*")))
        if present not in (0, self.brokers):
            raise StartupError(
                f"{self._data} holds the data of {present} broker(s), not of {self.brokers}: "
                "ask for that number, or name another folder."
            )

    def _format(self) -> None:
        """Let Kafka's own tool write the first records of each folder; the users of SCRAM are among them."""
        scram = [word for record in self.security.scram_records for word in ("--add-scram", record)]
        tools: list[Child] = []
        for node in range(self.brokers):
            folder = self._data / f"broker-{node}"
            if not (folder / "data" / "meta.properties").exists():
                settings = str(folder / "server.properties")
                tools.append(
                    self._java(node, "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", settings, *scram)
                )
        for tool in tools:
            if tool.wait(_START_LIMIT) != 0:
                lines = tool.last_lines()
                for other in tools:
                    other.kill()
                raise StartupError(f"Kafka's data folder could not be formatted. The tool's last lines:\n{lines}")
            tool.kill()

    def _wait_until_serving(self, node: int, deadline: float, known_brokers: int) -> None:
        port = self._addresses[node].internal
        while not _serves(port, known_brokers):
            self.check()
            if time.monotonic() > deadline:
                lines = self._child(node).last_lines()
                raise StartupError(f"Kafka's broker {node} did not serve within {_START_LIMIT:.0f} s:\n{lines}")
            time.sleep(0.05)


def _serves(port: int, known_brokers: int) -> bool:
    """Whether the broker at `port` answers a Metadata request and knows a controller and that many brokers.

    A Metadata request, version 1, for no topic: https://kafka.apache.org/protocol#The_Messages_Metadata
    """
    request = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection((_HOST, port), timeout=1) as connection, connection.makefile("rb") as answers:
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = answers.read(*struct.unpack(">i", answers.read(4)))
            brokers, at = struct.unpack_from(">i", answer, 4)[0], 8
            for _ in range(brokers):
                at += 4  # node id
                at += 2 + struct.unpack_from(">h", answer, at)[0] + 4  # host, port
                at += 2 + max(struct.unpack_from(">h", answer, at)[0], 0)  # rack
            controller = struct.unpack_from(">i", answer, at)[0]
    except (OSError, struct.error):
        return False
    return bool(brokers >= known_brokers and controller >= 0)


def _choose_ports(
    brokers: int, port: int | None, *, separate_internal: bool, proxies: Sequence[int] = ()
) -> list[Addresses]:
    with ExitStack() as held:

        def hold(number: int) -> bool:
            probe = held.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, number))
                probe.listen()
            except OSError:
                return False
            return True

        def free() -> int:
            for number in random.sample(_FREE_PORTS, 200):
                if hold(number):
                    return number
            raise StartupError(f"No free port was found on {_HOST} between {_FREE_PORTS.start} and {_FREE_PORTS.stop}.")

        addresses = []
        for node in range(brokers):
            if port is not None and not hold(port + node):
                raise StartupError(
                    f"Port {port + node} on {_HOST} is taken: stop what listens there, or choose another port."
                )
            client = port + node if port is not None else free()
            internal = free() if separate_internal else client
            addresses.append(Addresses(client, internal, free(), proxies[node] if proxies else None))
        return addresses


def _run_in_thread(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end from a caller that may itself stand in an event loop."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(work)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            errors.append(error)

    thread = threading.Thread(target=run, name=f"kafka-{KAFKA_VERSION}-admin")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
