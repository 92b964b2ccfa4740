"""The job on secured servers, as docs/security.md has it: its connections, its grants, its ACLs, and no more.

Kafka and Cassandra are real and secured by themselves. PostgreSQL is real and asks for its passwords itself; its TLS is a
gate's. Before Elasticsearch, the LMS and User-Org stand gates, too.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AclOperation
from psycopg.errors import InsufficientPrivilege

from local.platform import schema
from local.platform.world import Platform, create_platform
from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import await_condition
from local.stack import Stack
from ownership.domain.errors import OwnershipError, SettingsError, Unavailable
from ownership.edge.hooks import load_settings, opened_intake, opened_parts
from ownership.health.look import look
from ownership.ledger.__main__ import main
from ownership.ledger.schema import REVISION, metadata
from ownership.platform import kafka as topic
from ownership.platform.kafka import Span
from tests.fake_api_server import fake_api_server
from tests.harness import Job
from tests.integration.security.secured_servers import (
    LEDGER_PAGE,
    PASSWORD,
    SECURITY,
    Authority,
    Gate,
    Kafka,
    Postgres,
    PostgresGate,
    documented,
    documented_acls,
    documented_connections,
    documented_statements,
    opened_gate,
    secured_cassandra,
    secured_kafka,
    secured_postgres,
    server_context,
)
from tests.integration.stages.transfer_world import World

ENV = "dev"  # the page's own

Connections = dict[str, dict[str, Any]]
KAFKA, CASSANDRA, ELASTICSEARCH, LMS, USERORG = (
    f"AIRFLOW_CONN_{name}_DEFAULT" for name in ("KAFKA", "CASSANDRA", "ELASTICSEARCH", "LMS", "USERORG")
)
LEDGER = "AIRFLOW_CONN_OWNERSHIP_LEDGER"


@dataclass(frozen=True)
class Secured:
    """The servers, their administrators, and the connections of the job."""

    files: Path
    kafka: Kafka
    admin: Session
    postgres: Postgres
    gates: dict[str, Gate]
    platform: Platform
    connections: Connections
    environment: dict[str, str]

    def changed(self) -> Connections:
        """The connections, to be changed."""
        copy: Connections = json.loads(json.dumps(self.connections))
        return copy


@pytest.fixture(scope="module")
def secured(stack: Stack) -> Iterator[Secured]:
    directory = stack.directory / "secured"
    layout = Layout.of(directory)
    authority = Authority(directory / "tls")
    authority.issue("server", "server")
    client = authority.issue("client", "ownership")
    Authority(directory / "tls", "stranger")
    trusting = ssl.create_default_context(cafile=str(authority.file))
    trusting.check_hostname = False
    trusting.load_cert_chain(client, client.with_suffix(".key"))
    kafka = secured_kafka(layout, authority)
    cassandra = secured_cassandra(layout, authority, trusting)
    postgres = secured_postgres(layout)
    with ExitStack() as ended:
        servers = [kafka.server, cassandra, postgres.server]
        for server in servers:
            ended.callback(server.stop)
            ended.callback(server.kill)  # nobody reads its data again
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda server: (server.start(), server.wait_ready()), servers))
        kafka.add_user("ownership", PASSWORD)
        as_administrator = partial(
            Cluster, auth_provider=PlainTextAuthProvider("cassandra", "cassandra"), ssl_context=trusting
        )
        with pytest.MonkeyPatch.context() as patch:
            # The platform has its own ways in; they are not what is tested.
            patch.setattr(schema, "Cluster", as_administrator)
            await_condition(lambda: _lets_in(cassandra.address), timeout_s=30, what="the first login")
            plain = {
                "cassandra": cassandra.address,
                "elasticsearch": stack.addresses.elasticsearch,
                "kafka": kafka.plain,
            }
            create_platform(**plain, env=ENV)
            platform = ended.enter_context(Platform(**plain, env=ENV))
        gates = {
            ELASTICSEARCH: ended.enter_context(
                opened_gate(stack.addresses.elasticsearch, authority, _basic("ownership", PASSWORD))
            ),
            LMS: ended.enter_context(
                opened_gate(stack.addresses.lms, authority, _basic("ownership", PASSWORD))
            ),
            USERORG: ended.enter_context(
                opened_gate(
                    stack.addresses.userorg,
                    authority,
                    {"Authorization": f"Bearer {PASSWORD}"},
                    client_certificate=True,
                )
            ),
        }
        connections = documented_connections(directory / "tls")
        connections[KAFKA]["extra"]["bootstrap.servers"] = kafka.scram_tls
        host, _, port = cassandra.address.rpartition(":")
        connections[CASSANDRA] |= {"host": host, "port": int(port)}
        connections[CASSANDRA]["extra"]["local_dc"] = "datacenter1"
        gate = PostgresGate(postgres.port, server_context(authority, client_certificate=False))
        connections[LEDGER] |= {"host": HOST, "port": ended.enter_context(gate.opened()).port}
        for name, opened in gates.items():
            connections[name] |= {"host": HOST, "port": opened.port}
        environment = {n: v for n, v in stack.airflow_env.items() if n.startswith("AIRFLOW__")}
        environment["AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"] = json.dumps({"env": ENV, "grace.ms": 0})
        made = Secured(
            directory / "tls", kafka, platform.session, postgres, gates, platform, connections, environment
        )
        postgres.admit(*documented_rules())
        for statement in (
            *documented_statements("Create", LEDGER_PAGE),
            *documented_statements("Role in PostgreSQL"),
        ):
            postgres.execute(statement)
        with set_to(made, connections):
            assert main(["upgrade"]) == 0
        for statement in documented_statements("Role in Cassandra"):
            platform.session.execute(statement)
        kafka.allow(documented_acls())
        yield made


def documented_rules() -> list[str]:
    """The rules of pg_hba.conf of the page, for this machine and for what the gate lets through."""
    found = [line for line in documented("PostgreSQL") if line.startswith("host")]
    assert [line.split()[0] for line in found] == ["hostssl"]
    return [re.sub(r"\S+/\d+", f"{HOST}/32", line).replace("hostssl", "host") for line in found]


def _lets_in(address: str) -> bool:
    cluster = schema.connect_cassandra(address)
    try:
        cluster.connect()
    except NoHostAvailable:
        return False
    finally:
        cluster.shutdown()
    return True


def _basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"}


@contextmanager
def set_to(secured: Secured, connections: Connections) -> Iterator[None]:
    """These connections in the environment of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in secured.environment.items():
            patch.setenv(name, value)
        for name, connection in connections.items():
            patch.setenv(name, json.dumps(connection))
        yield


