"""PostgreSQL, as the ledger uses it: short transactions, bounded, retried, without state of a session.

So pgbouncer in transaction mode may stand between: time-outs are set inside each transaction, no statement is
prepared on the server, locks are those of rows and of transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
import stamina
from psycopg import errors as pg
from psycopg.abc import PQGen
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ownership.domain.errors import OwnershipError, SettingsError, Unavailable
from ownership.domain.text import one_line

PART = "PostgreSQL (ledger)"
CONNECTION = "ownership_ledger"
"""The Airflow Connection that the ledger is reached through."""
UPGRADE = "run `python -m ownership.ledger upgrade`"
TRIES = 4
"""Tries of a transaction that met an outage; pauses of 0.2, 0.4, 0.8 s with jitter between them."""
CONNECT_SECONDS = 5
STATEMENT_MS = 20_000
"""The server ends a statement after this."""
LOCK_MS = 10_000
"""The server ends a wait for a lock after this."""
IDLE_MS = 10_000
"""The server ends a transaction whose client is silent for this long: a frozen task must not hold locks."""
ANSWER_MS = 5_000
"""The client gives a server up that has not ended a statement this long after its time."""

T = TypeVar("T")

_TIMEOUTS = text(
    "SELECT set_config('statement_timeout', :statement, true), set_config('lock_timeout', :lock, true), "
    "set_config('idle_in_transaction_session_timeout', :idle, true)"
)
_CLOCK = text("SELECT CAST(floor(1000 * extract(epoch FROM clock_timestamp())) AS bigint)")
NO_NESTED_LOOP = text("SET LOCAL enable_nestloop = off")
"""Before a statement that joins many given rows with a run's own. The statistics do not know these yet: the planner
expects one of them and would compare each with each, 1.2 s for 5,000. A hash needs 0.02 s."""
_OUTAGES: Mapping[type[Exception], str] = {
    pg.AdminShutdown: "",
    pg.CannotConnectNow: "",
    pg.CrashShutdown: "",
    pg.DeadlockDetected: "",
    pg.DiskFull: "the server's disk is full; nothing was written: ",
    pg.IdleInTransactionSessionTimeout: "",
    pg.LockNotAvailable: "",
    pg.OutOfMemory: "",
    pg.QueryCanceled: "",
    pg.ReadOnlySqlTransaction: "the server is read-only, so it is a standby: ",
    pg.SerializationFailure: "",
    pg.TooManyConnections: "",
}
"""With what the server's own words do not say."""
_OF = f"of Connection '{CONNECTION}'"
_OWNER = f"log in as the database's owner in Connection '{CONNECTION}', or grant it"
_ADVICE: Mapping[type[Exception], str] = {
    pg.InvalidPassword: f"set login and password {_OF}",
    pg.InvalidAuthorizationSpecification: f"set login and password {_OF}, or pg_hba.conf",
    pg.InvalidCatalogName: f"create the database, or set the schema (database) {_OF}",
    pg.InsufficientPrivilege: _OWNER,
    pg.InvalidSchemaName: f"{_OWNER} USAGE and CREATE",
    pg.UndefinedTable: UPGRADE,
    pg.UndefinedColumn: UPGRADE,
    pg.UndefinedFunction: UPGRADE,
}
_ADVICE_BY_WORDS: Mapping[str, str] = {
    "password authentication failed": f"set login and password {_OF}",
    "no password supplied": f"set the password {_OF}",
    "no pg_hba.conf entry": f"let pg_hba.conf admit the login {_OF}, or set sslmode in its extra",
    "no such user": f"set the login {_OF}",
    # Before what it may say of a file of certificates: that it does not exist.
    "certificate": f"check sslmode, sslrootcert and sslcert in the extra {_OF}",
    "does not exist": f"create role and database, or set login and schema (database) {_OF}",
    "no such database": f"set the schema (database) {_OF}",
    "invalid connection option": f"correct the extra {_OF}",
    ' value: "': f"correct the extra {_OF}",  # "invalid … value", of any option
    "weak sslmode": f"correct the extra {_OF}",
    "SSL required": f"set sslmode in the extra {_OF}",
    "channel binding": f"correct channel_binding in the extra {_OF}",
    "does not support SSL": f"set sslmode in the extra {_OF}",
}
"""While a connection is made the server's code is lost: the client has only words, of libpq or pgbouncer."""


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that gives up a server which does not answer; libpq itself would wait for ever."""

    answer_seconds = (STATEMENT_MS + ANSWER_MS) / 1000
    """How long the client waits for an answer."""

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        """As the parent's, within `answer_seconds`; then the connection is closed."""
        try:
            return super().wait(gen, interval, self.answer_seconds if timeout is None else timeout)
        except pg._WaitTimeout:  # noqa: SLF001  # what the parent's documentation says it raises
            if timeout is not None:
                raise
            self.pgconn.finish()
            raise psycopg.OperationalError(f"no answer within {self.answer_seconds:.0f} s") from None


