"""The monthly partitions: made before they are needed, dropped when retention is over."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, delete, func, literal_column, select, text

from ownership.domain.clock import DAY_MS, from_ms, now_ms
from ownership.ledger.database import Database
from ownership.ledger.schema import (
    MONTH_SHIFT,
    PARTITIONED,
    among,
    event,
    event_run,
    host,
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

    Events that are not final stay, with all rows, and so does what they take back or were planned with. An import goes
    after its events, whose pages name it.

    A month is removed when all of it is too old: its partitions are dropped, its events deleted in parts.
    """
    cutoff_ms = now_ms() - retention_days * DAY_MS
    first_kept = month_of(cutoff_ms)
    partitions = database.run(lambda c: _drop_months(c, first_kept))
    events = _repeat(database, lambda c: _delete_events(c, first_kept))
    messages = _delete(database, rejected_message, rejected_message.c.received_at < from_ms(cutoff_ms))
    old = reconciliation.c.began_at < cutoff_ms
    of_old = reconciliation_part.c.run_id.in_(select(reconciliation.c.run_id).where(old))
    _delete(database, reconciliation_part, of_old)
    reconciliations = _delete(database, reconciliation, old)
    mids = import_row.alias("mids")
    brought = select(event.c.id).where(
        mids.c.import_id == imports.c.id, event.c.mid.in_((mids.c.dry_run_mid, mids.c.transfer_mid))
    )
    old = (imports.c.created_at < from_ms(cutoff_ms)) & ~brought.exists()
    _delete(database, import_row, import_row.c.import_id.in_(select(imports.c.id).where(old)))
    empty = ~select(import_row).where(import_row.c.import_id == imports.c.id).exists()
    files = _delete(database, imports, old & empty)
    hosts = _delete(database, host, host.c.seen_at < now_ms() - DAY_MS)
    return Removed(tuple(partitions), events, messages, reconciliations, files, hosts)


def _drop_months(connection: Connection, first_kept: int) -> list[str]:
    lock_schema(connection)
    open_months = _open_months(connection)
    old = [
        n for n, month in _partitions(connection).items() if month < first_kept and month not in open_months
    ]
    for name in old:
        connection.execute(text(f"DROP TABLE {name}"))
    return old


def _open_months(connection: Connection) -> set[int]:
    """The months of the events in the queue, and of the events whose plans and images these read."""
    open_ids = select(queue.c.event_id)
    named = select(func.unnest(event.c.follows.concat(event.c.planned_with))).distinct()
    mids = connection.scalars(named.where(event.c.id.in_(open_ids))).all()
    ids = open_ids.union(select(event.c.id).where(among(event.c.mid, mids)))
    return {i >> MONTH_SHIFT for i in connection.scalars(ids)}


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


def _delete_events(connection: Connection, first_kept: int) -> int:
    """Delete events of months whose partitions are gone: nothing refers to them but the list of their runs."""
    old = select(event.c.id).where(event.c.id < first_kept << MONTH_SHIFT)
    for month in set(_partitions(connection).values()):
        old = old.where(~event.c.id.between(month << MONTH_SHIFT, ((month + 1) << MONTH_SHIFT) - 1))
    ids = connection.scalars(old.order_by(event.c.id).limit(ROWS_PER_DELETE)).all()
    connection.execute(delete(event_run).where(among(event_run.c.event_id, ids)))
    connection.execute(delete(event).where(among(event.c.id, ids)))
    return len(ids)


def _delete(database: Database, table: Table, old: ColumnElement[bool]) -> int:
    """Delete the rows of a table that are old, in parts. Returns how many."""
    place: ColumnElement[Any] = literal_column("ctid")
    some = select(place).select_from(table).where(old).limit(ROWS_PER_DELETE).scalar_subquery()
    statement = delete(table).where(place == func.any(func.array(some)))
    return _repeat(database, lambda c: c.execute(statement).rowcount)


def _repeat(database: Database, work: Callable[[Connection], int]) -> int:
    total = 0
    for _ in range(MAX_DELETES):
        removed = database.run(work)
        total += removed
        if removed < ROWS_PER_DELETE:
            break
    return total