@contextmanager
def opened_world(secured: Secured, connections: Connections | None = None) -> Iterator[World]:
    """The job as Airflow's tasks open it."""
    with (
        set_to(secured, connections or secured.connections),
        opened_parts(load_settings()) as parts,
        opened_intake(parts) as intake,
    ):
        assert intake.topic
        assert intake.dead_letters
        client = parts.index._es
        job = Job(parts.settings, parts, intake.topic, intake.inbox, client, intake.dead_letters)
        ledger = f"postgresql://ownership:{PASSWORD}@{HOST}:{secured.postgres.port}/ownership"
        yield World(secured.platform, job, secured.kafka.plain, ledger)


@pytest.fixture
def world(secured: Secured) -> Iterator[World]:
    with opened_world(secured) as world:
        yield world
        world.check_stores()
        assert world.job.open_mids() == []


# --- what the page has suffices


def test_a_transfer_and_its_undo_need_no_more_than_the_page_grants(world: World) -> None:
    old, new, mentor = world.users("old", "new", "mentor")
    batches = world.batches(8, created_by=old, mentors=(mentor, old))
    (missing,) = world.batches(1, created_by=old, documents=True)
    mid = world.transfer(old, new)

    summary = world.whole_run()

    assert summary.events == {"completed": 1}
    assert set(world.creators([*batches, missing])) == {new}
    _, undone = world.undo(mid)
    assert undone.batches == {"moved": 9}
    assert {world.owners(b) for b in batches} == {(old, (mentor, old))}


def test_a_dead_letter_is_written_and_put_back_with_the_same_login(world: World) -> None:
    before = len(world.dead_letters())
    world.platform.emit(b"{no event")

    pulled = world.run().pull().pulled

    assert not pulled.slices
    assert len(world.dead_letters()) == before + 1
    letters = world.job.dead_letters
    assert [m.value for m in letters.read(letters.since(0))][-1] == b"{no event"
    assert [span.start for span in _backlog(world)] == [span.end for span in _backlog(world)]


def _backlog(world: World) -> list[Span]:
    consumed = world.job.inbox.arrivals.consumed(world.job.topic.name)
    return world.job.topic.backlog({p: c.next_offset for p, c in consumed.items()})


