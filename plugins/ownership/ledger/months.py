"""The monthly partitions: made before they are needed, dropped when retention is over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, text, tuple_

from ownership.domain.clock import DAY_MS, from_ms, now_ms
from ownership.ledger.database import Database
from ownership.ledger.hosts import forget_old
from ownership.ledger.schema import (
    MONTH_SHIFT,
    PARTITIONED,
    among,
    event,
    event_run,
    import_row,
    imports,
    month_of,
    queue,
    reconciliation,
    reconciliation_part,
    rejected_message,
)

ROWS_PER_DELETE = 5000
"""Rows of one transaction of the housekeeping."""
MAX_DELETES = 200
"""Such transactions in one housekeeping; the next one goes on."""
_ADVISORY_LOCK = 0x6F776E65
"""Held while partitions are made or dropped, and tables migrated."""


class Removed(NamedTuple):
    """What a housekeeping removed."""

    partitions: tuple[str, ...] = ()
    events: int = 0
    rejected_messages: int = 0
    reconciliations: int = 0
    imports: int = 0
    hosts: int = 0


def ensure_months(database: Database) -> None:
    """Make the partitions of this month and the next, if they are missing. A look where this process made it before."""
    month = month_of(now_ms())
    if database.months_upto <= month:
        database.run(make_months)
        database.months_upto = month + 1


def make_months(connection: Connection) -> list[str]:
    """Make the missing partitions of this month and the next. Returns their names."""
    month = month_of(now_ms())
    wanted = {f"{t}_{m // 12}_{m % 12 + 1:02d}": (t, m) for m in (month, month + 1) for t in PARTITIONED}
    if wanted.keys() <= _partitions(connection).keys():
        return []
    lock_schema(connection)
    there = _partitions(connection)
    missing = [name for name in wanted if name not in there]
    for name in missing:
        table, m = wanted[name]
        low, high = m << MONTH_SHIFT, (m + 1) << MONTH_SHIFT
        # Each row gets its outcome later: with room for it on the page no index has to be written again.
        room = "" if table == "payload" else " WITH (fillfactor = 50)"
        statement = f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({low}) TO ({high}){room}"
        connection.execute(text(statement))
    return missing


def lock_schema(connection: Connection) -> None:
    """Wait until no other process makes or drops tables; to the transaction's end."""
    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def remove_old(database: Database, retention_days: int) -> Removed:
    """Remove what is older than the retention, in short transactions, and hosts that are gone for a day.

    Events that are not final stay, with all rows.

    A month is removed when all of it is too old: its partitions are dropped, its events deleted in parts.
    """
    cutoff_ms = now_ms() - retention_days * DAY_MS
    first_kept = month_of(cutoff_ms)
    dropped = database.run(lambda c: _drop_months(c, first_kept))
    return Removed(
        tuple(dropped),
        _delete_events(database, first_kept),
        _repeat(database, lambda c: _delete_rejected(c, cutoff_ms)),
        _repeat(database, lambda c: _delete_reconciliations(c, cutoff_ms)),
        _delete_imports(database, cutoff_ms),
        database.run(forget_old),
    )


def _drop_months(connection: Connection, first_kept: int) -> list[str]:
    lock_schema(connection)
    # Few: it is the queue.
    open_months = {i >> MONTH_SHIFT for i in connection.scalars(select(queue.c.event_id))}
    old = [
        n for n, month in _partitions(connection).items() if month < first_kept and month not in open_months
    ]
    for name in old:
        connection.execute(text(f"DROP TABLE {name}"))
    return old


def _partitions(connection: Connection) -> dict[str, int]:
    """The partitions by name, with the month of each."""
    names = connection.scalars(
        text(
            "SELECT c.relname FROM unnest(CAST(:tables AS text[])) AS t JOIN pg_inherits i "
            "ON i.inhparent = to_regclass(t) JOIN pg_class c ON c.oid = i.inhrelid ORDER BY c.relname"
        ),
        {"tables": list(PARTITIONED)},
    )
    found = {name: re.fullmatch(r"[a-z]+_(\d{4})_(\d\d)", name) for name in names}
    return {name: int(month[1]) * 12 + int(month[2]) - 1 for name, month in found.items() if month}


def _delete_events(database: Database, first_kept: int) -> int:
    """Events of months whose partitions are gone: nothing refers to them but the list of their runs."""

    def work(connection: Connection) -> int:
        old = select(event.c.id).where(event.c.id < first_kept << MONTH_SHIFT)
        for month in set(_partitions(connection).values()):
            old = old.where(~event.c.id.between(month << MONTH_SHIFT, ((month + 1) << MONTH_SHIFT) - 1))
        ids = connection.scalars(old.order_by(event.c.id).limit(ROWS_PER_DELETE)).all()
        connection.execute(delete(event_run).where(among(event_run.c.event_id, ids)))
        connection.execute(delete(event).where(among(event.c.id, ids)))
        return len(ids)

    return _repeat(database, work)


def _delete_rejected(connection: Connection, cutoff_ms: int) -> int:
    old = (
        select(rejected_message.c.mid)
        .where(rejected_message.c.received_at < from_ms(cutoff_ms))
        .limit(ROWS_PER_DELETE)
    )
    return connection.execute(delete(rejected_message).where(rejected_message.c.mid.in_(old))).rowcount


def _delete_reconciliations(connection: Connection, cutoff_ms: int) -> int:
    old = select(reconciliation.c.run_id).where(reconciliation.c.began_at < cutoff_ms).limit(ROWS_PER_DELETE)
    ids = connection.scalars(old).all()
    connection.execute(delete(reconciliation_part).where(reconciliation_part.c.run_id.in_(ids)))
    return connection.execute(delete(reconciliation).where(reconciliation.c.run_id.in_(ids))).rowcount


def _delete_imports(database: Database, cutoff_ms: int) -> int:
    old = select(imports.c.id).where(imports.c.created_at < from_ms(cutoff_ms))
    key = tuple_(import_row.c.import_id, import_row.c.number)
    some = select(*key.clauses).where(import_row.c.import_id.in_(old)).limit(ROWS_PER_DELETE)
    _repeat(database, lambda c: c.execute(delete(import_row).where(key.in_(some))).rowcount)
    empty = old.where(~select(import_row).where(import_row.c.import_id == imports.c.id).exists())
    return database.run(lambda c: c.execute(delete(imports).where(imports.c.id.in_(empty))).rowcount)


def _repeat(database: Database, work: Callable[[Connection], int]) -> int:
    total = 0
    for _ in range(MAX_DELETES):
        removed = database.run(work)
        total += removed
        if removed < ROWS_PER_DELETE:
            break
    return total
