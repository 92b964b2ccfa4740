"""The job on secured servers, as docs/security.md has it: its connections, its grants, its ACLs, and no more.

Kafka and Cassandra are real and secured by themselves; before Elasticsearch, the LMS and User-Org stand gates.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable, Session
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AclOperation
from harness import Job
from ownership.schema import _TABLES
from secured_servers import (
    PASSWORD,
    SECURITY,
    Authority,
    Gate,
    Kafka,
    opened_gate,
    secured_cassandra,
    secured_kafka,
    told,
    told_acls,
    told_connections,
    told_statements,
)
from transfer_world import World

from local import schema
from local.layout import Layout
from local.ports import HOST
from local.processes import await_condition
from local.stack import Stack
from local.world import Platform, create_platform
from ownership import create_ledger, topic
from ownership.errors import OwnershipError, SettingsError, Unavailable
from ownership.hooks import load_settings, opened_intake, opened_parts

ENV = "dev"  # the page's own

Connections = dict[str, dict[str, Any]]
KAFKA, CASSANDRA, ELASTICSEARCH, LMS, USERORG = (
    f"AIRFLOW_CONN_{name}_DEFAULT" for name in ("KAFKA", "CASSANDRA", "ELASTICSEARCH", "LMS", "USERORG")
)


@dataclass(frozen=True)
class Secured:
    """The servers, their administrators, and the connections of the job."""

    files: Path
    kafka: Kafka
    admin: Session
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
    with ExitStack() as ended:
        servers = [kafka.server, cassandra]
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
        connections = told_connections(directory / "tls")
        connections[KAFKA]["extra"]["bootstrap.servers"] = kafka.scram_tls
        host, _, port = cassandra.address.rpartition(":")
        connections[CASSANDRA] |= {"host": host, "port": int(port)}
        connections[CASSANDRA]["extra"]["local_dc"] = "datacenter1"
        for name, gate in gates.items():
            connections[name] |= {"host": HOST, "port": gate.port}
        environment = {n: v for n, v in stack.airflow_env.items() if n.startswith("AIRFLOW__")}
        environment["AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"] = json.dumps({"env": ENV, "grace.ms": 0})
        made = Secured(directory / "tls", kafka, platform.session, gates, platform, connections, environment)
        with set_to(made, _as_ledger(made.changed())):
            for statement in told_statements("Role that creates the ledger"):
                platform.session.execute(statement)
            assert create_ledger.main() == 0
        for statement in told_statements("Role of the job"):
            platform.session.execute(statement)
        kafka.allow(told_acls())
        yield made


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


def _as_ledger(connections: Connections) -> Connections:
    connections[CASSANDRA]["login"] = "ownership_ledger"
    return connections


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
        assert intake.letters
        client = parts.index._es
        job = Job(parts.settings, parts, intake.topic, intake.inbox, client, intake.letters)
        yield World(secured.platform, job, secured.kafka.plain)


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
    letters = world.job.letters
    assert [m.value for m in letters.read(letters.since(0))][-1] == b"{no event"
    assert world.job.topic.backlog()[0].start == world.job.topic.backlog()[0].end


def test_the_watcher_sees_the_backlog_with_the_same_login(secured: Secured, world: World) -> None:
    from ownership.triggers import _Watch

    old, new = world.users("old", "new")
    world.batch(created_by=old)
    world.transfer(old, new)
    with ExitStack() as stack:
        assert _Watch(stack).look().backlog == 1
    assert world.whole_run().events == {"completed": 1}


def test_the_ledger_can_be_created_again_by_its_own_role(secured: Secured, capsys: Any) -> None:
    with set_to(secured, _as_ledger(secured.changed())):
        assert create_ledger.main() == 0
    assert capsys.readouterr().out.count("ready: ") == len(_TABLES)


def test_the_page_grants_every_table_of_the_ledger_and_course_batch_to_the_job() -> None:
    granted = {tuple(s.split()[1:5:3]) for s in told_statements("Role of the job") if s.startswith("GRANT")}
    tables = [f"sunbird_courses.{name}" for name in ("course_batch", *_TABLES)]
    assert granted == {(permission, table) for permission in ("SELECT", "MODIFY") for table in tables}


def test_no_call_to_elasticsearch_is_missing_in_the_page(
    secured: Secured, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ownership import search_index

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
        (method, re.sub(r"/_doc/.+", "/_doc/{id}", path.replace(f"/{index_name}/", "/{index}/")))
        for method, path in secured.gates[ELASTICSEARCH].calls
    }
    table = {
        (method, path)
        for line in re.findall(r"(?m)^\| (`(?:GET|POST|PUT|DELETE) .*?) \|", SECURITY)
        for method, path in re.findall(r"`(\w+) (\S+)`", line)
    }
    assert calls == table
    (role,) = (json.loads(line) for line in told("Role in Elasticsearch"))
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


def _cassandra_by_name(secured: Secured, connections: Connections) -> None:
    connections[CASSANDRA]["extra"]["ssl_options"]["check_hostname"] = True


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
        _cassandra_by_name,
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
        assert gate.calls == [("GET", "/course-batch/_mapping")] * 2


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
    (binding,) = (a for a in told_acls() if a.name == resource and a.operation == operation)
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


@pytest.mark.parametrize("table", ["course_batch", "transfer_open", "transfer_change"])
@pytest.mark.parametrize("permission", ["SELECT", "MODIFY"])
def test_a_missing_grant_is_named_and_the_event_waits_for_it(
    secured: Secured, table: str, permission: str
) -> None:
    with opened_world(secured) as world:
        old, new = world.users("old", "new")
        batch = world.batch(created_by=old)
        mid = world.transfer(old, new)
        secured.admin.execute(f"REVOKE {permission} ON TABLE sunbird_courses.{table} FROM ownership")
        try:
            with pytest.raises(SettingsError, match=f"{permission}.*{table}.*grants"):
                _whole_run(world)
        finally:
            secured.admin.execute(f"GRANT {permission} ON TABLE sunbird_courses.{table} TO ownership")
        assert world.owners(batch) == (old, ())
        if mid in world.job.open_mids():
            world.expire(mid)
        assert world.whole_run().events == {"completed": 1}
        assert world.owners(batch) == (new, ())


def _whole_run(world: World) -> None:
    run = world.run().pull().lookup().update().reindex()
    for error in run.errors:
        raise error
    run.settle()


def test_the_job_may_not_touch_what_is_not_granted(secured: Secured) -> None:
    with opened_world(secured) as world, pytest.raises(SettingsError, match="grants"):
        world.job.parts.cql.select("SELECT role FROM system_auth.roles")


def test_offsets_of_the_group_are_committed_by_the_job_s_login(secured: Secured, world: World) -> None:
    world.platform.emit(b"{no event")
    world.run().pull()
    spans = world.job.topic.backlog()
    committed = world.job.topic._consumer.committed(
        [TopicPartition(world.job.topic.name, s.partition) for s in spans], timeout=10
    )
    assert {t.partition: t.offset for t in committed if t.offset >= 0} == {
        s.partition: s.end for s in spans if s.end
    }
