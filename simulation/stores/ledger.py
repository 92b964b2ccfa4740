"""The real ledger: PostgreSQL, in which each transaction is one call of the world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import SQLAlchemyError

from ownership.domain.errors import Unavailable
from ownership.domain.plan import BatchId
from ownership.domain.queue import Choice, ClaimedEvent, in_words
from ownership.ledger import database as ledger_database
from ownership.ledger.changes import Image
from ownership.ledger.database import PART, Database
from ownership.ledger.events import EventRow
from ownership.ledger.queue import Held
from ownership.ledger.upgrade import upgrade
from simulation.scheduler import Scheduler

T = TypeVar("T")

STORE = "ledger"
_TABLES = (
    "queue", "event_run", "plan", "change", "payload", "event", "rejected_message", "consumed_offset",
    "reconciliation_part", "reconciliation",
)  # fmt: skip
_EMPTY = "; ".join([
    *(f"DELETE FROM {table}" for table in _TABLES),  # noqa: S608  # names from above
    "UPDATE queue_head SET fencing_token = 0",
    "ALTER SEQUENCE event_number RESTART",
])  # fmt: skip
_GUARDS = """
CREATE OR REPLACE FUNCTION final_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.ended_at IS NOT NULL AND (NEW.state, NEW.ended_at) IS DISTINCT FROM (OLD.state, OLD.ended_at) THEN
        RAISE EXCEPTION 'event %% was %% and became %%', OLD.mid, OLD.state, NEW.state;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION verdict_is_final() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.verdict IS NOT NULL AND NEW.verdict IS DISTINCT FROM OLD.verdict THEN
        RAISE EXCEPTION 'verdict of %% was %% and became %%', OLD.mid, OLD.verdict, NEW.verdict;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE FUNCTION token_is_current() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    held bigint := (SELECT fencing_token FROM queue WHERE event_id = NEW.id);
BEGIN
    IF NEW.fencing_token IS DISTINCT FROM held THEN
        RAISE EXCEPTION 'token %% wrote event %%, which token %% holds', NEW.fencing_token, NEW.mid, held;
    END IF;
    RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER final_is_final BEFORE UPDATE ON event FOR EACH ROW EXECUTE FUNCTION final_is_final();
CREATE OR REPLACE TRIGGER verdict_is_final BEFORE UPDATE ON event FOR EACH ROW EXECUTE FUNCTION verdict_is_final();
CREATE OR REPLACE TRIGGER token_is_current BEFORE UPDATE OF fencing_token ON event
    FOR EACH ROW EXECUTE FUNCTION token_is_current();
"""
"""Invariants that the server itself watches; a statement that breaks one fails."""


class SimulatedDatabase(Database):
    """The ledger's database, with the world's faults around each transaction."""

    def __init__(self, engine: Engine, scheduler: Scheduler) -> None:
        super().__init__(engine)
        self._scheduler = scheduler
        self.after_commit: list[Callable[[str], None]] = []
        """Called with the name of each transaction that was committed, before anybody else moves."""

    def _once(self, work: Callable[[Connection], T], statement_ms: int) -> T:  # noqa: ARG002  # no time-outs here
        name = work.__qualname__.replace(".<locals>.", ".").removesuffix(".work").removesuffix(".<lambda>")

        def effect() -> T:
            try:
                with self._engine.begin() as connection:
                    result = work(connection)
            except (SQLAlchemyError, psycopg.Error) as e:
                raise ledger_database._translated(e) from None  # noqa: SLF001  # as the parent does it
            for told in self.after_commit:
                told(name)
            return result

        return self._scheduler.call(STORE, name, effect, lambda: Unavailable(PART, "no answer"), told=_told)

    def plainly(self, statement: str, **values: Any) -> list[Any]:
        """The rows of a statement that is no call of the world."""
        with self._engine.begin() as connection:
            return list(connection.execute(text(statement), values))

    def empty(self) -> None:
        """Make the ledger as it was when it was created."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(_EMPTY)


_TOLD: Sequence[tuple[Any, Callable[[Any], str]]] = (
    (ClaimedEvent, lambda e: f"{e.mid}#{e.fencing_token}"),
    (EventRow, lambda e: f"{e.mid} {e.state}"),
    (Image, lambda i: f"{i.id.batch_id} {i.outcome}"),
    (BatchId, lambda i: str(i.batch_id)),
    (Held, lambda h: f"lost {_told(h.lost)}" if h.lost else "held"),
    (Choice, lambda c: ", ".join(f"{mid} {in_words(wait)}" for mid, wait in c.waits.items())),
    (Row, lambda _: ""),
    (Mapping, lambda m: " ".join(sorted(map(str, m)))),
    ((set, frozenset, list, tuple), lambda many: " ".join(sorted(filter(None, map(_told, many))))),
    ((str, int), str),
)
"""Types, and how an answer of each is told."""


def _told(answer: object) -> str:
    """An answer in a few words, the same in every world that goes the same way: the server orders rows as it likes."""
    return next((tell(answer) for kind, tell in _TOLD if isinstance(answer, kind)), "")


@contextmanager
def opened_engine(socket_folder: str, name: str) -> Iterator[Engine]:
    """The engine of a ledger of one's own, created on the server and dropped at the end."""
    administrator = {"host": socket_folder, "user": "postgres"}
    with psycopg.connect(make_conninfo(dbname="postgres", **administrator), autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        database = Database.at({**administrator, "dbname": name}, connections=1)
        try:
            upgrade(database)
            with database._engine.begin() as connection:  # noqa: SLF001  # a real one has no face for this
                connection.exec_driver_sql(_GUARDS)
                # The only connection. A job's own prepares nothing, for pgbouncer's sake; here that is a third of the
                # server's CPU.
                driver: Any = connection.connection.driver_connection
                driver.prepare_threshold = 2
            yield database._engine  # noqa: SLF001
        finally:
            database.close()
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
