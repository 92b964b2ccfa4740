"""Whatever is set wrong: the first task fails with one sentence that says what to set where.

The checks are those that the sensor runs before it reads a message; `tests/e2e` shows one in Airflow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from psycopg import sql

from local.servers.ports import HOST
from ownership.domain.errors import OwnershipError, SettingsError, Unavailable
from ownership.ledger.schema import REVISION
from tests.harness import administrator
from tests.integration.stages.transfer_world import World

VARIABLE = "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"
LEDGER = "AIRFLOW_CONN_OWNERSHIP_LEDGER"


def opened() -> None:
    """What the sensor does before it reads."""
    from ownership.edge.hooks import opened_intake, opened_parts

    with opened_parts() as parts, opened_intake(parts):
        pass


def test_the_stack_s_own_settings_pass(environment: dict[str, Any]):
    opened()


@pytest.mark.parametrize("name", ["kafka", "cassandra", "elasticsearch", "lms", "userorg"])
def test_a_missing_connection_is_named(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DEFAULT")

    with pytest.raises(SettingsError, match=f"Connection '{name}_default' is missing.*Admin → Connections"):
        opened()


@pytest.mark.parametrize("name", ["kafka", "cassandra", "elasticsearch", "lms", "userorg"])
def test_a_wrong_host_is_named(nowhere: Callable[[str], None], name: str):
    nowhere(name)

    with pytest.raises(Unavailable, match=f"Connection '{name}_default' right"):
        opened()


@pytest.mark.parametrize("value", ["true", "True", True], ids=repr)
def test_automatic_commits_are_refused(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, value: object
):
    wrong = environment["AIRFLOW_CONN_KAFKA_DEFAULT"]
    wrong["extra"]["enable.auto.commit"] = value
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(wrong))

    with pytest.raises(SettingsError, match=r"enable\.auto\.commit=true, which loses events"):
        opened()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"kafka.input.topik": "x"}, "Unknown setting 'kafka.input.topik'", id="unknown"),
        pytest.param({"threshold.batch.write.size": 0}, "threshold.batch.write.size", id="out of bounds"),
        pytest.param({"env": "nowhere"}, "no topic 'nowhere.user.ownership.transfer'", id="no topic"),
        pytest.param({"kafka.failed.topic": "nowhere"}, "no topic 'nowhere'", id="no dead-letter topic"),
        pytest.param({"lms-cassandra.keyspace": "nowhere"}, "no keyspace 'nowhere'", id="no keyspace"),
        pytest.param({"lms-cassandra.course_batch.table": "nothing"}, "no table 'nothing'", id="no table"),
        pytest.param({"es.course_batch.index": "nothing"}, "no index 'nothing'", id="no index"),
        pytest.param({"es.course_batch.index": "user"}, "no sub-field 'createdBy.raw'", id="another index"),
        pytest.param({"service.lms.basePath": "no url"}, "service.lms.basePath", id="no URL"),
    ],
)
def test_a_wrong_setting_is_named(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sentence: str
):
    monkeypatch.setenv(VARIABLE, json.dumps({"env": "dev", **settings}))

    with pytest.raises(SettingsError, match=sentence):
        opened()


# --- the ledger: each case is one sentence, and no message is consumed


class Wrong:
    """The Connection and the database of one world's ledger, to be spoilt."""

    def __init__(
        self, world: World, connection: dict[str, Any], patch: pytest.MonkeyPatch, dead_port: int
    ) -> None:
        self.world = world
        self.dead_port = dead_port
        self.name = str(connection["schema"])
        self._connection = connection
        self._patch = patch

    def set(self, **fields: Any) -> None:
        """Other fields of the Connection."""
        self._patch.setenv(LEDGER, json.dumps(self._connection | fields))

    def forget(self) -> None:
        """No Connection."""
        self._patch.delenv(LEDGER)

    def set_for_all(self, setting: str, value: str) -> None:
        """A setting of the database; sessions that are open end."""
        with administrator(self.world.ledger) as server:
            name = sql.Identifier(self.name)
            server.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    name, sql.Identifier(setting), sql.Literal(value)
                )
            )

    def reset(self) -> None:
        """All settings of the database as they were."""
        with administrator(self.world.ledger) as server:
            name = sql.Identifier(self.name)
            server.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(name))
            server.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(name))


@pytest.fixture
def wrong(
    own_world: World, environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, dead_port: int
) -> Iterator[Wrong]:
    """A world whose ledger is reached through the Connection."""
    own_world.lead_to_ledger(environment, monkeypatch)
    monkeypatch.setenv(VARIABLE, json.dumps({"env": own_world.env, "grace.ms": 0}))
    spoilt = Wrong(own_world, json.loads(os.environ[LEDGER]), monkeypatch, dead_port)
    yield spoilt
    spoilt.reset()


def older(wrong: Wrong) -> None:
    wrong.world.execute("UPDATE alembic_version SET version_num = '0000'")


def newer(wrong: Wrong) -> None:
    wrong.world.execute("UPDATE alembic_version SET version_num = '9999'")


