"""The ledger's tables in a real PostgreSQL: how they are made, how they are checked, and what they refuse."""

from __future__ import annotations

import itertools
import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import pytest
from psycopg import errors as pg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError

from local.stack import Stack
from ownership.domain.clock import now_ms
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.settings import Settings
from ownership.ledger.__main__ import main
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.check import check
from ownership.ledger.database import CONNECTION, Database
from ownership.ledger.events import Events
from ownership.ledger.months import make_months
from ownership.ledger.schema import MONTH_SHIFT, PARTITIONED, REVISION, metadata
from ownership.ledger.upgrade import upgrade
from ownership.platform.kafka import Message
from ownership.stages.inbox import Inbox
from tests.harness import administrator, execute, opened_ledger

PAGE = (Path(__file__).parents[3] / "docs/ledger.md").read_text()
VARIABLE = f"AIRFLOW_CONN_{CONNECTION.upper()}"


class Ledger:
    """A database of a test's own on the stack's server."""

    def __init__(self, address: str, name: str, database: Database) -> None:
        self.parameters: dict[str, Any] = {**conninfo_to_dict(address), "dbname": name}
        self.address = address
        self.name = name
        self.database = database

    def execute(self, statement: str, **values: Any) -> Any:
        """Rows of a statement, as the job's role."""
        return execute(self.database, statement, **values)

    def set(self, setting: str, value: str | None) -> None:
        """A setting of the database, for all sessions to come."""
        name, parameter = sql.Identifier(self.name), sql.Identifier(setting)
        with administrator(self.address) as server:
            server.execute(
                sql.SQL("ALTER DATABASE {} RESET {}").format(name, parameter)
                if value is None
                else sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, parameter, sql.Literal(value))
            )
        self.database.close()  # so that the next session has it

    @contextmanager
    def opened(self, **parameters: Any) -> Iterator[Database]:
        """Another way into the same database."""
        database = Database.at({**self.parameters, **parameters}, tries=1)
        try:
            yield database
        finally:
            database.close()


def unique() -> str:
    return f"schema_{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="module")
def made(stack: Stack) -> Iterator[Ledger]:
    """One that nobody spoils."""
    name = unique()
    with opened_ledger(stack.addresses.ledger, name) as database:
        yield Ledger(stack.addresses.ledger, name, database)


@pytest.fixture
def own(stack: Stack) -> Iterator[Ledger]:
    """One of a test's own."""
    name = unique()
    with opened_ledger(stack.addresses.ledger, name) as database:
        yield Ledger(stack.addresses.ledger, name, database)


@pytest.fixture
def empty(own: Ledger) -> Ledger:
    """A database without a ledger."""
    own.execute("DROP SCHEMA public CASCADE")
    own.execute("CREATE SCHEMA public")
    own.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")
    return own


@pytest.fixture
def lead(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[Ledger], None]:
    """Lets this process's Connection lead to a ledger."""

    def to(ledger: Ledger) -> None:
        monkeypatch.setenv(VARIABLE, json.dumps(environment[VARIABLE] | {"schema": ledger.name}))

    return to


# --- the migrations


def test_the_migrations_make_the_columns_and_types_that_the_code_has(made: Ledger) -> None:
    months = re.compile(rf"({'|'.join(PARTITIONED)})_\d{{4}}_\d\d|alembic_version")

    def differences(connection: Any) -> None:
        def types(columns: Any) -> dict[str, str]:
            return {name: type_.compile(connection.dialect) for name, type_ in columns}

        there = inspect(connection)
        names = {t for t in there.get_table_names() if not months.fullmatch(t)}
        assert names == set(metadata.tables)
        for name, table in metadata.tables.items():
            found = types((c["name"], c["type"]) for c in there.get_columns(name))
            assert list(types((c.name, c.type) for c in table.c).items()) == list(found.items())

    made.database.run(differences)


def test_an_upgrade_of_what_is_there_does_nothing(own: Ledger) -> None:
    own.execute("INSERT INTO consumed_offset (topic, kafka_partition, next_offset) VALUES ('in', 0, 7)")
    assert upgrade(own.database) == []
    assert own.execute("SELECT next_offset FROM consumed_offset") == [(7,)]


