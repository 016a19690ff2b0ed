"""BrokerSettings: what server.properties of a local broker says, and the security of its client listener."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from connector.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MODULES = "org.apache.kafka.common.security"
_SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
ALL_MECHANISMS = ("PLAIN", *_SCRAM, "OAUTHBEARER")


@dataclass(frozen=True, slots=True)
class ListenerSecurity:
    """How clients reach the brokers.

    `protocol` is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL. `users` are names and passwords, for PLAIN and SCRAM
    alike; OAUTHBEARER takes any unsecured JSON web token (`alg` none) whose `sub` is the user. `certificate` is one PEM
    file with the private key (PKCS 8) and the certificate chain of the brokers, whose name is 127.0.0.1;
    `client_authority` a PEM file of the authority whose clients are let in: with it a client must show a certificate.
    With `authorizer`, only `super_users` may do anything until `LocalKafka.allow` says so.
    """

    protocol: str = "PLAINTEXT"
    mechanisms: tuple[str, ...] = ALL_MECHANISMS
    users: Mapping[str, str] = field(default_factory=dict)
    certificate: Path | None = None
    client_authority: Path | None = None
    authorizer: bool = False
    super_users: tuple[str, ...] = ("admin",)

    def __post_init__(self) -> None:
        """Raise SettingsError for what a broker would refuse, or silently not protect."""
        if self.protocol not in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"):
            raise SettingsError(
                f"A listener's protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL, not {self.protocol}."
            )
        if unknown := set(self.mechanisms) - set(ALL_MECHANISMS):
            raise SettingsError(f"A listener's mechanisms are {', '.join(ALL_MECHANISMS)}, not {', '.join(unknown)}.")
        if self.protocol.endswith("SSL") and self.certificate is None:
            raise SettingsError(f"A listener with protocol {self.protocol} needs a certificate.")
        if self.authorizer and not (self.sasl or self.client_authority):
            raise SettingsError("An authorizer needs to know its users: use SASL or a client authority.")

    @property
    def sasl(self) -> bool:
        """Whether clients log in."""
        return self.protocol.startswith("SASL")

    @property
    def scram_records(self) -> list[str]:
        """What StorageTool's --add-scram takes, so that the users exist before the first start."""
        mechanisms = [name for name in self.mechanisms if name in _SCRAM] if self.sasl else []
        return [f"{name}=[name={user},password={word}]" for name in mechanisms for user, word in self.users.items()]

    def properties(self) -> dict[str, str]:
        """The lines of server.properties for the listener CLIENT."""
        lines: dict[str, str] = {}
        if self.sasl:
            lines["listener.name.client.sasl.enabled.mechanisms"] = ",".join(self.mechanisms)
            for name in self.mechanisms:
                lines[f"listener.name.client.{name.lower()}.sasl.jaas.config"] = self._jaas(name)
        if self.protocol.endswith("SSL"):
            lines["listener.name.client.ssl.keystore.type"] = "PEM"
            lines["listener.name.client.ssl.keystore.location"] = str(self.certificate)
            if self.client_authority is not None:
                lines["listener.name.client.ssl.client.auth"] = "required"
                lines["listener.name.client.ssl.truststore.type"] = "PEM"
                lines["listener.name.client.ssl.truststore.location"] = str(self.client_authority)
        if self.authorizer:
            # ANONYMOUS are the brokers among themselves and what uses the internal listener.
            users = ("ANONYMOUS", *self.super_users)
            lines["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
            lines["super.users"] = ";".join(f"User:{user}" for user in users)
        return lines

    def _jaas(self, mechanism: str) -> str:
        if mechanism == "PLAIN":
            users = "".join(f' user_{user}="{word}"' for user, word in self.users.items())
            return f"{_MODULES}.plain.PlainLoginModule required{users};"
        if mechanism in _SCRAM:
            return f"{_MODULES}.scram.ScramLoginModule required;"
        return f'{_MODULES}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'


@dataclass(frozen=True, slots=True)
class Addresses:
    """The ports of one broker on 127.0.0.1.

    `internal` equals `client` where clients need neither security nor a proxy; `proxy` is where clients are told to
    connect instead of at `client`.
    """

    client: int
    internal: int
    controller: int
    proxy: int | None = None


def server_properties(
    node: int, addresses: Sequence[Addresses], security: ListenerSecurity, data: Path, extra: Mapping[str, str]
) -> str:
    """The text of server.properties for the broker at index `node` of `addresses`; `extra` lines win."""
    own = addresses[node]
    # Two voters would lose their majority with either of them; with one, broker 0 of two can be killed.
    voters = range(3) if len(addresses) >= 3 else [len(addresses) - 1]
    listeners = {"CLIENT": own.client}
    protocols = {"CLIENT": security.protocol, "CONTROLLER": "PLAINTEXT"}
    if own.internal != own.client:
        listeners["INTERNAL"] = own.internal
        protocols["INTERNAL"] = "PLAINTEXT"
    bound = _addresses(listeners)
    if own.proxy is not None:
        listeners["CLIENT"] = own.proxy
    copies = str(min(3, len(addresses)))
    lines = {
        "process.roles": "broker,controller" if node in voters else "broker",
        "node.id": str(node),
        "controller.quorum.voters": ",".join(f"{voter}@127.0.0.1:{addresses[voter].controller}" for voter in voters),
        "listeners": bound + (f",CONTROLLER://127.0.0.1:{own.controller}" if node in voters else ""),
        "advertised.listeners": _addresses(listeners),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "inter.broker.listener.name": "INTERNAL" if "INTERNAL" in listeners else "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": "1",
        # Few and small: a laptop waits for each partition, and each segment maps its index files.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "log.segment.bytes": str(64 << 20),
        "log.index.size.max.bytes": str(1 << 20),
        "log.cleaner.dedupe.buffer.size": str(4 << 20),
        # A broker that comes back after SIGKILL is refused until the session of its former life ends: 9 s by default.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        **security.properties(),
        **extra,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _addresses(listeners: Mapping[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items())
