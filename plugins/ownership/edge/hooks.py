"""Opens the parts of the job from Airflow's Connections and Variables, and checks them."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow.sdk import Variable
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import AirflowRuntimeError
from elasticsearch import Elasticsearch

from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.installation import HostKind
from ownership.domain.settings import VARIABLE, Settings
from ownership.edge.cassandra_hook import opened_cql
from ownership.edge.connections import (
    ELASTICSEARCH,
    LMS,
    USERORG,
    Extra,
    connection,
    endpoint,
    leads_to,
    url_at,
)
from ownership.edge.hosts import report
from ownership.edge.kafka_hook import KafkaHook
from ownership.edge.ledger_hook import opened_database
from ownership.ledger.check import check as check_ledger
from ownership.ledger.database import Database
from ownership.platform.cassandra import Cql
from ownership.platform.course_batches import check_table
from ownership.platform.http_service import Endpoint, Service, basic_auth
from ownership.platform.search_dialect import OneOfSeveral, SearchNode
from ownership.stages.inbox import Inbox
from ownership.stages.intake import Intake
from ownership.stages.parts import Parts


def load_settings() -> Settings:
    """The settings as they are now, with what follows the executor filled in.

    :raises SettingsError: naming what is unknown or wrong.
    """
    try:
        settings = Settings.parse(Variable.get(VARIABLE, default=None))
    except AirflowRuntimeError as e:
        raise SettingsError(f"Variable '{VARIABLE}' cannot be read: {e}") from None
    settings, limit = settings.for_slots(executor_slots()), max_map_length()
    mapped = ("max_mapped", "parallelism", "reconcile_slices")
    return settings.model_copy(update={name: min(getattr(settings, name), limit) for name in mapped})


def executor_slots() -> int:
    """How many tasks the executor runs at once."""
    return int(conf.getint("core", "parallelism"))


def max_map_length() -> int:
    """Most instances of a mapped task: Airflow fails the task that hands over more."""
    return max(1, int(conf.getint("core", "max_map_length")))


def lms_endpoint(settings: Settings) -> Endpoint:
    """The LMS, from its Connection unless a setting has its URL."""
    return endpoint(LMS, "service.lms.basePath", settings.lms_base_path)


def userorg_endpoint(settings: Settings) -> Endpoint:
    """User-Org, from its Connection unless a setting has its URL."""
    return endpoint(USERORG, "service.userorg.basePath", settings.userorg_base_path)


ELASTICSEARCH_TLS = ("ca_certs", "verify_certs", "client_cert", "client_key", "ssl_assert_fingerprint")
ELASTICSEARCH_OPTIONS = (*ELASTICSEARCH_TLS, "api_key", "request_timeout")


def elasticsearch_client() -> Elasticsearch:
    """A client from the Connection, for any server that `search_dialect` knows.

    Not through the provider's hook, which would have an operator say which version it talks to. Time-out 20 s; a call
    is tried four times.

    :raises SettingsError: naming the field that is wrong.
    """
    conn = connection(ELASTICSEARCH)
    if not conn.host:
        raise SettingsError(f"Connection '{ELASTICSEARCH}' has no host: set it under Admin → Connections.")
    options = Extra.of(ELASTICSEARCH, conn).only(*ELASTICSEARCH_OPTIONS)
    hosts = [url_at(ELASTICSEARCH, conn, h, port=9200) for h in conn.host.replace(" ", "").split(",")]
    arguments: dict[str, Any] = {"request_timeout": 20, "max_retries": 3, "retry_on_timeout": True}
    # By default a node that did not answer is asked again a second later. The last of four tries is at a node that was
    # silent once, not twice: at one that only waited for a frozen one.
    arguments |= {"dead_node_backoff_factor": 30, "max_dead_node_backoff": 120}
    if "request_timeout" in options.values:
        arguments["request_timeout"] = options.number("request_timeout", default=20)
    if "api_key" in options.values:
        arguments["api_key"] = api_key = options.values["api_key"]
        if not isinstance(api_key, str | list):  # such as the whole answer by which Elasticsearch made it
            raise options.wrong("api_key", "a text: what Elasticsearch calls the key's `encoded`")
    if conn.login:
        if "api_key" in arguments:
            raise SettingsError(f"Connection '{ELASTICSEARCH}' has a login and an api_key: remove one.")
        # The client itself takes ASCII only.
        arguments["basic_auth"] = basic_auth(conn.login, conn.password or "")
    arguments |= _elasticsearch_tls(hosts, options)
    try:
        node_class = SearchNode if len(hosts) == 1 else OneOfSeveral
        return Elasticsearch(hosts, node_class=node_class, **arguments)
    except (ValueError, TypeError, AttributeError) as e:
        raise SettingsError(f"Connection '{ELASTICSEARCH}' is refused by the client: {e}") from None


def _elasticsearch_tls(hosts: list[str], options: Extra) -> dict[str, Any]:
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


class _Opened(NamedTuple):
    parts: Parts
    services: tuple[Service, ...]
    closing: ExitStack


_AHEAD: deque[Future[_Opened]] = deque(maxlen=1)


def open_ahead(*, rows: bool, index: bool, services: bool) -> None:
    """Begin to open the parts of this process's task: the ledger, and what else it will use.

    That is Cassandra for `rows`, the clients of `index` and `services`: each takes a call to Airflow's API server. The
    next `opened_parts` gives them; what goes wrong shows there, or when the part is first used.
    """
    pool = ThreadPoolExecutor(1, "open-ahead")
    opened = pool.submit(_connected, rows=rows)
    _AHEAD.append(opened)
    pool.submit(_make_clients, opened, index=index, services=services)
    pool.shutdown(wait=False)


@contextmanager
def opened_parts(settings: Settings | None = None) -> Iterator[Parts]:
    """All parts of the stages, opened from the Connections and closed at the end.

    Each connects when it is first used.

    :raises SettingsError: if a setting or a connection is missing or wrong.
    """
    opened = _AHEAD.pop().result() if _AHEAD else _open(settings or load_settings())
    with opened.closing:
        yield opened.parts


def _connected(*, rows: bool) -> _Opened:
    """The ledger's Connection comes first: a connect to it (20 ms) goes on while the others are asked for."""
    with ExitStack() as stack, ThreadPoolExecutor(1, "ledger-connect") as pool:
        database = stack.enter_context(opened_database())
        pool.submit(database.connect)
        cql = stack.enter_context(opened_cql())
        if rows:
            cql.connect_ahead()
        opened = _open(load_settings(), database, cql)
        opened.closing.push(stack.pop_all())
    return opened