def test_the_first_upgrade_says_what_it_did(empty: Ledger) -> None:
    done = upgrade(empty.database)
    assert done[0] == f"migrated from nothing to {REVISION}"
    assert [line.rsplit("_", 2)[0] for line in done[1:]] == [f"made partition {t}" for t in PARTITIONED] * 2
    check(empty.database)


def test_upgrades_at_the_same_time_all_succeed_and_one_does_it(empty: Ledger) -> None:
    def one(_: int) -> list[str]:
        with empty.opened() as database:
            return upgrade(database)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(one, range(4)))
    assert sorted(map(len, done)) == [0, 0, 0, 1 + 2 * len(PARTITIONED)]
    check(empty.database)


def test_partitions_that_are_missing_are_made_when_something_arrives(own: Ledger) -> None:
    names = own.database.run(_partitions)
    for name in names:
        own.execute(f"DROP TABLE {name}")
    Arrivals(own.database).store([])
    assert own.database.run(_partitions) == names
    assert own.database.run(make_months) == []


def _partitions(connection: Any) -> list[str]:
    found = connection.execute(
        text("SELECT c.relname FROM pg_class c WHERE c.relispartition AND c.relkind = 'r' ORDER BY 1")
    )
    return [name for (name,) in found]


def test_an_event_whose_payload_has_gone_is_known_when_it_comes_again(
    own: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Between the drop of a month and the end of the deletes of its events, or erased by hand.
    arrivals = Arrivals(own.database)
    inbox = Inbox(Events(own.database), arrivals, None, Settings())
    edata = {"action": "ownership-transfer", "organisationId": "org"}
    profiles = {"fromUserProfile": {"userId": "A"}, "toUserProfile": {"userId": "b"}}
    event = {"eid": "BE_JOB_REQUEST", "ets": now_ms(), "mid": "m", "edata": {**edata, **profiles}}
    message = Message("in", 0, 1, now_ms(), json.dumps(event).encode())
    assert [t.mid for t in inbox.accept([message]).received] == ["m"]
    own.execute("DELETE FROM payload")
    looks = itertools.count(1)
    store = arrivals.store

    def counted(*given: Any, **more: Any) -> set[str]:
        assert next(looks) < 10, "the inbox looks for it for ever"
        return store(*given, **more)

    monkeypatch.setattr(arrivals, "store", counted)
    assert inbox.accept([message._replace(offset=2)]).known == ["m"]


# --- the check


def test_a_ledger_that_is_as_it_should_be_passes(made: Ledger) -> None:
    check(made.database)


Wrong = Callable[[Ledger], object]


WRONGS: list[Any] = [
    pytest.param(
        lambda ledger: ledger.execute("DROP TABLE alembic_version"),
        f"The database of Connection '{CONNECTION}' has no ledger: run `python -m ownership.ledger upgrade`, or set the "
        "Connection's schema.",
        id="missing",
    ),
    pytest.param(
        lambda ledger: ledger.execute("DELETE FROM alembic_version"),
        f"The database of Connection '{CONNECTION}' has no ledger: run `python -m ownership.ledger upgrade`, or set the "
        "Connection's schema.",
        id="downgraded to nothing",
    ),
    pytest.param(
        lambda ledger: ledger.execute("UPDATE alembic_version SET version_num = '0000'"),
        f"The ledger has schema 0000, older than {REVISION} of this version: run `python -m ownership.ledger upgrade`.",
        id="older",
    ),
    pytest.param(
        lambda ledger: ledger.execute("UPDATE alembic_version SET version_num = '9999'"),
        f"The ledger has schema 9999, newer than {REVISION} of this version: install the version of the job that made "
        "it.",
        id="newer",
    ),
    pytest.param(
        lambda ledger: ledger.set("synchronous_commit", "off"),
        "PostgreSQL (ledger) has synchronous_commit = off, so a crash can lose what it acknowledged: set it to on, as "
        "in `ALTER DATABASE ownership SET synchronous_commit = on`.",
        id="not durable",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "sentence"), WRONGS)
def test_what_is_wrong_with_a_ledger_is_one_sentence_that_says_what_to_do(
    own: Ledger, wrong: Wrong, sentence: str
) -> None:
    wrong(own)
    with pytest.raises(SettingsError) as caught:
        check(own.database)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(("wrong", "sentence"), WRONGS)
def test_the_command_says_what_is_wrong_and_fails(
    own: Ledger, lead: Callable[[Ledger], None], capsys: Any, wrong: Wrong, sentence: str
) -> None:
    lead(own)
    wrong(own)
    assert main(["check"]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"check: {sentence}\n")


@pytest.mark.parametrize("level", ["on", "local", "remote_write", "remote_apply"])
def test_every_other_level_of_durability_passes(own: Ledger, level: str) -> None:
    own.set("synchronous_commit", level)
    check(own.database)


def test_the_command_creates_the_ledger_and_says_so_and_checks_it(
    empty: Ledger, lead: Callable[[Ledger], None], capsys: Any
) -> None:
    lead(empty)
    assert main(["upgrade"]) == 0
    first, *made, last = capsys.readouterr().out.splitlines()
    assert first == f"migrated from nothing to {REVISION}"
    assert len(made) == 2 * len(PARTITIONED)
    assert last == f"The ledger is ready, schema {REVISION}."
    for command in ("upgrade", "check"):
        assert main([command]) == 0
        assert capsys.readouterr().out.splitlines() == [last]


def test_an_upgrade_of_a_newer_ledger_changes_nothing_and_says_what_to_do(
    own: Ledger, lead: Callable[[Ledger], None], capsys: Any
) -> None:
    lead(own)
    own.execute("UPDATE alembic_version SET version_num = '9999'")
    assert main(["upgrade"]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("upgrade: The ledger has schema 9999, newer than")
    assert printed.err.count("\n") == 1
    assert own.execute("SELECT version_num FROM alembic_version") == [("9999",)]


def test_a_table_that_the_role_may_not_write_is_named(own: Ledger) -> None:
    own.execute("REVOKE INSERT ON queue, change FROM CURRENT_USER")
    with pytest.raises(SettingsError, match="may not read and write change, queue: log in as the owner"):
        check(own.database)


@contextmanager
def login(ledger: Ledger, *grants: LiteralString) -> Iterator[str]:
    """A role beside the ledger's own, with these grants; the last rule of pg_hba.conf lets it in."""
    name = f"other_{ledger.name}"
    role = sql.Identifier(name)
    with administrator(ledger.address, ledger.name) as server:
        server.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        try:
            for grant in grants:
                server.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(grant), role))
            yield name
        finally:
            server.execute(sql.SQL("DROP OWNED BY {}").format(role))
            server.execute(sql.SQL("DROP ROLE {}").format(role))