REFUSED = "PostgreSQL (ledger) refuses: connection failed: connection to server at "
NO_LEDGER = (
    "The database of Connection 'ownership_ledger' has no ledger: run `python -m ownership.ledger upgrade`, or set the "
    "Connection's schema."
)


@pytest.mark.parametrize(
    ("spoil", "kind", "start", "end"),
    [
        pytest.param(
            Wrong.forget, SettingsError, "Connection 'ownership_ledger' is missing: ",
            "add it under Admin → Connections, or set AIRFLOW_CONN_OWNERSHIP_LEDGER.", id="no Connection",
        ),
        pytest.param(
            lambda w: w.set(conn_type="mysql"), SettingsError, "Connection 'ownership_ledger' has type 'mysql'",
            ": its type must be postgres.", id="another type",
        ),
        pytest.param(
            lambda w: w.set(password="wrong"), SettingsError, REFUSED,  # noqa: S106  # of nobody
            'password authentication failed for user "ownership"; set login and password of Connection '
            "'ownership_ledger'.", id="wrong password",
        ),
        pytest.param(
            lambda w: w.set(password=None), SettingsError, REFUSED,
            "no password supplied; set the password of Connection 'ownership_ledger'.", id="no password",
        ),
        pytest.param(
            lambda w: w.set(login="nobody_at_all"), SettingsError, REFUSED,
            'role "nobody_at_all" does not exist; create role and database, or set login and schema (database) of '
            "Connection 'ownership_ledger'.", id="wrong role",
        ),
        pytest.param(
            lambda w: w.set(schema="nowhere"), SettingsError, REFUSED,
            'database "nowhere" does not exist; create role and database, or set login and schema (database) of '
            "Connection 'ownership_ledger'.", id="wrong database",
        ),
        pytest.param(
            lambda w: w.world.execute("DROP TABLE alembic_version"), SettingsError, NO_LEDGER, NO_LEDGER, id="no schema",
        ),
        pytest.param(
            older, SettingsError, f"The ledger has schema 0000, older than {REVISION} of this version: ",
            "run `python -m ownership.ledger upgrade`.", id="an older schema",
        ),
        pytest.param(
            newer, SettingsError, f"The ledger has schema 9999, newer than {REVISION} of this version: ",
            "install the version of the job that made it.", id="a newer schema",
        ),
        pytest.param(
            lambda w: w.set_for_all("synchronous_commit", "off"), SettingsError,
            "PostgreSQL (ledger) has synchronous_commit = off, so a crash can lose what it acknowledged: set it to on",
            "as in `ALTER DATABASE ownership SET synchronous_commit = on`.", id="not durable",
        ),
        pytest.param(
            lambda w: w.set(extra={"sslmode": "require"}), SettingsError, REFUSED,
            "server does not support SSL, but SSL was required; set sslmode in the extra of Connection "
            "'ownership_ledger'.", id="TLS where there is none",
        ),
        pytest.param(
            lambda w: w.set_for_all("default_transaction_read_only", "on"), Unavailable,
            "PostgreSQL (ledger) unavailable: the server is read-only, so it is a standby", "so it is a standby",
            id="read-only",
        ),
        pytest.param(
            lambda w: w.set(extra={"target_session_attrs": "standby"}), Unavailable,
            "PostgreSQL (ledger) unavailable: connection failed: connection to server at ",
            "server is not in hot standby mode; is the host of Connection 'ownership_ledger' right?",
            id="no server of the wanted kind",
        ),
        pytest.param(
            lambda w: w.set(host=HOST, port=w.dead_port), Unavailable,
            "PostgreSQL (ledger) unavailable: connection failed: connection to server at ",
            "Connection refused; is the host of Connection 'ownership_ledger' right?",
            id="nobody listens, neither PostgreSQL nor pgbouncer",
        ),
        pytest.param(
            lambda w: w.set(host="nowhere.invalid"), Unavailable, "PostgreSQL (ledger) unavailable: ",
            "; is the host of Connection 'ownership_ledger' right?", id="no such host",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_ledger_is_one_sentence_and_nothing_is_consumed(
    wrong: Wrong, spoil: Callable[[Wrong], None], kind: type[OwnershipError], start: str, end: str
):
    world = wrong.world
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    before = _places(world)
    spoil(wrong)

    with pytest.raises(kind) as caught:
        opened()

    said = str(caught.value)
    assert said.startswith(start)
    assert said.endswith(end)
    assert "\n" not in said
    assert str(json.loads(os.environ.get(LEDGER, "{}")).get("password")) not in said
    assert _places(world) == before
    assert world.job.parts.events.read([mid]) == {}


def _places(world: World) -> tuple[Any, Any]:
    """How far the topic is read: by the consumer group, and by the ledger."""
    topic = world.job.topic
    committed = topic._committed([TopicPartition(topic.name, p) for p in topic.partitions()])
    return sorted((t.partition, t.offset) for t in committed), world.job.inbox.arrivals.consumed(topic.name)
