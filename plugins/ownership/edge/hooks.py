"""From Airflow's Connections and Variables to the job's parts. The edge: only here are hosts known."""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from airflow.providers.apache.cassandra.hooks.cassandra import CassandraHook as ProviderCassandraHook
from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook
from airflow.providers.elasticsearch.hooks.elasticsearch import ElasticsearchPythonHook
from airflow.sdk import BaseHook, Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRuntimeError
from cassandra import AuthenticationFailed, ConsistencyLevel, DriverException
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable, Session
from cassandra.policies import DCAwareRoundRobinPolicy, RoundRobinPolicy, TokenAwarePolicy
from confluent_kafka import Consumer, KafkaException, Producer
from elasticsearch import Elasticsearch

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.settings import VARIABLE, Settings
from ownership.edge import connections
from ownership.edge.connections import Options, endpoint, refuse_login, scheme_of
from ownership.ledger.check import check as check_ledger
from ownership.ledger.database import CONNECTION as LEDGER
from ownership.ledger.database import Database
from ownership.platform.cassandra import SOCKET_OPTIONS, Cql
from ownership.platform.course_batches import check_table
from ownership.platform.http_service import Endpoint, Service
from ownership.platform.kafka import DeadLetters, Heard, Topic
from ownership.stages.inbox import Inbox, NoRejects
from ownership.stages.parts import Parts
from ownership.stages.pull import Intake

KAFKA = "kafka_default"
CASSANDRA = "cassandra_default"
ELASTICSEARCH = "elasticsearch_default"
LMS = "lms_default"
USERORG = "userorg_default"
SLOTS_PER_SLICE = 4
"""Slots of the executor for each slice of a run: with more slices their processes are in each other's way
(measured on 2 cores with 8 slots, docs/performance.md), and other runs and DAGs need slots, too."""

connection = connections.connection
"""An Airflow Connection, as others of the edge read it."""

T = TypeVar("T")