def test_a_role_that_may_write_and_cannot_make_the_next_month_is_reported_before_that_month(
    own: Ledger,
) -> None:
    """As after a restore by an administrator, who then granted what the check had named."""
    with (
        login(own, "ALL ON ALL TABLES IN SCHEMA public") as role,
        own.opened(user=role) as database,
        pytest.raises(SettingsError, match=r"does not own change, payload, plan.*OWNER TO"),
    ):
        check(database)


def test_a_role_that_may_create_nothing_is_reported_so_by_the_upgrade(empty: Ledger) -> None:
    with (
        login(empty) as role,
        empty.opened(user=role) as database,
        pytest.raises(SettingsError, match=r"permission denied.*grant it"),
    ):
        upgrade(database)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(check, id="check"),
        pytest.param(upgrade, id="upgrade"),
        pytest.param(lambda d: Arrivals(d).restart("in", {0: 7}), id="a write"),
    ],
)
def test_a_server_that_is_read_only_is_an_outage(own: Ledger, work: Callable[[Database], object]) -> None:
    for name in own.database.run(_partitions):  # so that the upgrade has something to make
        own.execute(f"DROP TABLE {name}")
    with (
        own.opened(options="-c default_transaction_read_only=on") as database,
        pytest.raises(Unavailable, match="the server is read-only, so it is a standby") as caught,
    ):
        work(database)
    assert not isinstance(caught.value, SettingsError)


def test_the_command_calls_a_read_only_server_unavailable(
    own: Ledger, lead: Callable[[Ledger], None], capsys: Any
) -> None:
    lead(own)
    own.set("default_transaction_read_only", "on")
    assert main(["check"]) == 1
    assert capsys.readouterr().err == (
        "check: PostgreSQL (ledger) unavailable: the server is read-only, so it is a standby\n"
    )