def _make_clients(opening: Future[_Opened], *, index: bool, services: bool) -> None:
    """While the task asks the ledger already."""
    opened = opening.result()
    if index:
        opened.parts.index.connect()
    for service in opened.services if services else ():
        service.connect()


def _open(settings: Settings, database: Database | None = None, cql: Cql | None = None) -> _Opened:
    with ExitStack() as stack:
        lms = stack.enter_context(Service("LMS", lambda: lms_endpoint(settings)))
        userorg = stack.enter_context(Service("User-Org", lambda: userorg_endpoint(settings)))
        database = database or stack.enter_context(opened_database())
        cql = cql or stack.enter_context(opened_cql())
        clients = stack.enter_context(ExitStack())

        def search() -> Elasticsearch:
            client = elasticsearch_client()
            clients.callback(client.close)
            return client

        parts = Parts.from_clients(settings, database, cql, search, lms=lms, userorg=userorg)
        return _Opened(parts, (userorg, lms), stack.pop_all())


def checks(parts: Parts) -> tuple[Callable[[], None], ...]:
    """A check of each part but Kafka: ledger, table, index, both services. Each raises the part's error."""
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
    """Topic, inbox and dead letters, after all checks: a run reads nothing unless every part is in place.

    A run that brings its own work (`by_hand`) goes on without Kafka where that is out of reach.

    :raises SettingsError: saying what to set where.
    :raises Unavailable: if a part cannot be reached.
    """
    parts.cql.connect_ahead()
    to_check = checks(parts)
    with ExitStack() as stack:
        try:
            # Its end waits for every check, also after an error: they use what is closed then.
            with ThreadPoolExecutor(len(to_check)) as pool:
                checking = [pool.submit(check) for check in to_check]
                try:
                    intake = _opened_kafka(stack, parts)
                except (SettingsError, Unavailable) as e:
                    if not by_hand:
                        raise
                    inbox = Inbox(
                        parts.events, parts.arrivals, None, parts.settings, clock=parts.database.now_ms
                    )
                    intake = Intake(None, inbox, missing=str(e))
                for check in checking:
                    check.result()
        finally:  # by now the Connections are read, and it may be one of them that is wrong
            report(parts.database, HostKind.WORKER, leads_to())
        yield intake


def _opened_kafka(stack: ExitStack, parts: Parts) -> Intake:
    settings = parts.settings
    kafka = KafkaHook(settings)
    topic = kafka.topic()
    stack.callback(topic.close)
    dead_letters = topic.beside(settings.failed_topic)
    for each in (topic, dead_letters):
        each.partitions()
    inbox = Inbox(parts.events, parts.arrivals, kafka.dead_letters(), settings, clock=parts.database.now_ms)
    return Intake(topic, inbox, dead_letters)


def _reachable(conn_id: str, endpoint: Endpoint) -> None:
    """Connect to the service's port and check its certificate, so that an error is found before a message is read."""
    address = urlsplit(endpoint.url)
    host, port = address.hostname or "", address.port or (443 if address.scheme == "https" else 80)
    try:
        with socket.create_connection((host, port), timeout=5) as plain:
            if endpoint.tls:
                endpoint.tls.wrap_socket(plain, server_hostname=host).close()
    except UnicodeError as e:  # a label that is empty, or too long for the name server's protocol
        raise SettingsError(f"Connection '{conn_id}' has a host that is no address: {e}") from None
    except OSError as e:
        raise Unavailable(f"{host}:{port}", f"{e}; {endpoint.advice}") from None
