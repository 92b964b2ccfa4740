"""What is wrong in a Connection is named with its field, and its secrets are in no message."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from cassandra import AuthenticationFailed
from cassandra.cluster import Cluster, NoHostAvailable
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ownership.domain.errors import MissingConnection, SettingsError, Unavailable
from ownership.domain.settings import Settings
from ownership.edge import connections, hooks, kafka_hook
from ownership.edge.cassandra_hook import CassandraHook, opened_cql
from ownership.edge.connections import endpoint
from ownership.edge.hooks import elasticsearch_client
from ownership.edge.kafka_hook import KafkaHook
from ownership.edge.ledger_hook import ledger_parameters
from ownership.ledger.database import CONNECTION
from ownership.platform.http_service import Endpoint, Service
from tests.unit.conftest import Request, Server

SECRET = "s3cret-Pa55word"  # noqa: S105  # looked for in every message
SETTING = "service.lms.basePath"

HTTP = {"conn_type": "http", "host": "lms.example", "login": "ownership", "password": SECRET}
ELASTICSEARCH = {**HTTP, "conn_type": "elasticsearch"}
CASSANDRA = {**HTTP, "conn_type": "cassandra", "host": "127.0.0.1"}
LEDGER = {**HTTP, "conn_type": "postgres", "schema": "ownership"}


def kafka(**extra: Any) -> dict[str, Any]:
    return {
        "conn_type": "kafka",
        "extra": {"bootstrap.servers": "127.0.0.1:1", "sasl.password": SECRET, **extra},
    }


def set_to(monkeypatch: pytest.MonkeyPatch, conn_id: str, connection: object) -> None:
    text = connection if isinstance(connection, str) else json.dumps(connection)
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", text)


def open_one(conn_id: str) -> None:
    """As the job would."""
    if conn_id == connections.LMS:
        Service("LMS", lambda: endpoint(connections.LMS, SETTING))._client()
    elif conn_id == connections.ELASTICSEARCH:
        elasticsearch_client()
    elif conn_id == CONNECTION:
        ledger_parameters()
    elif conn_id == connections.CASSANDRA:
        CassandraHook().shutdown_cluster()
    else:
        KafkaHook(Settings.parse(None)).topic().close()


@pytest.mark.parametrize(
    ("conn_id", "connection", "sentence"),
    [
        pytest.param(
            connections.LMS, f"http://a://b://ownership:{SECRET}@lms.example", "cannot be read", id="no connection at all"
        ),
        pytest.param(connections.LMS, f'{{"password": "{SECRET}", ', "cannot be read", id="half a JSON"),
        pytest.param(connections.LMS, {**HTTP, "extra": f'"{SECRET}"'}, "no JSON object", id="an extra that is a text"),
        pytest.param(connections.LMS, {**HTTP, "extra": f'{{"a": "{SECRET}'}, "no JSON object", id="half an extra"),
        pytest.param(connections.LMS, {**HTTP, "extra": {"verfy": True}}, "'verfy'.*known are verify", id="a misspelt option"),
        pytest.param(
            connections.LMS, {**HTTP, "host": f"https://x:{SECRET}@lms.example"}, "login in its host", id="a login in a URL"
        ),
        pytest.param(
            connections.LMS, {**HTTP, "host": f"x:{SECRET}@lms.example"}, "login in its host", id="a login in a host"
        ),
        pytest.param(connections.LMS, {**HTTP, "schema": "ftp"}, "schema 'ftp'", id="another schema"),
        pytest.param(connections.LMS, {**HTTP, "extra": {"verify": "/ca.pem"}}, "set schema https", id="TLS without TLS"),
        pytest.param(
            connections.LMS, {**HTTP, "schema": "https", "extra": {"verify": "/nowhere/ca.pem"}},
            "'verify' names '/nowhere/ca.pem'.*No such file", id="no such authority",
        ),
        pytest.param(
            connections.LMS, {**HTTP, "schema": "https", "extra": {"cert": ["/nowhere/a.pem", "/nowhere/a.key"]}},
            "'cert' names '/nowhere/a.pem'", id="no such certificate",
        ),
        pytest.param(
            connections.LMS, {**HTTP, "schema": "https", "extra": {"cert": ["", "/nowhere/a.key"]}},
            "without a certificate", id="a key alone",
        ),
        pytest.param(
            connections.LMS, {**HTTP, "extra": {"headers": {"Authorization": f"Bearer {SECRET}"}}}, "remove one",
            id="two ways to log in",
        ),
        pytest.param(
            connections.LMS, {**HTTP, "extra": {"headers": {"X-Key": f"{SECRET}\r\nX-Other: 1"}}}, "X-Key",
            id="a line's end in a header",
        ),
        pytest.param(
            connections.LMS, {**HTTP, "extra": {"headers": {"X Key": SECRET}}}, "'headers' must be", id="no header's name"
        ),
        pytest.param(connections.LMS, {**HTTP, "extra": {"headers": [SECRET]}}, "an object", id="headers in a list"),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "host": f"https://x:{SECRET}@es.example:9200"},
            "login in its host", id="Elasticsearch: a login in a URL",
        ),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "extra": {"api_key": SECRET}}, "a login and an api_key",
            id="Elasticsearch: two ways to log in",
        ),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "extra": {"ca_certs": "/ca.pem"}}, "set schema https",
            id="Elasticsearch: TLS without TLS",
        ),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "schema": "https", "extra": {"ca_certs": "/nowhere.pem"}},
            "'ca_certs' names '/nowhere.pem'", id="Elasticsearch: no such authority",
        ),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "schema": "https", "extra": {"verify_certs": "perhaps"}},
            "'verify_certs' must be true or false", id="Elasticsearch: neither true nor false",
        ),
        pytest.param(
            connections.CASSANDRA, {**CASSANDRA, "extra": {"ssl_options": {"cert_reqs": 0, "ssl_version": 2}}},
            "'cert_reqs', 'ssl_version'", id="Cassandra: what verified nothing",
        ),
        pytest.param(
            connections.CASSANDRA, {**CASSANDRA, "extra": {"ssl_options": True}}, "'ssl_options' must be an object",
            id="Cassandra: no object",
        ),
        pytest.param(
            connections.CASSANDRA, {**CASSANDRA, "extra": {"ssl_options": {"keyfile": "/a.key"}}}, "without a certificate",
            id="Cassandra: a key alone",
        ),
        *(
            pytest.param(connections.CASSANDRA, {**CASSANDRA, "extra": extra}, said, id=f"Cassandra: {extra}")
            for extra, said in (
                ({"request_timeout": "soon"}, "'request_timeout' must be a number"),
                ({"protocol_version": None}, "'protocol_version' must be a number"),
                ({"serial_consistency_level": "QUORUM"}, "driver refuses: serial_consistency_level"),
                ({"load_balancing_policy": "WhiteListRoundRobinPolicy"}, "driver refuses: Hosts must be"),
                ({"local_cd": "dc1"}, "'local_cd' in its extra, which the job does not know; known are .*local_dc"),
                ({"load_balancing_policy": "DCAware"}, "'load_balancing_policy' must be one of DCAwareRoundRobinPolicy"),
                ({"load_balancing_policy": "DCAwareRoundRobinPolicy", "load_balancing_policy_args": {"dc": "dc1"}},
                 "'dc' in its extra 'load_balancing_policy_args', .* known are local_dc, used_hosts_per_remote_dc"),
                ({"load_balancing_policy": "TokenAwarePolicy",
                  "load_balancing_policy_args": {"child_load_balancing_policy": "TokenAwarePolicy"}},
                 "'child_load_balancing_policy' must be one of DCAwareRoundRobinPolicy"),
                ({"load_balancing_policy_args": {"local_dc": "dc1"}}, "'load_balancing_policy' must be one of"),
            )
        ),
        pytest.param(
            connections.ELASTICSEARCH, {**ELASTICSEARCH, "extra": {"request_timeout": "soon"}},
            "'request_timeout' must be a number", id="Elasticsearch: a time-out that is none",
        ),
        pytest.param(
            connections.ELASTICSEARCH,
            {**ELASTICSEARCH, "login": None, "extra": {"api_key": {"id": "x", "api_key": SECRET, "encoded": SECRET}}},
            "'api_key' must be a text: .* `encoded`", id="Elasticsearch: a key that is no text",
        ),
        pytest.param(connections.LMS, {**HTTP, "port": 99999}, "port 99999", id="a port that is none"),
        *(
            pytest.param(connections.LMS, {**HTTP, "host": host}, said, id=f"host {host}")
            for host, said in (
                ("lms.example:99999", "a host that is no address: Port"),
                ("http://lms.example:x", "a host that is no address: Port"),
                ("ftp://lms.example", "schema 'ftp'; use http or https"),
            )
        ),
        pytest.param(
            connections.KAFKA, kafka(**{"bootstrap.servers": ["a:1", "b:1"]}), "no text as bootstrap.servers in its extra",
            id="Kafka: servers in a list",
        ),
        pytest.param(
            connections.KAFKA, {"conn_type": "kafka"}, "no text as bootstrap.servers in its extra", id="Kafka: no servers"
        ),
        pytest.param(
            connections.KAFKA, kafka(oauth_cb="a.b"), r"callback oauth_cb='a.b'.* callback_allowlist is empty\.$",
            id="Kafka: a callback that Airflow does not allow",
        ),
        pytest.param(
            connections.KAFKA, kafka(**{"isolation.level": "Read_Uncommitted"}), "isolation.level=read_uncommitted.*Remove",
            id="Kafka: messages of aborted transactions",
        ),
        pytest.param(
            connections.KAFKA, kafka(**{"transactional.id": "t"}), "a transactional.id.*Remove", id="Kafka: transactions"
        ),
        pytest.param(connections.KAFKA, kafka(**{"sasl.pasword": SECRET}), "sasl.pasword", id="Kafka: a misspelt option"),
        pytest.param(
            connections.KAFKA, kafka(**{"ssl.ca.location": "/nowhere.pem", "security.protocol": "SSL"}), "ssl.ca.location",
            id="Kafka: no such authority",
        ),
        pytest.param(
            connections.KAFKA, kafka(**{"sasl.jaas.config": f'PlainLoginModule required password="{SECRET}";'}), "JAAS",
            id="Kafka: Java's way",
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "conn_type": "mysql"}, "type 'mysql'.*must be postgres", id="ledger: another server"
        ),
        pytest.param(CONNECTION, {**LEDGER, "host": ""}, "has no host", id="ledger: no host"),
        pytest.param(CONNECTION, {**LEDGER, "schema": ""}, r"has no schema \(the database\)", id="ledger: no database"),
        pytest.param(CONNECTION, {**LEDGER, "login": ""}, "has no login", id="ledger: no login"),
        pytest.param(CONNECTION, {**LEDGER, "extra": f'["{SECRET}"]'}, "no JSON object", id="ledger: a list for an extra"),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"sslmod": "require"}}, "'sslmod'.*known are sslmode, sslrootcert",
            id="ledger: a misspelt option",
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"password": SECRET, "options": "-c x=y"}}, "'options', 'password'",
            id="ledger: what the fields or the job itself set",
        ),
        *(
            pytest.param(
                CONNECTION, {**LEDGER, "extra": {"connect_timeout": value}}, "'connect_timeout' must be a number above zero",
                id=f"ledger: a time-out of {value}",
            )
            for value in ("soon", 0, "-1")
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"sslmode": "verify-full", "sslrootcert": "/nowhere/ca.pem"}},
            "'sslrootcert' names '/nowhere/ca.pem'.*No such file", id="ledger: no such authority",
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"sslmode": "verify-full", "sslrootcert": ["/ca.pem"]}},
            "'sslrootcert' must be the path", id="ledger: a list for a path",
        ),
        pytest.param(
            CONNECTION,
            {**LEDGER, "extra": {"sslmode": "require", "sslcert": "/nowhere/a.pem", "sslkey": "/nowhere/a.key"}},
            "'sslcert' names '/nowhere/a.pem'", id="ledger: no such certificate",
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"sslrootcert": "system"}},
            "sslrootcert in its extra without an sslmode that asks for TLS", id="ledger: an authority without TLS",
        ),
        pytest.param(
            CONNECTION, {**LEDGER, "extra": {"sslmode": "require", "sslkey": "/nowhere/a.key"}},
            "without a certificate", id="ledger: a key alone",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_no_secret_is(
    monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any, conn_id: str, connection: object, sentence: str
) -> None:
    set_to(monkeypatch, conn_id, connection)

    with pytest.raises(SettingsError, match=sentence) as caught:
        open_one(conn_id)

    assert conn_id in str(caught.value)
    printed = capfd.readouterr()
    assert SECRET not in f"{caught.value!r} {caught.value} {caplog.text} {printed.out} {printed.err}"


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        pytest.param("http://[::1]:9000", "http://[::1]:9000", id="a URI, of which Airflow keeps ::1"),
        pytest.param({**HTTP, "host": "::1"}, "http://[::1]", id="bare"),
        pytest.param({**HTTP, "host": "[::1]", "port": 9000}, "http://[::1]:9000", id="in brackets"),
        pytest.param({**HTTP, "host": "http://[::1]:9000"}, "http://[::1]:9000", id="a URL"),
    ],
)
def test_a_host_may_be_an_ipv6_address(monkeypatch: pytest.MonkeyPatch, connection: object, url: str) -> None:
    set_to(monkeypatch, connections.LMS, connection)
    assert endpoint(connections.LMS, SETTING).url == url


@pytest.mark.parametrize(
    "policy",
    [
        {"load_balancing_policy": "TokenAwarePolicy", "load_balancing_policy_args": {}},
        {
            "load_balancing_policy": "TokenAwarePolicy",
            "load_balancing_policy_args": {
                "child_load_balancing_policy": "DCAwareRoundRobinPolicy",
                "child_load_balancing_policy_args": {"local_dc": "dc1", "used_hosts_per_remote_dc": 1},
            },
        },
        {"load_balancing_policy": "RoundRobinPolicy"},
    ],
)
def test_a_policy_of_the_provider_is_taken(policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, connections.CASSANDRA, {**CASSANDRA, "extra": policy})
    open_one(connections.CASSANDRA)


@pytest.mark.parametrize("host", ["127.0.0.1:9042", "http://127.0.0.1", ","])
def test_hosts_of_cassandra_without_an_address_are_an_outage_that_says_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    set_to(monkeypatch, connections.CASSANDRA, {**CASSANDRA, "host": host})
    with pytest.raises(Unavailable, match=r"no host of Connection 'cassandra_default' has an address.*port"):
        open_one(connections.CASSANDRA)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        pytest.param(
            NoHostAvailable("Unable to connect to any servers", ["10.0.0.1"]), Unavailable,
            r"Unable to connect.*10\.0\.0\.1.*Are its local_dc", id="a session without a node: a wrong local_dc",
        ),
        pytest.param(
            NoHostAvailable("Unable to connect to any servers", {"10.0.0.1": OSError("refused")}), Unavailable,
            "refused.*is the host of Connection 'cassandra_default' right", id="no node answers",
        ),
        pytest.param(
            NoHostAvailable("Unable to connect to any servers", {"10.0.0.1": AuthenticationFailed("no")}), SettingsError,
            "refuses the login: set login and password of Connection 'cassandra_default'", id="a wrong login",
        ),
    ],
)  # fmt: skip
def test_a_cassandra_that_cannot_be_connected_to_says_what_to_look_at(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], said: str
) -> None:
    """As driver 3.30 raises them: without a node for its session it lists addresses where causes else stand."""

    def connect(_: Any) -> Any:
        raise error

    set_to(monkeypatch, connections.CASSANDRA, CASSANDRA)
    monkeypatch.setattr(Cluster, "connect", connect)
    with pytest.raises(kind, match=said), opened_cql() as cql:
        _ = cql.session


def test_a_file_that_is_no_certificate_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    set_to(monkeypatch, connections.LMS, {**HTTP, "schema": "https", "extra": {"verify": str(file)}})

    with pytest.raises(SettingsError, match=r"'verify' names '.*ca\.pem', which cannot be used"):
        endpoint(connections.LMS, SETTING)


def test_a_file_of_the_ledger_s_that_is_no_certificate_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    for name in ("sslrootcert", "sslcert", "sslcrl"):
        set_to(monkeypatch, CONNECTION, {**LEDGER, "extra": {"sslmode": "verify-full", name: str(file)}})
        with pytest.raises(SettingsError, match=rf"'{name}' names '.*ca\.pem', which cannot be used"):
            ledger_parameters()


def test_a_list_of_revoked_certificates_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = x509.CertificateRevocationListBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]), now, now + timedelta(days=1)
    ).sign(key, hashes.SHA256())
    file = tmp_path / "revoked.pem"
    file.write_bytes(made.public_bytes(Encoding.PEM))
    set_to(monkeypatch, CONNECTION, {**LEDGER, "extra": {"sslmode": "verify-full", "sslcrl": str(file)}})
    assert ledger_parameters()["sslcrl"] == str(file)


def test_the_ledger_s_connection_is_libpq_s_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    named = {
        "host": "lms.example",
        "port": "5432",
        "dbname": "ownership",
        "user": "ownership",
        "password": SECRET,
    }
    set_to(monkeypatch, CONNECTION, LEDGER)
    assert ledger_parameters() == named

    extra = {
        "sslmode": "verify-full",
        "sslrootcert": "system",
        "target_session_attrs": "read-write",
        "sslcert": "",
    }
    several = {**LEDGER, "host": "a.example, b.example", "port": 6432, "extra": extra}
    set_to(monkeypatch, CONNECTION, several)
    assert ledger_parameters() == {
        **named,
        "host": "a.example,b.example",
        "port": "6432",
        "sslmode": "verify-full",
        "sslrootcert": "system",
        "target_session_attrs": "read-write",
    }


def test_the_ledger_s_login_needs_no_password_where_the_server_asks_for_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to(monkeypatch, CONNECTION, {**LEDGER, "password": None})
    assert "password" not in ledger_parameters()


def test_the_ledger_s_connection_may_be_a_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"postgresql://me:{SECRET}@db.example:6432/ledger?sslmode=require"
    set_to(monkeypatch, CONNECTION, uri)
    found = ledger_parameters()
    assert found == {
        "host": "db.example",
        "port": "6432",
        "dbname": "ledger",
        "user": "me",
        "password": SECRET,
        "sslmode": "require",
    }


def test_a_missing_connection_of_the_ledger_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_OWNERSHIP_LEDGER", raising=False)
    with pytest.raises(
        MissingConnection, match=r"'ownership_ledger' is missing.*AIRFLOW_CONN_OWNERSHIP_LEDGER"
    ):
        ledger_parameters()


def test_a_url_of_the_settings_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, connections.LMS, {**HTTP, "extra": {"headers": {"X-Key": "1"}}})

    found = endpoint(connections.LMS, SETTING, "https://elsewhere.example")

    assert (found.url, found.login, dict(found.headers)) == ("https://elsewhere.example", None, {})
    assert f"setting '{SETTING}'" in found.advice


def test_a_url_of_the_settings_may_hold_no_login() -> None:
    with pytest.raises(SettingsError, match=f"'{SETTING}' holds a login") as caught:
        endpoint(connections.LMS, SETTING, f"https://x:{SECRET}@elsewhere.example")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("connection", "url"),
    [
        pytest.param({"host": "h"}, "http://h", id="a host"),
        pytest.param({"host": "h", "port": 81, "schema": "HTTPS"}, "https://h:81", id="host, port, schema"),
        pytest.param({"host": "https://h:82", "port": 81}, "https://h:82", id="a URL with a port"),
        pytest.param({"host": "https://h", "port": 81}, "https://h:81", id="a URL and a port"),
        pytest.param({"host": "http://h/", "port": 81}, "http://h:81/", id="a URL with a slash at its end"),
        pytest.param({"host": "h/lms/", "port": 81}, "http://h:81/lms/", id="a host and a path"),
        pytest.param({"host": "https://h/a/b", "port": 81}, "https://h:81/a/b", id="a URL with a path"),
        pytest.param(
            {"host": "http://[::1]/a", "port": 81}, "http://[::1]:81/a", id="an IPv6 address and a path"
        ),
        pytest.param({"host": " h ", "port": 81}, "http://h:81", id="blanks around the host"),
    ],
)
def test_a_connection_s_fields_make_a_url(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], url: str
) -> None:
    set_to(monkeypatch, connections.LMS, {"conn_type": "http", **connection})
    assert endpoint(connections.LMS, SETTING).url == url


@pytest.mark.parametrize(
    ("connection", "urls"),
    [
        pytest.param({"host": "a"}, ["http://a:9200"], id="a host"),
        pytest.param({"host": "a, b", "port": 81}, ["http://a:81", "http://b:81"], id="several"),
        pytest.param({"host": "a/es", "port": 81}, ["http://a:81/es"], id="a path"),
        pytest.param({"host": "https://a/es/", "port": 81}, ["https://a:81/es"], id="a URL with a path"),
        pytest.param({"host": "https://a:82", "port": 81}, ["https://a:82"], id="a URL with a port"),
    ],
)
def test_the_hosts_of_the_index_make_urls(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, Any], urls: list[str]
) -> None:
    set_to(monkeypatch, connections.ELASTICSEARCH, {"conn_type": "elasticsearch", **connection})
    client = elasticsearch_client()
    assert sorted(node.base_url for node in client.transport.node_pool.all()) == urls


def test_a_login_to_the_index_may_have_letters_beyond_ascii(
    monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    seen: set[str] = set()

    def answer(_: Request, handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        seen.add(handler.headers["Authorization"])
        return 200, {"version": {"number": "7.10.2"}, "tagline": "You Know, for Search"}

    server.answer = answer
    connection = {"conn_type": "elasticsearch", "host": server.url, "login": "name", "password": "ü"}
    set_to(monkeypatch, connections.ELASTICSEARCH, connection)
    with elasticsearch_client() as client:
        client.info()
    assert seen == {"Basic bmFtZTrDvA=="}


def test_a_search_node_that_did_not_answer_is_left_alone_for_half_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to(monkeypatch, connections.ELASTICSEARCH, {"conn_type": "elasticsearch", "host": "a,b"})
    pool = elasticsearch_client().transport.node_pool
    frozen, other = pool.all()
    pool.mark_dead(frozen, _now=time.time() - 25)
    assert {pool.get() for _ in range(20)} == {other}


def test_a_server_is_verified_unless_the_connection_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for extra, verified in (({}, True), ({"verify": True}, True), ({"verify": "False"}, False)):
        set_to(monkeypatch, connections.LMS, {**HTTP, "schema": "https", "extra": extra})
        context = endpoint(connections.LMS, SETTING).tls
        assert context
        assert (context.check_hostname, bool(context.verify_mode)) == (verified, verified)


def test_no_text_of_an_endpoint_or_its_service_has_a_secret() -> None:
    found = Endpoint("https://h", login=("x", SECRET), headers={"Authorization": SECRET})
    service = Service("LMS", lambda: found)
    assert SECRET not in f"{found} {found!r} {service!r} {vars(service)} {service._client()!r}"


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "lms..example"], ids=["too long a label", "no label"]
)
def test_a_host_that_cannot_be_looked_up_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match="Connection 'lms_default' has a host that is no address"):
        hooks._reachable(connections.LMS, Endpoint(f"http://{host}"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        pytest.param(None, "is the host of Connection 'lms_default' right", id="the Connection's"),
        pytest.param("http://127.0.0.1:1", f"the URL is that of setting '{SETTING}'", id="a setting's"),
    ],
)
def test_a_service_out_of_reach_says_what_its_address_is_from(
    monkeypatch: pytest.MonkeyPatch, override: str | None, said: str
) -> None:
    set_to(monkeypatch, connections.LMS, {**HTTP, "host": "127.0.0.1", "port": 1})
    with pytest.raises(Unavailable, match=rf"^127\.0\.0\.1:1 unavailable: .*refused; {said}"):
        hooks._reachable(connections.LMS, endpoint(connections.LMS, SETTING, override))


def test_a_commit_waits_ten_seconds_for_a_coordinator_unless_the_connection_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(kafka_hook, "Consumer", asked.append)
    for given in ({}, {"session.timeout.ms": 6_000}):
        set_to(monkeypatch, connections.KAFKA, kafka(**given))
        KafkaHook(Settings()).topic()
    assert [c["session.timeout.ms"] for c in asked] == [10_000, 6_000]


def test_the_protocol_of_the_group_s_members_makes_no_difference_to_a_client_that_joins_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to(
        monkeypatch,
        connections.KAFKA,
        kafka(**{"group.protocol": "consumer", "group.remote.assignor": "uniform"}),
    )
    hook = KafkaHook(Settings())
    hook.topic().close()
    hook.dead_letters()


@pytest.mark.parametrize(
    ("conn_id", "connection", "leads_to"),
    [
        pytest.param("kafka_default", kafka(**{"bootstrap.servers": "b:9092, a:9092"}), "a:9092, b:9092", id="kafka"),
        pytest.param("cassandra_default", CASSANDRA | {"host": "c1,c2", "port": 9042}, "c1, c2:9042", id="hosts"),
        pytest.param("lms_default", HTTP | {"host": f"https://u:{SECRET}@lms.example/a@b", "port": 80}, "lms.example:80", id="a URL"),
        pytest.param("userorg_default", {"conn_type": "http"}, "", id="nowhere"),
        pytest.param("kafka_default", {"conn_type": "kafka", "extra": "[1]"}, "", id="no object"),
        pytest.param("kafka_default", {"conn_type": "kafka", "extra": "{"}, "", id="no JSON"),
        pytest.param("ownership_ledger", LEDGER, None, id="the ledger's own"),
    ],
)  # fmt: skip
def test_where_a_connection_leads_is_kept_without_login_and_path(
    monkeypatch: pytest.MonkeyPatch, conn_id: str, connection: Any, leads_to: str | None
) -> None:
    monkeypatch.setattr(connections, "_LEADS_TO", {})
    set_to(monkeypatch, conn_id, connection)
    connections.connection(conn_id)
    assert connections.leads_to() == ({} if leads_to is None else {conn_id: leads_to})