def test_a_server_that_is_written_to_again_is_found_without_a_new_start(own: Ledger) -> None:
    own.set("default_transaction_read_only", "on")
    with pytest.raises(Unavailable):
        Arrivals(own.database).restart("in", {0: 7})
    with administrator(own.address) as server:
        server.execute(
            sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(sql.Identifier(own.name))
        )
    Arrivals(own.database).restart("in", {0: 7})
    assert own.execute("SELECT next_offset FROM consumed_offset") == [(7,)]


# --- what the tables refuse

EVENT = {
    "mid": "m", "order_ms": 1, "kafka_partition": 0, "kafka_offset": 1, "from_user": "A", "to_user": "b",
    "source_user": "a", "target_user": "b", "origin": "kafka", "topic": "in", "kafka_ms": 1, "state": "received",
}  # fmt: skip
AT = "2026-11-23T08:00:00Z"
CHANGE = {
    "course_id": "c", "batch_id": "b", "image": str(uuid.uuid4()), "hop": 0, "hops": 1, "fencing_token": 1,
    "role": "created",
}  # fmt: skip
REJECTED = {
    "mid": "rejected:in:0:1", "origin": "kafka", "topic": "in", "kafka_partition": 0, "kafka_offset": 1, "kafka_ms": 1,
    "body": b"{", "reason": "not JSON",
}  # fmt: skip


def insert(connection: Any, table: str, values: dict[str, Any]) -> Any:
    columns, parameters = ", ".join(values), ", ".join(f":{n}" for n in values)
    answer = "id" if table == "event" else "1"
    return connection.execute(
        text(f"INSERT INTO {table} ({columns}) VALUES ({parameters}) RETURNING {answer}"), values
    ).scalar_one()


class RolledBackError(Exception):
    """Ends a transaction that leaves nothing."""


def put(database: Database, *rows: tuple[str, dict[str, Any]], event: dict[str, Any] | None = None) -> None:
    """Insert an event and rows of it, and take it back."""

    def work(connection: Any) -> None:
        event_id = insert(connection, "event", {**EVENT, "mid": uuid.uuid4().hex, **(event or {})})
        for table, values in rows:
            of_event = {} if table in ("rejected_message", "consumed_offset") else {"event_id": event_id}
            insert(connection, table, {**of_event, **values})
        raise RolledBackError

    with pytest.raises(RolledBackError):
        database.run(work)


FINAL = {"ended_at": AT}
GOOD: list[Any] = [
    *(pytest.param({"state": s}, [], id=s) for s in ("received", "planned", "awaiting_approval", "applied", "failed")),
    *(pytest.param({"state": s, **FINAL}, [], id=s) for s in ("skipped", "abandoned", "rehearsed", "declined")),
    pytest.param({"state": "completed", "completed_at": AT, **FINAL}, [], id="completed"),
    pytest.param({"state": "completed", "completed_at": AT, "reproved_at": AT, **FINAL}, [], id="proven twice"),
    *(pytest.param({"origin": o}, [], id=o) for o in ("kafka", "manual", "follow-up")),
    *(pytest.param({"verdict": v}, [], id=v) for v in ("valid", "invalid")),
    pytest.param({}, [("payload", {"body": b"{}"})], id="a payload"),
    pytest.param({}, [("queue", {"accepted_at": AT})], id="in the queue"),
    pytest.param({}, [("queue", {"accepted_at": AT, "holder": "r", "lease_expires_at": AT})], id="held"),
    pytest.param({}, [("queue", {"accepted_at": AT, "awaits": "approval", "next_try_at": AT})], id="awaits"),
    *(
        pytest.param({}, [("plan", {"course_id": "c", "batch_id": "b", "outcome": o})], id=f"planned: {o}")
        for o in (None, "moved", "already", "changed_elsewhere", "gone", "not_live")
    ),
    *(
        pytest.param({}, [("change", {**CHANGE, "outcome": o})], id=f"changed: {o}")
        for o in (None, "applied", "refused", "superseded", "in_doubt", "late")
    ),
    pytest.param({}, [("rejected_message", REJECTED)], id="a rejected message"),
    pytest.param({}, [("consumed_offset", {"topic": "x", "kafka_partition": 0, "next_offset": 0})], id="nothing read"),
    pytest.param(
        {},
        [("consumed_offset",
          {"topic": "x", "kafka_partition": 0, "next_offset": 1, "last_offset": 0, "last_digest": "d"})],
        id="one read",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "rows"), GOOD)
