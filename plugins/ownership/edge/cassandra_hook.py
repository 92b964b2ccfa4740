"""A Cassandra session from its Connection."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.apache.cassandra.hooks.cassandra import CassandraHook as ProviderCassandraHook
from airflow.sdk import BaseHook, Connection
from cassandra import AuthenticationFailed, ConsistencyLevel, DriverException, UnresolvableContactPoints
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import DCAwareRoundRobinPolicy, RoundRobinPolicy, TokenAwarePolicy

from ownership.domain.errors import SettingsError, Unavailable
from ownership.edge.connections import CASSANDRA, Extra, connection
from ownership.platform.cassandra import SOCKET_OPTIONS, Cql

HEARTBEAT_SECONDS = 5
"""Seconds of silence after which a connection is tried, and after which it is given up with its node."""

OPTIONS = (
    "consistency_level", "serial_consistency_level", "request_timeout", "local_dc", "load_balancing_policy",
    "load_balancing_policy_args", "ssl_options", "protocol_version",
)  # fmt: skip
"""Extra of the connection."""
POLICIES: Mapping[str, tuple[str, ...]] = {
    "DCAwareRoundRobinPolicy": ("local_dc", "used_hosts_per_remote_dc"),
    "WhiteListRoundRobinPolicy": ("hosts",),
    "RoundRobinPolicy": (),
}
"""The provider's policies with their arguments."""
TOKEN_AWARE = "TokenAwarePolicy"  # noqa: S105  # a token of the ring
"""The one that has another inside."""


class CassandraHook(ProviderCassandraHook):
    """The provider's hook, with consistency, time-out and token awareness from the extra.

    Extra: ``consistency_level`` (LOCAL_QUORUM), ``serial_consistency_level`` (LOCAL_SERIAL),
    ``request_timeout`` (seconds, 10), ``local_dc``, ``protocol_version`` (4, which 3.11 to 5 speak), the
    provider's ``load_balancing_policy``, and ``ssl_options``: an object of ``ca_certs``, ``certfile``,
    ``keyfile`` (paths) and ``check_hostname``. The context is made here: whether the driver's own verifies the
    server depends on the protocol's number.
    """

    def __init__(self) -> None:
        # Not the provider's constructor: it makes its cluster without an execution profile.
        BaseHook.__init__(self)
        conn = connection(CASSANDRA)
        given = Extra.of(CASSANDRA, conn).only(*OPTIONS)
        if not conn.host:
            raise SettingsError(f"Connection '{CASSANDRA}' has no host: set it under Admin → Connections.")
        self.keyspace = conn.schema
        self.session = None
        try:
            self.cluster = self._cluster(conn, given)
        except UnresolvableContactPoints:
            raise Unavailable(
                "Cassandra",
                f"no host of Connection '{CASSANDRA}' has an address: are they names alone, separated by "
                "commas, with the port in its own field?",
            ) from None
        except (ValueError, TypeError, AttributeError) as e:
            raise SettingsError(
                f"Connection '{CASSANDRA}' has an extra that Cassandra's driver refuses: {e}"
            ) from None

    def _cluster(self, conn: Connection, given: Extra) -> Cluster:
        extra = given.values
        if "load_balancing_policy" in extra or "load_balancing_policy_args" in extra:
            _check_policy(given)
            policy = self.get_lb_policy(
                extra["load_balancing_policy"], extra.get("load_balancing_policy_args", {})
            )
        else:
            local_dc = extra.get("local_dc")
            policy = TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc) if local_dc else RoundRobinPolicy())
        profile = ExecutionProfile(
            load_balancing_policy=policy,
            consistency_level=_level(extra, "consistency_level", "LOCAL_QUORUM"),
            serial_consistency_level=_level(extra, "serial_consistency_level", "LOCAL_SERIAL"),
            request_timeout=given.number("request_timeout", default=10),
        )
        return Cluster(
            contact_points=[h.strip() for h in (conn.host or "").split(",")],
            port=conn.port or 9042,
            auth_provider=PlainTextAuthProvider(conn.login, conn.password or "") if conn.login else None,
            ssl_context=_cassandra_tls(given.inside("ssl_options")),
            protocol_version=int(given.number("protocol_version", default=4)),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=5,
            control_connection_timeout=5,
            # Else each connect reads the schema of every keyspace. `Cql` asks for what it needs of it.
            schema_metadata_enabled=False,
            # A node that is frozen keeps its connections: each statement to it would wait its 10 s, try after try.
            idle_heartbeat_interval=HEARTBEAT_SECONDS,
            idle_heartbeat_timeout=HEARTBEAT_SECONDS,
            sockopts=SOCKET_OPTIONS,
        )

    def get_conn(self) -> Session:
        """A session. Keyspaces are always named, so the connection's schema is not used.

        :raises SettingsError: if the login is refused.
        :raises Unavailable: if no node answers.
        """
        try:
            return self.cluster.connect()
        except (NoHostAvailable, DriverException, OSError) as e:
            # Where no node is of `local_dc`, the driver lists addresses in place of causes.
            errors = getattr(e, "errors", None)
            causes = errors.values() if isinstance(errors, dict) else [e]
            if any(isinstance(cause, AuthenticationFailed) for cause in causes):
                raise SettingsError(
                    f"Cassandra refuses the login: set login and password of Connection '{CASSANDRA}'."
                ) from None
            advice = f"is the host of Connection '{CASSANDRA}' right? Are its local_dc and ssl_options?"
            raise Unavailable("Cassandra", f"{str(e)[:300]}; {advice}") from None


def _check_policy(given: Extra, inner: str = "") -> None:
    """Refuse what the provider ignores: it takes any other name for RoundRobinPolicy."""
    option = f"{inner}load_balancing_policy"
    policy, arguments = str(given.values.get(option)), given.inside(f"{option}_args")
    if policy == TOKEN_AWARE and not inner:
        if arguments and arguments.values:
            _check_policy(
                arguments.only("child_load_balancing_policy", "child_load_balancing_policy_args"), "child_"
            )
    elif policy not in POLICIES:
        raise given.wrong(option, f"one of {', '.join(POLICIES if inner else (*POLICIES, TOKEN_AWARE))}")
    elif arguments:
        arguments.only(*POLICIES[policy])


def _cassandra_tls(options: Extra | None) -> ssl.SSLContext | None:
    """TLS by ``ssl_options``, which may be an empty object; None without it."""
    if options is None:
        return None
    options.only("ca_certs", "certfile", "keyfile", "check_hostname")
    return options.context(
        ca=options.file("ca_certs"),
        certificate=options.file("certfile"),
        key=options.file("keyfile"),
        # The driver connects to the addresses that nodes announce, which are seldom in their certificates.
        check_hostname=options.flag("check_hostname", default=False),
    )


def _level(extra: dict[str, Any], name: str, default: str) -> int:
    wanted = str(extra.get(name, default)).upper()
    try:
        return int(ConsistencyLevel.name_to_value[wanted])
    except KeyError:
        raise SettingsError(
            f"Connection '{CASSANDRA}' has {name} {wanted!r}; use one of "
            f"{', '.join(sorted(ConsistencyLevel.name_to_value))}."
        ) from None


@contextmanager
def opened_cql() -> Iterator[Cql]:
    """A Cassandra session, closed at the end. It connects when it is first used."""
    hooks: list[CassandraHook] = []

    def connect() -> Session:
        hooks.append(CassandraHook())
        return hooks[-1].get_conn()

    cql = Cql(connect)
    try:
        yield cql
    finally:
        cql.wait_for_connect()
        for hook in hooks:
            hook.shutdown_cluster()