def test_the_watcher_sees_the_backlog_with_the_same_login(secured: Secured, world: World) -> None:
    from ownership.edge.triggers import _Watch

    old, new = world.users("old", "new")
    world.batch(created_by=old)
    world.transfer(old, new)
    with ExitStack() as stack:
        assert _Watch(stack).look().backlog == 1
    assert world.whole_run().events == {"completed": 1}


def test_the_ledger_can_be_upgraded_again_by_its_own_role(secured: Secured, capsys: Any) -> None:
    with set_to(secured, secured.connections):
        assert main(["upgrade"]) == 0
    assert capsys.readouterr().out == f"The ledger is ready, schema {REVISION}.\n"


def test_the_role_of_the_ledger_is_no_more_than_the_owner_of_its_database(secured: Secured) -> None:
    ((*rights, password),) = secured.postgres.execute(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, left(rolpassword, 13) "
        "FROM pg_authid WHERE rolname = 'ownership'"
    )
    assert (rights, password) == ([False] * 5, "SCRAM-SHA-256")
    owned = "SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = 'ownership'"
    assert secured.postgres.execute(owned) == [("ownership",)]
    others = "SELECT has_database_privilege('public', 'ownership', p) FROM unnest('{CONNECT,TEMPORARY,CREATE}'::text[]) p"
    assert secured.postgres.execute(others) == [(False,)] * 3


def test_the_page_grants_course_batch_alone_in_cassandra_to_the_job() -> None:
    granted = {
        tuple(s.split()[1:5:3]) for s in documented_statements("Role in Cassandra") if s.startswith("GRANT")
    }
    assert granted == {(permission, "sunbird_courses.course_batch") for permission in ("SELECT", "MODIFY")}


WITHHELD = ("payload", "rejected_message", "host")
"""Tables with names of people, and with digests of secrets."""


def test_people_who_read_the_ledger_see_no_names_and_change_nothing(secured: Secured, world: World) -> None:
    old, new = world.users("old", "new")
    world.batch(created_by=old)
    mid = world.transfer(old, new)
    assert world.whole_run().events == {"completed": 1}
    tables = [t.name for t in metadata.sorted_tables if t.name != "queue_head"]
    for statement in documented_statements("Role of people who read the ledger"):
        secured.postgres.execute(statement, "ownership")
    secured.postgres.admit(*documented_rules(), f"host ownership ownership_reader {HOST}/32 scram-sha-256")
    try:
        with psycopg.connect(
            host=HOST, port=secured.postgres.port, dbname="ownership", user="ownership_reader", password=PASSWORD,
            autocommit=True,
        ) as reader:  # fmt: skip
            assert reader.execute("SELECT from_user FROM event WHERE mid = %s", [mid]).fetchall() == [(old,)]
            for table in tables:
                if table not in WITHHELD:
                    reader.execute(f"SELECT * FROM {table}".encode()).fetchall()
            partitions = (
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'payload'::regclass"
            )
            months = [name for (name,) in reader.execute(partitions).fetchall()]
            assert months
            for table in (*WITHHELD, *months):
                with pytest.raises(InsufficientPrivilege):
                    reader.execute(f"SELECT * FROM {table}".encode())
            for statement in (*(f"DELETE FROM {t}" for t in tables), "CREATE TABLE mine (id int)"):
                with pytest.raises(InsufficientPrivilege):
                    reader.execute(statement.encode())
    finally:
        secured.postgres.admit(*documented_rules())


def test_the_names_of_somebody_who_asks_for_it_are_forgotten_and_the_audit_trail_stays(
    secured: Secured, world: World
) -> None:
    old, new = world.users("Old", "new")
    world.batch(created_by=old)
    event = world.event(old, new)
    event["edata"]["fromUserProfile"]["firstName"] = "Zqfirst"
    mid = event["mid"]
    world.platform.emit(event)
    assert world.whole_run().events == {"completed": 1}
    bodies = world.job.parts.events.bodies
    body = bodies([mid])[mid]
    assert body is not None
    assert b"Zqfirst" in body

    for statement in documented_statements("What is kept where"):
        secured.postgres.execute(statement.replace("<user>", old), "ownership")

    assert bodies([mid]) == {mid: b"{}"}
    assert world.state(mid) == "completed"
    assert len(world.trail(mid)) == 1
    # Read again it is another message with the same mid, and is rejected; nothing moves.
    before = len(world.dead_letters())
    world.platform.emit(event)
    assert world.run().pull().pulled.rejected == 1
    assert len(world.dead_letters()) == before + 1