def test_what_the_job_writes_is_taken(made: Ledger, event: dict[str, Any], rows: list[Any]) -> None:
    put(made.database, *rows, event=event)


BAD: list[Any] = [
    pytest.param({"state": "forgotten"}, [], id="an unknown state"),
    pytest.param({"state": "rejected", **FINAL}, [], id="a state of messages that are no events"),
    *(
        pytest.param({"state": s}, [], id=f"{s} without its end")
        for s in ("completed", "skipped", "abandoned", "rehearsed", "declined")
    ),
    *(
        pytest.param({"state": s, **FINAL}, [], id=f"{s} with an end")
        for s in ("received", "planned", "awaiting_approval", "applied", "failed")
    ),
    pytest.param({"state": "completed", **FINAL}, [], id="completed at no time"),
    pytest.param({"state": "skipped", "completed_at": AT, **FINAL}, [], id="skipped and completed"),
    pytest.param({"state": "skipped", "reproved_at": AT, **FINAL}, [], id="skipped and proven"),
    pytest.param({"reproved_at": AT}, [], id="open and proven"),
    pytest.param({"origin": "e-mail"}, [], id="an unknown origin"),
    pytest.param({"verdict": "perhaps"}, [], id="an unknown verdict"),
    pytest.param({"fencing_token": -1}, [], id="a token below 0"),
    pytest.param({"attempts": -1}, [], id="tries below 0"),
    *(pytest.param({name: None}, [], id=f"no {name}") for name in EVENT),
    pytest.param({}, [("payload", {"body": None})], id="no payload"),
    pytest.param({}, [("payload", {"body": b"{}"})] * 2, id="two payloads"),
    pytest.param({}, [("queue", {"accepted_at": AT})] * 2, id="in the queue twice"),
    pytest.param({}, [("queue", {"accepted_at": None})], id="in the queue since no time"),
    pytest.param({}, [("queue", {"accepted_at": AT, "holder": "r"})], id="held for ever"),
    pytest.param({}, [("queue", {"accepted_at": AT, "lease_expires_at": AT})], id="a lease of nobody"),
    pytest.param({}, [("queue", {"accepted_at": AT, "awaits": "approval"})], id="awaits an approval for ever"),
    pytest.param({}, [("queue", {"accepted_at": AT, "awaits": "rain", "next_try_at": AT})], id="awaits what nobody gives"),
    pytest.param({}, [("queue", {"accepted_at": AT, "fencing_token": -1})], id="a token below 0 in the queue"),
    pytest.param({}, [("plan", {"course_id": "c", "batch_id": "b"})] * 2, id="a batch planned twice"),
    pytest.param({}, [("plan", {"course_id": "c", "batch_id": "b", "outcome": "applied"})], id="an image's outcome of a plan"),
    pytest.param({}, [("change", {**CHANGE, "outcome": "moved"})], id="a plan's outcome of an image"),
    pytest.param({}, [("change", CHANGE)] * 2, id="an image twice"),
    pytest.param({}, [("change", {**CHANGE, "hop": 1})], id="a hop beyond the last"),
    pytest.param({}, [("change", {**CHANGE, "hop": -1})], id="a hop before the first"),
    pytest.param({}, [("change", {**CHANGE, "fencing_token": 0})], id="a change without a token"),
    pytest.param({}, [("rejected_message", {**REJECTED, "origin": "e-mail"})], id="an unknown origin of a rejected message"),
    *(pytest.param({}, [("rejected_message", {**REJECTED, n: None})], id=f"rejected: no {n}") for n in REJECTED),
    pytest.param(
        {}, [("consumed_offset", {"topic": "x", "kafka_partition": 0, "next_offset": -1})], id="an offset below 0"
    ),
    pytest.param(
        {},
        [("consumed_offset",
          {"topic": "x", "kafka_partition": 0, "next_offset": 7, "last_offset": 7, "last_digest": "d"})],
        id="a last message that is not read",
    ),
    pytest.param(
        {}, [("consumed_offset", {"topic": "x", "kafka_partition": 0, "next_offset": 7, "last_offset": 6})],
        id="a last message without a digest",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "rows"), BAD)