def load_settings() -> Settings:
    """The settings as they are now, with the executor's share where they follow it.

    :raises SettingsError: naming what is unknown or wrong.
    """
    try:
        settings = Settings.parse(Variable.get(VARIABLE, default=None))
    except AirflowRuntimeError as e:
        raise SettingsError(f"Variable '{VARIABLE}' cannot be read: {e}") from None
    share = max(1, conf.getint("core", "parallelism") // SLOTS_PER_SLICE)
    return settings if settings.parallelism else settings.model_copy(update={"parallelism": share})


class CassandraHook(ProviderCassandraHook):
    """The provider's hook, with consistency, time-out and token awareness from the extra.

    Extra: ``consistency_level`` (LOCAL_QUORUM), ``serial_consistency_level`` (LOCAL_SERIAL),
    ``request_timeout`` (seconds, 10), ``local_dc``, ``protocol_version`` (4, which 3.11 to 5 speak), the
    provider's ``load_balancing_policy``, and ``ssl_options``: an object of ``ca_certs``, ``certfile``,
    ``keyfile`` (paths) and ``check_hostname``. The context is made here: the driver's own is verified or not
    depending on the protocol's number.
    """

    def __init__(self, cassandra_conn_id: str = CASSANDRA) -> None:
        # Not the provider's constructor: it makes its cluster without an execution profile.
        BaseHook.__init__(self)
        conn = connection(cassandra_conn_id)
        given = Options.of(cassandra_conn_id, conn)
        extra = given.values
        if not conn.host:
            raise SettingsError(
                f"Connection '{cassandra_conn_id}' has no host: set it under Admin → Connections."
            )
        self._conn_id = cassandra_conn_id
        if "load_balancing_policy" in extra:
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
            request_timeout=float(extra.get("request_timeout", 10)),
        )
        self.keyspace = conn.schema
        self.session = None
        self.cluster = Cluster(
            contact_points=[h.strip() for h in conn.host.split(",")],
            port=conn.port or 9042,
            auth_provider=PlainTextAuthProvider(conn.login, conn.password or "") if conn.login else None,
            ssl_context=_cassandra_tls(given.inside("ssl_options")),
            protocol_version=int(extra.get("protocol_version", 4)),
            execution_profiles={EXEC_PROFILE_DEFAULT: profile},
            connect_timeout=5,
            control_connection_timeout=5,
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
            causes = list(e.errors.values()) if isinstance(e, NoHostAvailable) else [e]
            if any(isinstance(cause, AuthenticationFailed) for cause in causes):
                raise SettingsError(
                    f"Cassandra refuses the login: set login and password of Connection '{self._conn_id}'."
                ) from None
            advice = f"is the host of Connection '{self._conn_id}' right? Are its ssl_options?"
            raise Unavailable("Cassandra", f"{str(e)[:300]}; {advice}") from None


def _cassandra_tls(options: Options | None) -> ssl.SSLContext | None:
    """TLS by ``ssl_options``, also by an empty one; none without it."""
    if options is None:
        return None
    options.only("ca_certs", "certfile", "keyfile", "check_hostname")
    return options.context(
        ca=options.file("ca_certs"),
        certificate=options.file("certfile"),
        key=options.file("keyfile"),
        # Nodes are called by the addresses that they announce, which are seldom in their certificates.
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


class KafkaHook(KafkaBaseHook):
    """Consumer and producer from one connection, with the guarantees that the inbox needs."""

    def __init__(self, settings: Settings, kafka_config_id: str = KAFKA) -> None:
        super().__init__(kafka_config_id=kafka_config_id)  # type: ignore[no-untyped-call]
        self._settings = settings

    def config(self) -> dict[str, Any]:
        """The connection's configuration.

        :raises SettingsError: if it commits offsets by itself, or names no broker.
        """
        extra = Options.of(self.kafka_config_id, connection(self.kafka_config_id)).values
        for lossy in ("enable.auto.commit", "enable.auto.offset.store"):
            if str(extra.get(lossy, "false")).lower() in ("true", "1"):
                raise SettingsError(
                    f"Connection '{self.kafka_config_id}' has {lossy}=true, which loses events: offsets are "
                    "committed only after the ledger has the message. Remove it from the connection's extra."
                )
        try:
            return dict(self._build_config())
        except ValueError as e:
            raise SettingsError(
                f"Connection '{self.kafka_config_id}': {e} Set it in the connection's extra."
            ) from None

    def topic(self) -> Topic:
        """The input topic, read for the consumer group of the settings."""
        heard: Heard = deque(maxlen=16)
        config = {
            "error_cb": heard.append,
            # Nobody joins the group: it only bounds how long a commit waits for a coordinator.
            "session.timeout.ms": 10_000,
            **self.config(),
            "group.id": self._settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "allow.auto.create.topics": False,
            "enable.partition.eof": False,
        }
        return Topic(_client(lambda: Consumer(config)), self._settings.input_topic, heard)

    def dead_letters(self) -> DeadLetters:
        """The dead-letter topic, acknowledged by all in-sync replicas."""
        shared = {k: v for k, v in self.config().items() if k not in _CONSUMER_ONLY}
        heard: Heard = deque(maxlen=16)
        config = {
            "error_cb": heard.append,
            **shared,
            "acks": "all",
            "enable.idempotence": True,
            "message.max.bytes": 10_000_000,
            "message.timeout.ms": 10_000,
        }
        return DeadLetters(_client(lambda: Producer(config)), self._settings.failed_topic, heard)


_CONSUMER_ONLY = frozenset(
    {"group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset", "session.timeout.ms"}
    | {"max.poll.interval.ms", "group.instance.id", "partition.assignment.strategy", "enable.partition.eof"}
    | {
        "isolation.level",
        "fetch.min.bytes",
        "fetch.wait.max.ms",
        "auto.commit.interval.ms",
        "fetch.max.bytes",
    }
    | {"heartbeat.interval.ms", "allow.auto.create.topics"}
)


def _client(make: Callable[[], T]) -> T:
    try:
        return make()
    except (KafkaException, ValueError, TypeError) as e:
        raise SettingsError(
            f"Connection '{KAFKA}' has a configuration that Kafka's client refuses: {e}"
        ) from None


def lms_endpoint(settings: Settings) -> Endpoint:
    """The LMS, from its Connection unless a setting has its URL."""
    return endpoint(LMS, "service.lms.basePath", settings.lms_base_path)


def userorg_endpoint(settings: Settings) -> Endpoint:
    """User-Org, from its Connection unless a setting has its URL."""
    return endpoint(USERORG, "service.userorg.basePath", settings.userorg_base_path)


ELASTICSEARCH_TLS = ("ca_certs", "verify_certs", "client_cert", "client_key", "ssl_assert_fingerprint")
ELASTICSEARCH_OPTIONS = (*ELASTICSEARCH_TLS, "api_key", "request_timeout")


def elasticsearch_client() -> Elasticsearch:
    """A client from the Connection, through the provider's hook.

    It speaks the dialect of ``[elasticsearch] es_compat_with``. Time-out 30 s; a call is tried three times.

    :raises SettingsError: naming the field that is wrong.
    """
    conn = connection(ELASTICSEARCH)
    if not conn.host:
        raise SettingsError(f"Connection '{ELASTICSEARCH}' has no host: set it under Admin → Connections.")
    options = Options.of(ELASTICSEARCH, conn).only(*ELASTICSEARCH_OPTIONS)
    scheme = scheme_of(ELASTICSEARCH, conn)
    hosts = [
        h if "://" in h else f"{scheme}://{h}:{conn.port or 9200}"
        for h in conn.host.replace(" ", "").split(",")
    ]
    for host in hosts:
        refuse_login(ELASTICSEARCH, host)
    arguments: dict[str, Any] = {"request_timeout": 30, "max_retries": 2, "retry_on_timeout": True}
    arguments |= {k: options.values[k] for k in ("request_timeout", "api_key") if k in options.values}
    if conn.login:
        if "api_key" in arguments:
            raise SettingsError(f"Connection '{ELASTICSEARCH}' has a login and an api_key: remove one.")
        arguments["basic_auth"] = (conn.login, conn.password or "")
    arguments |= _elasticsearch_tls(hosts, options)
    try:
        client: Elasticsearch = ElasticsearchPythonHook(hosts=hosts, es_conn_args=arguments).get_conn
    except (ValueError, TypeError) as e:
        raise SettingsError(f"Connection '{ELASTICSEARCH}' is refused by the client: {e}") from None
    return client


def _elasticsearch_tls(hosts: list[str], options: Options) -> dict[str, Any]:
    """TLS as arguments of the client, whose files are tried here: its own errors name no field."""
    given = [name for name in ELASTICSEARCH_TLS if options.values.get(name) not in (None, "")]
    if not given:
        return {}
    if not all(host.lower().startswith("https:") for host in hosts):
        raise options.without_tls(*given)
    verify = options.flag("verify_certs", default=True)
    files = {name: options.file(name) for name in ("ca_certs", "client_cert", "client_key")}
    ca, certificate, key = files.values()
    context = options.context(ca=ca, certificate=certificate, key=key, verify=verify)
    if fingerprint := options.values.get("ssl_assert_fingerprint"):
        # Beside a fingerprint the client forgets the job's own certificate, unless it comes in this way.
        return {"ssl_context": context, "ssl_assert_fingerprint": fingerprint}
    return {"verify_certs": verify} | {name: file.path for name, file in files.items() if file}


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


LEDGER_OPTIONS = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "target_session_attrs",
    "connect_timeout",
    "channel_binding",
    "gssencmode",
    "krbsrvname",
)
"""Extra of the ledger's Connection: options of libpq, by its own names."""


def ledger_parameters() -> dict[str, Any]:
    """Libpq's parameters of the ledger's database, from its Connection.

    A host may be several, separated by commas; with ``"target_session_attrs": "read-write"`` the one that takes
    writes is found after a failover.

    :raises SettingsError: naming the field that is missing or wrong.
    """
    conn = connection(LEDGER)
    if conn.conn_type not in ("postgres", "postgresql"):
        raise SettingsError(f"Connection '{LEDGER}' has type {conn.conn_type!r}: its type must be postgres.")
    for field, value in (("host", conn.host), ("schema (the database)", conn.schema), ("login", conn.login)):
        if not value:
            raise SettingsError(f"Connection '{LEDGER}' has no {field}: set it under Admin → Connections.")
    options = Options.of(LEDGER, conn).only(*LEDGER_OPTIONS)
    # Tried here: libpq's own error names no field.
    ca = None if options.values.get("sslrootcert") == "system" else options.file("sslrootcert")
    certificate, key = options.file("sslcert"), options.file("sslkey")
    if ca or certificate or key:
        options.context(ca=ca, certificate=certificate, key=key)
    if revoked := options.file("sslcrl"):
        options.context(ca=revoked)  # libpq goes on without a list that it cannot read
    given = {n: str(v) for n, v in options.values.items() if v not in (None, "")}
    tls = [name for name in ("sslrootcert", "sslcert", "sslkey", "sslcrl") if name in given]
    if tls and given.get("sslmode", "prefer") in ("allow", "prefer"):
        # libpq's default would go on without TLS where the certificate does not fit.
        raise SettingsError(
            f"Connection '{LEDGER}' has {', '.join(tls)} in its extra without an sslmode that asks for TLS: set "
            "sslmode to verify-full (or verify-ca, require)."
        )
    parameters = {
        "host": conn.host,
        "port": str(conn.port or 5432),
        "dbname": conn.schema,
        "user": conn.login,
        "password": conn.password,
        **given,
    }
    return {n: v for n, v in parameters.items() if v is not None}


@contextmanager
def opened_database(*, connections: int = 2) -> Iterator[Database]:
    """The ledger's database, closed at the end. It connects when it is first used.

    :raises SettingsError: if the Connection is missing or wrong.
    """
    database = Database.at(ledger_parameters(), connections=connections)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def opened_parts(settings: Settings | None = None) -> Iterator[Parts]:
    """All parts of the stages, opened from the Connections and closed at the end.

    Each connects when it is first used.

    :raises SettingsError: if a setting or a connection is missing or wrong.
    """
    settings = settings or load_settings()
    with ExitStack() as stack:
        lms = stack.enter_context(Service("LMS", lambda: lms_endpoint(settings)))
        userorg = stack.enter_context(Service("User-Org", lambda: userorg_endpoint(settings)))
        client = elasticsearch_client()
        stack.callback(client.close)
        database = stack.enter_context(opened_database())
        cql = stack.enter_context(opened_cql())
        yield Parts.from_clients(settings, database, cql, client, lms=lms, userorg=userorg)


def checks(parts: Parts) -> tuple[Callable[[], None], ...]:
    """A look at each part but Kafka: ledger, table, index, both services. Each raises what is wrong with it."""
    settings = parts.settings
    return (
        lambda: check_ledger(parts.database),
        lambda: check_table(parts.cql, settings),
        parts.index.check,
        lambda: _reachable(LMS, lms_endpoint(settings)),
        lambda: _reachable(USERORG, userorg_endpoint(settings)),
    )


@contextmanager
def opened_intake(parts: Parts, *, by_hand: bool = False) -> Iterator[Intake]:
    """Topic, inbox and dead letters, checked: nothing is read unless every part is in place.

    A run that brings its own work (`by_hand`) does without Kafka where that is out of reach.

    :raises SettingsError: saying what to set where.
    :raises Unavailable: if a part cannot be reached.
    """
    settings = parts.settings
    parts.cql.connect_ahead()
    for check in checks(parts):
        check()
    retention_ms = settings.retention_days * 24 * 3600 * 1000
    with ExitStack() as stack:
        try:
            topic, dead_letters, rejects = _opened_kafka(stack, settings)
        except (SettingsError, Unavailable) as e:
            if not by_hand:
                raise
            inbox = Inbox(parts.events, parts.arrivals, NoRejects(), retention_ms=retention_ms)
            yield Intake(None, inbox, missing=str(e))
            return
        inbox = Inbox(parts.events, parts.arrivals, rejects, retention_ms=retention_ms)
        yield Intake(topic, inbox, dead_letters)


def _opened_kafka(stack: ExitStack, settings: Settings) -> tuple[Topic, Topic, DeadLetters]:
    kafka = KafkaHook(settings)
    topic = kafka.topic()
    stack.callback(topic.close)
    dead_letters = topic.beside(settings.failed_topic)
    for each in (topic, dead_letters):
        each.partitions()
    return topic, dead_letters, kafka.dead_letters()


def _reachable(conn_id: str, endpoint: Endpoint) -> None:
    """A look at the service's port, and at its certificate: what is wrong is found before anything is consumed."""
    address = urlsplit(endpoint.url)
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=5) as plain:
            if endpoint.tls:
                endpoint.tls.wrap_socket(plain, server_hostname=host).close()
    except UnicodeError as e:  # a label that is empty, or too long for the name server's protocol
        raise SettingsError(f"Connection '{conn_id}' has a host that is no address: {e}") from None
    except OSError as e:
        right = f"is the host of Connection '{conn_id}' right?"
        advice = endpoint.advice if isinstance(e, ssl.SSLError) else right
        raise Unavailable(f"{host}:{port}", f"{e}; {advice}") from None