def test_no_call_to_elasticsearch_is_missing_in_the_page(
    secured: Secured, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownership.platform import search_index

    old, new = world.users("old", "new")
    batches = world.batches(3, created_by=old)
    world.hidden.add(batches[0].batch_id)
    world.platform.delete_document(batches[0].batch_id)
    world.transfer(old, new)
    world.whole_run()
    monkeypatch.setattr(search_index, "DOCS_PER_CALL", 1)  # beyond it a search is paged through
    index = world.job.parts.index
    assert {b.batch_id for _, b in index.live_batches([new])} >= {b.batch_id for b in batches[1:]}
    index.delete_created(batches[1].batch_id)
    world.hidden.add(batches[1].batch_id)

    index_name = world.job.settings.course_batch_index
    calls = {
        (method, re.sub(r"/_doc/.+", "/_doc/{id}", re.sub(rf"^/{index_name}(?=/|$)", "/{index}", path)))
        for method, path in secured.gates[ELASTICSEARCH].calls
    }
    table = {
        (method, path)
        for line in re.findall(r"(?m)^\| (`(?:GET|POST|PUT|DELETE) .*?) \|", SECURITY)
        for method, path in re.findall(r"`(\w+) (\S+)`", line)
    }
    assert calls == table
    (role,) = (json.loads(line) for line in documented("Role in Elasticsearch"))
    privileges = set(re.findall(r"(?m)^\| `(?:GET|POST|PUT|DELETE) .*\| (\w+) \|$", SECURITY))
    assert privileges == set(role["indices"][0]["privileges"])
    assert role["indices"][0]["names"] == [index_name]


# --- every other way in


def _kafka_by_certificate(secured: Secured, connections: Connections) -> None:
    connections[KAFKA]["extra"] = {
        "bootstrap.servers": secured.kafka.certificate,
        "security.protocol": "SSL",
        "ssl.ca.location": str(secured.files / "ca.pem"),
        "ssl.certificate.location": str(secured.files / "client.pem"),
        "ssl.key.location": str(secured.files / "client.key"),
    }


def _kafka_without_tls(secured: Secured, connections: Connections) -> None:
    extra = connections[KAFKA]["extra"]
    extra |= {"bootstrap.servers": secured.kafka.scram, "security.protocol": "SASL_PLAINTEXT"}
    del extra["ssl.ca.location"]


def _kafka_by_token(secured: Secured, connections: Connections) -> None:
    connections[KAFKA]["extra"] = {
        "bootstrap.servers": secured.kafka.oauth,
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "enable.sasl.oauthbearer.unsecure.jwt": "true",
        "sasl.oauthbearer.config": "principal=ownership lifeSeconds=60",
    }


def _kafka_with_the_newer_group_protocol(_: Secured, connections: Connections) -> None:
    connections[KAFKA]["extra"] |= {"group.protocol": "consumer", "group.remote.assignor": "uniform"}


def _cassandra_by_name(secured: Secured, connections: Connections) -> None:
    connections[CASSANDRA]["extra"]["ssl_options"]["check_hostname"] = True


def _ledger_by_name(secured: Secured, connections: Connections) -> None:
    connections[LEDGER]["host"] = "localhost"


def _ledger_behind_a_host_that_is_away(secured: Secured, connections: Connections) -> None:
    connections[LEDGER]["host"] = f"127.0.0.2,{HOST}"  # nobody listens at the first
    connections[LEDGER]["extra"]["target_session_attrs"] = "read-write"


def _elasticsearch_by_key(secured: Secured, connections: Connections) -> None:
    secured.gates[ELASTICSEARCH].allowed = {"Authorization": f"ApiKey {PASSWORD}"}
    connections[ELASTICSEARCH] |= {"login": None, "password": None}
    connections[ELASTICSEARCH]["extra"]["api_key"] = PASSWORD


def _elasticsearch_by_fingerprint(secured: Secured, connections: Connections) -> None:
    certificate = ssl.PEM_cert_to_DER_cert((secured.files / "server.pem").read_text())
    connections[ELASTICSEARCH]["extra"] = {"ssl_assert_fingerprint": hashlib.sha256(certificate).hexdigest()}


def _elasticsearch_by_url(secured: Secured, connections: Connections) -> None:
    port = secured.gates[ELASTICSEARCH].port
    connections[ELASTICSEARCH] |= {"host": f"https://{HOST}:{port}", "port": None, "schema": None}


def _services_unverified(secured: Secured, connections: Connections) -> None:
    connections[LMS]["extra"] = {"verify": False}
    connections[USERORG]["extra"]["verify"] = "false"


def _services_by_url(secured: Secured, connections: Connections) -> None:
    for name in (LMS, USERORG):
        url = f"https://{HOST}:{secured.gates[name].port}"
        connections[name] |= {"host": url, "port": None, "schema": None}


@pytest.mark.parametrize(
    "change",
    [
        _kafka_by_certificate,
        _kafka_without_tls,
        _kafka_by_token,
        _kafka_with_the_newer_group_protocol,
        _cassandra_by_name,
        _ledger_by_name,
        _ledger_behind_a_host_that_is_away,
        _elasticsearch_by_key,
        _elasticsearch_by_fingerprint,
        _elasticsearch_by_url,
        _services_unverified,
        _services_by_url,
    ],
    ids=lambda change: change.__name__.strip("_").replace("_", " "),
)
def test_there_are_other_ways_in(secured: Secured, change: Callable[[Secured, Connections], None]) -> None:
    connections = secured.changed()
    allowed = secured.gates[ELASTICSEARCH].allowed
    try:
        change(secured, connections)
        with opened_world(secured, connections) as world:
            old, new = world.users("old", "new")
            batch = world.batch(created_by=old)
            world.transfer(old, new)
            assert world.whole_run().events == {"completed": 1}
            assert world.owners(batch) == (new, ())
    finally:
        secured.gates[ELASTICSEARCH].allowed = allowed


def test_a_token_is_renewed_while_the_watcher_looks(secured: Secured) -> None:
    from ownership.edge.triggers import _Watch

    connections = secured.changed()
    _kafka_by_token(secured, connections)
    connections[KAFKA]["extra"]["sasl.oauthbearer.config"] = "principal=ownership lifeSeconds=10"
    with set_to(secured, connections), ExitStack() as stack:
        watch = _Watch(stack)
        ended = time.monotonic() + 11  # the end of two tokens: what is awaited is time itself
        while time.monotonic() < ended:
            assert watch.look().backlog == 0
            watch.measure()


def test_a_client_certificate_goes_with_a_fingerprint_too(secured: Secured, stack: Stack) -> None:
    authority = Authority(secured.files.parent / "tls-of-its-own")
    certificate = authority.issue("server", "server")
    client = authority.issue("client", "ownership")
    connections = secured.changed()
    fingerprint = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    with opened_gate(
        stack.addresses.elasticsearch, authority, _basic("ownership", PASSWORD), client_certificate=True
    ) as gate:
        connections[ELASTICSEARCH]["port"] = gate.port
        files = {"client_cert": str(client), "client_key": str(client.with_suffix(".key"))}
        for more in ({"ca_certs": str(authority.file)}, {"ssl_assert_fingerprint": fingerprint}):
            connections[ELASTICSEARCH]["extra"] = {**files, **more}
            with opened_world(secured, connections):
                pass
        calls = [("GET", "/"), ("GET", "/course-batch"), ("GET", "/_security/user/_privileges")]
        assert gate.calls == calls * 2


def test_the_ledger_is_shown_a_client_certificate(secured: Secured) -> None:
    authority = Authority(secured.files.parent / "tls-of-the-ledger")
    authority.issue("server", "server")
    client = authority.issue("client", "ownership")
    connections = secured.changed()
    tls = server_context(authority, client_certificate=True)
    with PostgresGate(secured.postgres.port, tls).opened() as gate:
        connections[LEDGER]["port"] = gate.port
        connections[LEDGER]["extra"]["sslrootcert"] = str(authority.file)
        with (
            pytest.raises(OwnershipError, match=r"PostgreSQL.*Connection 'ownership_ledger'"),
            opened_world(secured, connections),
        ):
            pass
        assert gate.sessions == 0
        connections[LEDGER]["extra"] |= {"sslcert": str(client), "sslkey": str(client.with_suffix(".key"))}
        with opened_world(secured, connections) as world:
            assert world.job.open_mids() == []
        assert gate.sessions > 0


# --- what is wrong is named, secrets are not, and nothing is lost


def _set(name: str, **fields: Any) -> Callable[[Secured, Connections], None]:
    def change(_: Secured, connections: Connections) -> None:
        connections[name] |= fields

    return change


def _extra(name: str, **fields: Any) -> Callable[[Secured, Connections], None]:
    def change(secured: Secured, connections: Connections) -> None:
        for field, value in fields.items():
            key = field.replace("__", ".")
            if value is None:
                connections[name]["extra"].pop(key)
            else:
                connections[name]["extra"][key] = (
                    value.replace("FILES", str(secured.files)) if isinstance(value, str) else value
                )

    return change


def _tls_option(name: str, value: str | None) -> Callable[[Secured, Connections], None]:
    def change(secured: Secured, connections: Connections) -> None:
        options = connections[CASSANDRA]["extra"]["ssl_options"]
        options.pop(name)
        if value is not None:
            options[name] = value.replace("FILES", str(secured.files))

    return change


WRONG = PASSWORD + "-but-wrong"
STRANGER = "FILES/stranger.pem"

WRONGS = [
    pytest.param(
        _extra(KAFKA, sasl__password=WRONG), SettingsError, "Kafka refuses access.*'kafka_default'",
        id="Kafka's password",
    ),
    pytest.param(
        _extra(KAFKA, ssl__ca__location=STRANGER), Unavailable, r"certificate.*'kafka_default'.*ssl\.\*",
        id="Kafka's authority",
    ),
    pytest.param(
        _extra(KAFKA, security__protocol="SASL_PLAINTEXT"), Unavailable, "'kafka_default'.*security.protocol",
        id="Kafka's protocol",
    ),
    pytest.param(
        _extra(KAFKA, sasl__mechanism="PLAIN"), SettingsError, "Kafka refuses access.*'kafka_default'",
        id="Kafka's mechanism",
    ),
    pytest.param(
        _set(CASSANDRA, password=WRONG), SettingsError, "Cassandra refuses the login.*'cassandra_default'",
        id="Cassandra's password",
    ),
    pytest.param(
        _set(CASSANDRA, login=None, password=None), SettingsError, "Cassandra refuses the login.*'cassandra_default'",
        id="no login at Cassandra",
    ),
    pytest.param(
        _tls_option("ca_certs", STRANGER), Unavailable, "CERTIFICATE_VERIFY_FAILED.*'cassandra_default'.*ssl_options",
        id="Cassandra's authority",
    ),
    pytest.param(
        _tls_option("ca_certs", None), Unavailable, "CERTIFICATE_VERIFY_FAILED.*'cassandra_default'.*ssl_options",
        id="public authorities only",
    ),
    pytest.param(
        _extra(CASSANDRA, ssl_options=None), Unavailable, "Cassandra.*'cassandra_default'.*ssl_options",
        id="Cassandra without TLS",
    ),
    pytest.param(
        _extra(CASSANDRA, ssl_options={"ca_certs": "FILES/ca.pem"}), SettingsError, "ssl_options' 'ca_certs'",
        id="a file that is not there",
    ),
    pytest.param(
        _set(LEDGER, password=WRONG), SettingsError,
        "password authentication failed.*set login and password of Connection 'ownership_ledger'",
        id="the ledger's password",
    ),
    pytest.param(
        _set(LEDGER, password=None), SettingsError, "set the password of Connection 'ownership_ledger'",
        id="no password at the ledger",
    ),
    pytest.param(
        _set(LEDGER, login="postgres"), SettingsError, "pg_hba.conf admit the login of Connection 'ownership_ledger'",
        id="the ledger's login",
    ),
    pytest.param(
        _set(LEDGER, schema="postgres"), SettingsError, "pg_hba.conf admit the login of Connection 'ownership_ledger'",
        id="the ledger's database",
    ),
    pytest.param(
        _extra(LEDGER, sslrootcert=STRANGER), SettingsError,
        "certificate verify failed.*check sslmode, sslrootcert and sslcert in the extra of Connection 'ownership_ledger'",
        id="the ledger's authority",
    ),
    pytest.param(
        _extra(LEDGER, sslrootcert="system"), SettingsError,
        "certificate verify failed.*check sslmode, sslrootcert and sslcert in the extra of Connection 'ownership_ledger'",
        id="the ledger: public authorities only",
    ),
    pytest.param(
        _extra(LEDGER, sslmode="disable"), SettingsError,
        "SSL required.*set sslmode in the extra of Connection 'ownership_ledger'",
        id="the ledger without TLS",
    ),
    pytest.param(
        _extra(LEDGER, channel_binding="require"), SettingsError,
        "channel binding.*correct channel_binding in the extra of Connection 'ownership_ledger'",
        id="the ledger behind what cannot bind a channel",
    ),
    pytest.param(
        _extra(LEDGER, sslmode="verify"), SettingsError, "sslmode.*correct the extra of Connection 'ownership_ledger'",
        id="the ledger: no such sslmode",
    ),
    pytest.param(
        _set(ELASTICSEARCH, password=WRONG), SettingsError, "Elasticsearch refuses access.*'elasticsearch_default'",
        id="Elasticsearch's password",
    ),
    pytest.param(
        _extra(ELASTICSEARCH, ca_certs=STRANGER), Unavailable, "CERTIFICATE_VERIFY_FAILED.*'elasticsearch_default'",
        id="Elasticsearch's authority",
    ),
    pytest.param(
        _extra(ELASTICSEARCH, ca_certs=None, ssl_assert_fingerprint="0" * 64), Unavailable,
        "(?i)fingerprint.*'elasticsearch_default'",
        id="Elasticsearch's fingerprint",
    ),
    pytest.param(
        _extra(LMS, verify=STRANGER), Unavailable, "CERTIFICATE_VERIFY_FAILED.*'lms_default'", id="the LMS's authority"
    ),
    pytest.param(
        _extra(USERORG, verify=None), Unavailable, "CERTIFICATE_VERIFY_FAILED.*'userorg_default'",
        id="User-Org's authority",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "sentence"), WRONGS)
def test_what_is_wrong_is_named_before_anything_is_read(
    secured: Secured,
    change: Callable[[Secured, Connections], None],
    kind: type[OwnershipError],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(topic, "SECONDS", 2.0)
    connections = secured.changed()
    change(secured, connections)

    with pytest.raises(kind, match=sentence) as caught, opened_world(secured, connections):
        pass

    printed = capfd.readouterr()
    for text in (str(caught.value), repr(caught.value), caplog.text, printed.out, printed.err):
        assert PASSWORD not in text
        assert base64.b64encode(f"ownership:{WRONG}".encode()).decode() not in text


@pytest.mark.parametrize(
    ("name", "change"),
    [
        pytest.param(LMS, _set(LMS, password=WRONG), id="LMS"),
        pytest.param(USERORG, _extra(USERORG, headers={"Authorization": f"Bearer {WRONG}"}), id="User-Org"),
    ],
)
def test_a_service_that_refuses_the_login_leaves_the_event_open_until_it_is_right(
    secured: Secured, name: str, change: Callable[[Secured, Connections], None]
) -> None:
    connections = secured.changed()
    change(secured, connections)
    with opened_world(secured, connections) as world:
        old, new = world.users("old", "new")
        batch = world.batch(created_by=old)
        mid = world.transfer(old, new)
        run = world.run().pull().lookup(last_try=True)
        reasons = [str(e) for e in run.errors] + list(run.settle().failures.values())
        assert any(
            re.search(rf"refuses access \(HTTP 401\).*{name[13:-8].lower()}_default", r) for r in reasons
        )
        assert PASSWORD not in f"{reasons} {world.read(mid)}"
        assert not world.read(mid).final
        assert world.owners(batch) == (old, ())
        if world.job.open_mids():
            world.expire(mid)
            world.make_due(mid)
    with opened_world(secured) as world:
        assert world.whole_run().events == {"completed": 1}
        assert world.owners(batch) == (new, ())


@contextmanager
def without_acl(kafka: Kafka, resource: str, operation: AclOperation) -> Iterator[None]:
    """As if the administrator had forgotten one."""
    (binding,) = (a for a in documented_acls() if a.name == resource and a.operation == operation)
    kafka.forbid(binding)
    try:
        yield
    finally:
        kafka.allow([binding])


@pytest.mark.parametrize(
    ("resource", "operation"),
    [
        pytest.param("dev.user.ownership.transfer", AclOperation.READ, id="read on the input topic"),
        pytest.param("dev-user-ownership-transfer-group", AclOperation.READ, id="read on the group"),
        pytest.param("dev.user.ownership.transfer.failed", AclOperation.WRITE, id="write on dead letters"),
    ],
)
def test_a_missing_acl_is_named_and_no_message_is_lost(
    secured: Secured, resource: str, operation: AclOperation
) -> None:
    with without_acl(secured.kafka, resource, operation), pytest.MonkeyPatch.context() as patch:
        patch.setattr(topic, "SECONDS", 4.0)  # the client never gives up a group that it may not see
        secured.platform.emit(b"neither read nor lost")
        with pytest.raises(SettingsError, match="'kafka_default'"), opened_world(secured) as world:
            world.run().pull()
    with opened_world(secured) as world:
        before = world.dead_letters()
        world.run().pull()
        assert [value for _, value in world.dead_letters()[len(before) :]] == [b"neither read nor lost"]


def test_without_the_acl_on_configs_all_but_the_retention_of_the_topic_is_measured(
    secured: Secured, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_api_server() as airflow, set_to(secured, secured.connections):
        monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{airflow.url}/execution/")
        with without_acl(secured.kafka, "dev.user.ownership.transfer", AclOperation.DESCRIBE_CONFIGS):
            without = look(load_settings())
        allowed = look(load_settings())
    for facts in (without, allowed):
        assert facts.unreachable == ()
        assert facts.backlog
        assert facts.backlog.held_back == ()
    assert without.backlog
    assert "authorization failed" in without.backlog.retention_unread.lower()
    assert allowed.backlog
    assert allowed.backlog.retention_unread == ""


@contextmanager
def waiting_event(secured: Secured) -> Iterator[World]:
    """A world with an event that changes nothing meanwhile, and that the next run completes."""
    with opened_world(secured) as world:
        old, new = world.users("old", "new")
        batch = world.batch(created_by=old)
        mid = world.transfer(old, new)
        yield world
        assert world.owners(batch) == (old, ())
        if mid in world.job.open_mids():
            world.expire(mid)
        assert world.whole_run().events == {"completed": 1}
        assert world.owners(batch) == (new, ())


@contextmanager
def revoked(execute: Callable[[str], object], grant: str) -> Iterator[None]:
    """As if the administrator had forgotten a grant."""
    execute(f"REVOKE {grant} FROM ownership")
    try:
        yield
    finally:
        execute(f"GRANT {grant} TO ownership")


@pytest.mark.parametrize(
    ("privilege", "table"),
    [
        pytest.param("INSERT", "event", id="accepts nothing"),
        pytest.param("SELECT", "queue", id="claims nothing"),
        pytest.param("UPDATE", "queue_head", id="hands out no token"),
        pytest.param("INSERT", "plan", id="plans nothing"),
        pytest.param("INSERT", "change", id="records nothing"),
    ],
)
def test_a_missing_grant_in_the_ledger_is_named_and_the_event_waits_for_it(
    secured: Secured, privilege: str, table: str
) -> None:
    execute = partial(secured.postgres.execute, database="ownership")
    with waiting_event(secured) as world, revoked(execute, f"{privilege} ON {table}"):
        with pytest.raises(SettingsError, match=rf"permission denied for table {table}; .*, or grant it\."):
            _whole_run(world)
        named = f"may not read and write {table}: log in as the owner of the database, or grant it"
        with pytest.raises(SettingsError, match=named), opened_world(secured):
            pass


@pytest.mark.parametrize("permission", ["SELECT", "MODIFY"])
def test_a_missing_grant_is_named_and_the_event_waits_for_it(secured: Secured, permission: str) -> None:
    missing = f"{permission} ON TABLE sunbird_courses.course_batch"
    named = f"{permission}.*course_batch.*Grant the job's role"
    with (
        waiting_event(secured) as world,
        revoked(secured.admin.execute, missing),
        pytest.raises(SettingsError, match=named),
    ):
        _whole_run(world)


def _whole_run(world: World) -> None:
    run = world.run().pull().lookup().update().reindex()
    for error in run.errors:
        raise error
    run.settle()


def test_the_job_may_not_touch_what_is_not_granted(secured: Secured) -> None:
    with opened_world(secured) as world:
        with pytest.raises(SettingsError, match="Grant the job's role"):
            world.job.parts.cql.select_each(
                "SELECT role FROM system_auth.roles WHERE role = ?", [("ownership",)]
            )
        with pytest.raises(SettingsError, match=r"permission denied.*grant it"):
            world.execute("SELECT rolpassword FROM pg_authid")


def test_offsets_of_the_group_are_committed_by_the_job_s_login(secured: Secured, world: World) -> None:
    world.platform.emit(b"{no event")
    world.run().pull()
    spans = _backlog(world)
    committed = world.job.topic._consumer.committed(
        [TopicPartition(world.job.topic.name, s.partition) for s in spans], timeout=10
    )
    assert {t.partition: t.offset for t in committed if t.offset >= 0} == {
        s.partition: s.end for s in spans if s.end
    }