def test_what_cannot_be_is_refused(made: Ledger, event: dict[str, Any], rows: list[Any]) -> None:
    with pytest.raises(IntegrityError):
        put(made.database, *rows, event=event)


def test_an_event_is_there_once(made: Ledger) -> None:
    def twice(connection: Any) -> None:
        for _ in range(2):
            insert(connection, "event", EVENT)

    with pytest.raises(IntegrityError) as caught:
        made.database.run(twice)
    assert isinstance(caught.value.orig, pg.UniqueViolation)


@pytest.mark.parametrize("table", ["payload", "queue", "plan", "change", "event_run"])
def test_no_row_is_without_its_event(made: Ledger, table: str) -> None:
    own: dict[str, dict[str, Any]] = {
        "payload": {"body": b"{}"},
        "queue": {"accepted_at": AT},
        "plan": {"course_id": "c", "batch_id": "b"},
        "change": CHANGE,
        "event_run": {"run_id": "r"},
    }

    def work(connection: Any) -> None:
        event_id = connection.scalar(text("SELECT next_event_id()"))
        insert(connection, table, {"event_id": event_id, **own[table]})

    with pytest.raises(IntegrityError) as caught:
        made.database.run(work)
    assert isinstance(caught.value.orig, pg.ForeignKeyViolation)


def test_an_event_that_has_rows_cannot_go(made: Ledger) -> None:
    def work(connection: Any) -> None:
        event_id = insert(connection, "event", EVENT)
        insert(connection, "queue", {"event_id": event_id, "accepted_at": AT})
        connection.execute(text("DELETE FROM event WHERE id = :id"), {"id": event_id})

    with pytest.raises(IntegrityError):
        made.database.run(work)


def test_the_queue_has_one_head(made: Ledger) -> None:
    assert made.execute("SELECT id, fencing_token FROM queue_head") == [(1, 0)]
    for row in ({"fencing_token": 0}, {"id": 2, "fencing_token": 0}):
        with pytest.raises(IntegrityError):
            made.database.run(partial(insert, table="queue_head", values=row))


def test_an_event_s_id_begins_with_its_month_and_ids_grow(made: Ledger) -> None:
    ((one, other, month),) = made.execute(
        "SELECT next_event_id(), next_event_id(), extract(year FROM now() AT TIME ZONE 'utc') * 12 "
        "+ extract(month FROM now() AT TIME ZONE 'utc') - 1"
    )
    assert one >> MONTH_SHIFT == other >> MONTH_SHIFT == month
    assert one < other


def test_what_an_event_follows_is_computed_from_its_options(made: Ledger) -> None:
    follows = [
        (None, None),
        ({"dry_run": True}, []),
        ({"undo_of": "m1"}, ["m1"]),
        ({"plan_of": "m2", "digest": "d"}, ["m2"]),
        ({"undo_of": "m1", "plan_of": "m2"}, ["m1", "m2"]),
    ]
    for options, expected in follows:

        def work(connection: Any, given: Any = options) -> Any:
            values = {**EVENT, "mid": uuid.uuid4().hex, "options": given and json.dumps(given)}
            event_id = insert(connection, "event", values)
            found = connection.scalar(text("SELECT follows FROM event WHERE id = :id"), {"id": event_id})
            connection.execute(text("DELETE FROM event WHERE id = :id"), {"id": event_id})
            return found

        assert (made.database.run(work) or []) == (expected or [])


# --- the statements of the page


def _statements() -> list[str]:
    found = re.search(r"(?ms)^## Read\n(.*?)(?=^## |\Z)", PAGE)
    assert found
    blocks = "\n".join(line[4:] if line.startswith("    ") else "" for line in found[1].splitlines())
    return [s.strip() for s in re.findall(r"(?ms)^(?:SELECT|WITH)\b.*?;", blocks)]


@pytest.mark.parametrize("statement", _statements())
def test_a_statement_of_the_page_is_one_that_the_ledger_answers(made: Ledger, statement: str) -> None:
    given = re.sub(r"'<[^>]+>'", "'2026-11-23 08:00'", statement)
    given = re.sub(r"<[^>]+>", "1", given)
    made.database.run(lambda c: c.exec_driver_sql(given.replace("%", "%%").rstrip(";")).all())


def test_the_page_tells_how_the_ledger_is_read() -> None:
    assert len(_statements()) > 6