class Database:
    """The ledger's database: runs transactions, and translates its errors into the job's own."""

    def __init__(self, engine: Engine, *, address: str = "", tries: int = TRIES) -> None:
        """`address` is for people."""
        self._engine = engine
        self.address = address
        self._tries = tries
        self.months_upto = 0
        """The last month for which this process knows that the partitions are there."""

    @classmethod
    def at(cls, parameters: Mapping[str, Any], *, connections: int = 4, tries: int = TRIES) -> Database:
        """A database by libpq's connection parameters; it connects when it is first used.

        `connections`: most connections of one process.
        """
        given = {"connect_timeout": CONNECT_SECONDS, "application_name": "ownership", **parameters}

        def connect() -> psycopg.Connection[Any]:
            return BoundedConnection.connect(**given, prepare_threshold=None)

        engine = create_engine(
            "postgresql+psycopg://",
            creator=connect,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=30,
            use_native_hstore=False,
        )
        address = f"{given.get('host', '')}:{given.get('port', '')}/{given.get('dbname', '')}"
        return cls(engine, address=address, tries=tries)

    def connect(self) -> None:
        """Make a connection, so that the first transaction finds one; an error shows there."""
        with suppress(SQLAlchemyError, psycopg.Error):
            self._engine.connect().close()

    def attempt(self, work: Callable[[Connection], object]) -> None:
        """Do `work` once, in a transaction, if the database is well; for what may as well be left undone."""
        with suppress(OwnershipError):
            self._once(work, STATEMENT_MS)

    def close(self) -> None:
        """End all connections."""
        self._engine.dispose()

    def now_ms(self) -> int:
        """The server's clock, epoch ms: the same for every worker.

        :raises Unavailable: as `run` does.
        """
        return int(self.run(lambda c: c.execute(_CLOCK).scalar_one()))

    def run(self, work: Callable[[Connection], T], *, statement_ms: int = STATEMENT_MS) -> T:
        """The result of `work` in one transaction, which is committed when it returns.

        A transaction that meets an outage is run again, also one whose commit is in doubt: `work` must find out
        what it did before.

        :raises Unavailable: if the database does not answer, or is read-only, after the last try.
        :raises SettingsError: if role, database, schema or grants are wrong; the message says what to do.
        """
        retrying = stamina.RetryingCaller(
            attempts=self._tries, wait_initial=0.2, wait_max=2.0, wait_jitter=0.2, timeout=None
        )
        return retrying(Unavailable, self._once, work, statement_ms)

    def _once(self, work: Callable[[Connection], T], statement_ms: int) -> T:
        try:
            with self._engine.begin() as connection:
                try:
                    driver = connection.connection.driver_connection
                    assert isinstance(driver, BoundedConnection)  # noqa: S101  # made by `at`
                    driver.answer_seconds = (statement_ms + ANSWER_MS) / 1000
                    connection.execute(
                        _TIMEOUTS,
                        {"statement": str(statement_ms), "lock": str(LOCK_MS), "idle": str(IDLE_MS)},
                    )
                    return work(connection)
                except DBAPIError as e:
                    # A server that has become a standby, or shuts down: the next try looks for another.
                    if isinstance(e.orig, (pg.ReadOnlySqlTransaction, pg.AdminShutdown)):
                        connection.invalidate()
                    raise
        except (SQLAlchemyError, psycopg.Error) as e:
            raise _translated(e) from None


def to_ledger(name: str) -> str:
    """A name of the platform's as PostgreSQL can hold it: its text has no NUL, which Cassandra's may have."""
    return name.replace("\x1a", "\x1a1").replace("\0", "\x1a0") if "\0" in name or "\x1a" in name else name


def from_ledger(name: str) -> str:
    """The name that `to_ledger` was given."""
    return name.replace("\x1a0", "\0").replace("\x1a1", "\x1a") if "\x1a" in name else name


def copy(connection: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Insert rows by COPY."""
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101  # checked out just now
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN") as copying:
        for row in rows:
            copying.write_row([_array(v) if isinstance(v, list) else v for v in row])


def _array(texts: Sequence[str]) -> str:
    """An array of texts as PostgreSQL reads it. The driver looks at each element's type, which takes ten times as long.

    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    quoted = (t.replace("\\", "\\\\").replace('"', '\\"') for t in texts)
    return "{" + ",".join(f'"{t}"' for t in quoted) + "}"


def _translated(error: Exception) -> Exception:
    """The job's own error for one of SQLAlchemy or the driver."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    words = one_line(str(cause).strip().partition("\n")[0] or type(cause).__name__, 300)
    if advice := _advice(cause):
        return SettingsError(f"{PART} refuses: {words}; {advice}.")
    what = _of_kind(cause, _OUTAGES)
    if what is not None or isinstance(error, PoolTimeout):
        return Unavailable(PART, f"{what or ''}{words}")
    if isinstance(cause, pg.ProgramLimitExceeded):
        return error  # a value of the job's own is too large: no new try makes it smaller
    if isinstance(cause, (psycopg.OperationalError, psycopg.InterfaceError)):
        where = f"; is the host {_OF} right?" if cause.sqlstate is None else ""
        return Unavailable(PART, f"{words}{where}")
    return error


def _advice(cause: BaseException) -> str | None:
    """What to do about a refusal; None where the server is out of reach, or the fault is the job's own."""
    if advice := _of_kind(cause, _ADVICE):
        return advice
    if isinstance(cause, (psycopg.OperationalError, psycopg.ProgrammingError)) and cause.sqlstate is None:
        return next((advice for words, advice in _ADVICE_BY_WORDS.items() if words in str(cause)), None)
    return None


def _of_kind(cause: BaseException, words: Mapping[type[Exception], str]) -> str | None:
    return next((w for kind, w in words.items() if isinstance(cause, kind)), None)
