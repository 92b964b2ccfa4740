"""What PostgreSQL and its client say, in the job's errors: an outage is tried again, a wrong setting says what to do."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors as pg
from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ownership.domain.errors import SettingsError, Unavailable
from ownership.ledger.database import CONNECTION, PART, TRIES, Database, _translated, from_ledger, to_ledger


def wrapped(error: Exception) -> DBAPIError:
    """As SQLAlchemy hands on what the driver raises."""
    return DBAPIError("SELECT 1", {"secret": "Pa55word"}, error)


def translated(error: Exception) -> list[Exception]:
    """The job's errors for one of the driver's, bare and wrapped by SQLAlchemy: each one line, without values."""
    found = [_translated(e) for e in (error, wrapped(error))]
    for translation in map(str, found):
        assert "\n" not in translation
        assert "Pa55word" not in translation
    return found


LOGIN = f"set login and password of Connection '{CONNECTION}'"
UPGRADE = "run `python -m ownership.ledger upgrade`"


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        pytest.param(pg.InvalidPassword("wrong"), LOGIN, id="wrong password"),
        pytest.param(pg.InvalidAuthorizationSpecification("no"), "pg_hba.conf", id="the server admits no such login"),
        pytest.param(pg.InvalidCatalogName('database "x" does not exist'), "create the database", id="no database"),
        pytest.param(pg.InsufficientPrivilege("permission denied for table event"), "or grant it", id="no grant"),
        pytest.param(pg.InvalidSchemaName("no schema has been selected to create in"), "or grant it", id="no schema"),
        pytest.param(pg.UndefinedTable('relation "event" does not exist'), UPGRADE, id="no table"),
        pytest.param(pg.UndefinedColumn('column "x" does not exist'), UPGRADE, id="no column"),
        pytest.param(pg.UndefinedFunction("next_event_id() does not exist"), UPGRADE, id="no function"),
        # Of a connection that is not made, the client has words only: of libpq, of the server, or of pgbouncer.
        pytest.param(
            psycopg.OperationalError('FATAL:  password authentication failed for user "x"'), LOGIN,
            id="connecting: wrong password",
        ),
        pytest.param(
            psycopg.OperationalError("fe_sendauth: no password supplied"), "set the password of",
            id="connecting: no password",
        ),
        pytest.param(
            psycopg.OperationalError('FATAL:  no pg_hba.conf entry for host "h"'), "let pg_hba.conf admit",
            id="connecting: the server admits no such login",
        ),
        pytest.param(
            psycopg.OperationalError('FATAL:  role "x" does not exist'), "create role and database",
            id="connecting: no role",
        ),
        pytest.param(
            psycopg.OperationalError('FATAL:  database "x" does not exist'), "create role and database",
            id="connecting: no database",
        ),
        pytest.param(psycopg.OperationalError("FATAL:  no such user: x"), "set the login", id="pgbouncer: no role"),
        pytest.param(
            psycopg.OperationalError("FATAL:  no such database: x"), "set the schema (database)",
            id="pgbouncer: no database",
        ),
        pytest.param(psycopg.OperationalError("FATAL:  SSL required"), "set sslmode in the extra", id="pgbouncer: no TLS"),
        pytest.param(
            psycopg.OperationalError("channel binding is required, but server did not offer"), "correct channel_binding",
            id="connecting: no channel binding",
        ),
        pytest.param(
            psycopg.ProgrammingError('invalid connection option "sslmod"'), "correct the extra",
            id="connecting: an unknown option",
        ),
        pytest.param(
            psycopg.OperationalError('invalid sslmode value: "verify"'), "correct the extra",
            id="connecting: no such sslmode",
        ),
        pytest.param(
            psycopg.OperationalError('invalid channel_binding value: "yes"'), "correct the extra",
            id="connecting: no such value of another option",
        ),
        pytest.param(
            psycopg.OperationalError('weak sslmode "require" may not be used with sslrootcert=system (use "verify-full")'),
            "correct the extra", id="connecting: TLS that does not verify by the system's authorities",
        ),
        pytest.param(
            psycopg.OperationalError('root certificate file "/home/airflow/.postgresql/root.crt" does not exist'),
            "check sslmode, sslrootcert and sslcert", id="connecting: no authorities to verify by",
        ),
        pytest.param(
            psycopg.OperationalError("SSL error: certificate verify failed"), "check sslmode, sslrootcert and sslcert",
            id="connecting: a certificate of another authority",
        ),
        pytest.param(
            psycopg.OperationalError('server certificate for "a" does not match host name "b"'),
            "check sslmode, sslrootcert and sslcert", id="connecting: a certificate of another host",
        ),
        pytest.param(
            psycopg.OperationalError("server does not support SSL, but SSL was required"), "set sslmode in the extra",
            id="connecting: no TLS",
        ),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_a_settings_error_that_says_what_to_do(error: Exception, advice: str) -> None:
    for translation in translated(error):
        assert isinstance(translation, SettingsError)
        assert str(translation).startswith(f"{PART} refuses: {str(error).strip()}; ")
        assert advice in str(translation)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(pg.AdminShutdown("terminating connection"), "terminating connection", id="the server stops"),
        pytest.param(pg.CannotConnectNow("the database system is starting up"), "starting up", id="it starts"),
        pytest.param(pg.CrashShutdown("another server process crashed"), "crashed", id="it crashed"),
        pytest.param(pg.DeadlockDetected("deadlock detected"), "deadlock", id="a deadlock"),
        pytest.param(pg.DiskFull("could not extend file"), "the server's disk is full; nothing was written: could",
                     id="the disk is full"),
        pytest.param(pg.IdleInTransactionSessionTimeout("idle"), "idle", id="a silent client"),
        pytest.param(pg.LockNotAvailable("canceling statement due to lock timeout"), "lock timeout", id="a lock"),
        pytest.param(pg.OutOfMemory("out of memory"), "out of memory", id="no memory"),
        pytest.param(pg.QueryCanceled("canceling statement due to statement timeout"), "timeout", id="too slow"),
        pytest.param(pg.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
                     "the server is read-only, so it is a standby: cannot execute", id="a standby"),
        pytest.param(pg.SerializationFailure("could not serialize"), "could not serialize", id="a race"),
        pytest.param(pg.TooManyConnections("sorry, too many clients already"), "too many", id="too many clients"),
        pytest.param(psycopg.OperationalError("connection failed: Connection refused"),
                     f"Connection refused; is the host of Connection '{CONNECTION}' right?", id="nobody listens"),
        pytest.param(psycopg.OperationalError("server closed the connection unexpectedly\n\tThis probably means"),
                     "closed the connection unexpectedly; is the host", id="cut off"),
        pytest.param(psycopg.OperationalError("no answer within 25 s"), "no answer within 25 s", id="no answer"),
        pytest.param(psycopg.InterfaceError("the connection is closed"), "the connection is closed", id="closed"),
    ],
)  # fmt: skip
def test_an_outage_is_unavailable_and_says_what_the_server_said(error: Exception, said: str) -> None:
    for translation in translated(error):
        assert isinstance(translation, Unavailable)
        assert translation.part == PART
        assert said in str(translation)


def test_a_server_that_answered_is_at_the_right_host() -> None:
    assert "host" not in str(_translated(pg.LockNotAvailable("canceling statement due to lock timeout")))


def test_a_pool_without_a_free_connection_is_an_outage() -> None:
    assert isinstance(_translated(PoolTimeout("QueuePool limit of size 2 reached")), Unavailable)


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(IntegrityError("INSERT", {}, pg.CheckViolation("violates check constraint")), id="a constraint"),
        pytest.param(ProgrammingError("SELEC", {}, pg.SyntaxError("syntax error")), id="a syntax error"),
        pytest.param(wrapped(pg.NumericValueOutOfRange("bigint out of range")), id="a number out of range"),
        pytest.param(wrapped(pg.ProgramLimitExceeded("index row size exceeds maximum")), id="too large for an index"),
    ],
)  # fmt: skip
def test_a_fault_of_the_job_s_own_stays_what_it_is(error: Exception) -> None:
    assert _translated(error) is error


def test_an_error_without_words_is_reported_by_its_name() -> None:
    assert str(_translated(pg.QueryCanceled())) == f"{PART} unavailable: QueryCanceled"


def test_a_word_of_the_server_s_own_errors_is_not_taken_for_one_of_connecting() -> None:
    translation = _translated(pg.UndefinedObject('type "certificate" does not exist'))
    assert not isinstance(translation, SettingsError)


def broken(monkeypatch: pytest.MonkeyPatch, error: Exception) -> tuple[Database, list[int]]:
    """A database whose every transaction fails with `error`; how often one was begun."""
    engine, begun = create_engine("postgresql+psycopg://"), list[int]()

    def begin() -> Any:
        begun.append(1)
        raise wrapped(error)

    monkeypatch.setattr(engine, "begin", begin)
    return Database(engine), begun


def test_an_outage_is_tried_again_some_times_and_a_wrong_setting_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database, begun = broken(monkeypatch, pg.CannotConnectNow("the database system is starting up"))
    with pytest.raises(Unavailable):
        database.run(lambda _: None)
    assert len(begun) == TRIES
    database, begun = broken(monkeypatch, pg.UndefinedTable('relation "event" does not exist'))
    with pytest.raises(SettingsError):
        database.run(lambda _: None)
    assert len(begun) == 1


@given(st.text("a01\0\x1a"))
def test_a_name_with_nul_is_kept_without_it_and_given_back(name: str) -> None:
    assert "\0" not in to_ledger(name)
    assert from_ledger(to_ledger(name)) == name
