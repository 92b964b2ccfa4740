"""The inbox over a ledger that binds every value as PostgreSQL's driver does, and keeps nothing.

Columns and types are those of `ledger.schema`, keys and indexes those of the migration; what PostgreSQL would refuse
raises.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar

from psycopg.adapt import PyFormat, Transformer
from sqlalchemy import BigInteger, Column, Insert, Integer, LargeBinary, Select, SmallInteger, Table, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from ownership.domain.clock import now_ms
from ownership.domain.settings import Settings
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.events import Events
from ownership.ledger.schema import metadata
from ownership.platform.dead_letters import DeadLetters
from ownership.stages.inbox import Inbox

T = TypeVar("T")

MAX_INDEX_BYTES = 2704
"""PostgreSQL refuses an entry of a B-tree that has more."""
_ENTRY_BYTES = 8
"""An entry's own head."""
_VALUE_BYTES = 8
"""The head of a value, and what its alignment takes."""
_BITS: dict[type, int] = {SmallInteger: 16, Integer: 32, BigInteger: 64}
_DIALECT = PGDialect_psycopg()
_DUMPERS = Transformer()
_DDL: str = "\n".join(
    statement
    for migration in ("0001_ledger", "0002_imports", "0003_host", "0004_begun", "0005_given")
    for statement in importlib.import_module(f"ownership.ledger.migrations.versions.{migration}").STATEMENTS
)


class Rules(NamedTuple):
    """What the migration demands of a table's rows."""

    needed: set[str]
    """Columns that have no default and may not be null."""
    entries: list[list[str]]
    """The columns of each index and key, with those that an index includes."""

    @classmethod
    def of(cls, table: str) -> Rules:
        """Read from the migration's statements."""
        created = re.search(rf"(?ms)CREATE TABLE {table} \($(.*?)^    \)", _DDL)
        assert created, table
        rules = cls(set(), [])
        for line in created[1].splitlines():
            name = line.split()[0] if line.strip() else ""
            if key := re.search(r"^ +PRIMARY KEY \((.*?)\)", line):
                rules.entries.append(key[1].split(", "))
            elif re.search("PRIMARY KEY|UNIQUE", line):
                rules.entries.append([name])
            if re.search(" PRIMARY KEY| NOT NULL", line) and not re.search(
                r"^ +(PRIMARY|CHECK)| DEFAULT ", line
            ):
                rules.needed.add(name)
        indexes = re.findall(rf"CREATE INDEX \w+ ON {table} \((.*?)\)(?:\s+INCLUDE \((.*?)\))?", _DDL)
        rules.entries.extend([*keys.split(", "), *filter(None, more.split(", "))] for keys, more in indexes)
        return rules


_RULES = {name: Rules.of(name) for name in metadata.tables}


class Binding:
    """Takes what the ledger executes; what PostgreSQL could not store raises."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, Any]]] = []
        self.months_upto = 10**9
        self._ids = count(1)

    def run(self, work: Callable[[Any], T]) -> T:
        """As `Database.run`."""
        return work(self)

    def execute(self, statement: Any, values: Any = ()) -> Any:
        """As SQLAlchemy's connection: nothing is found, everything is inserted."""
        if isinstance(statement, Select):
            return []
        assert isinstance(statement, Insert)
        table = statement.table
        assert isinstance(table, Table)
        rows = [values] if isinstance(values, Mapping) else list(values)
        for row in rows:
            check_row(table, row)
            self.rows.append((table.name, dict(row)))
        return SimpleNamespace(all=lambda: [SimpleNamespace(id=next(self._ids), **row) for row in rows])

    def of(self, table: str) -> list[dict[str, Any]]:
        """Rows that were inserted into a table, by column."""
        return [row for name, row in self.rows if name == table]


def check_row(table: Table, row: Mapping[str, Any]) -> None:
    """Raise if PostgreSQL would refuse the row."""
    assert set(row) <= set(table.c.keys())
    rules = _RULES[table.name]
    for column in table.c:
        if row.get(column.name) is not None:
            _check_value(column, row[column.name])
        else:
            assert column.name not in rules.needed, column.name
    for columns in rules.entries:
        entry = _ENTRY_BYTES + sum(_VALUE_BYTES + _size(row.get(c)) for c in columns)
        assert entry <= MAX_INDEX_BYTES, columns


def _check_value(column: Column[Any], value: Any) -> None:
    process = column.type.dialect_impl(_DIALECT).bind_processor(_DIALECT)
    bound = process(value) if process else value
    raw = bytes(_DUMPERS.get_dumper(bound, PyFormat.AUTO).dump(bound) or b"")
    if isinstance(column.type, JSONB):
        _check_json(raw)
    elif isinstance(column.type, Text):
        assert isinstance(value, str), column.name
    elif isinstance(column.type, LargeBinary):
        assert isinstance(value, bytes), column.name
    elif bits := _BITS.get(type(column.type)):
        assert isinstance(value, int), column.name
        assert -(2 ** (bits - 1)) <= value < 2 ** (bits - 1), column.name


def _check_json(raw: bytes) -> None:
    """`jsonb` keeps texts as they are, so it takes neither NUL nor half a surrogate pair; nor NaN."""
    value = json.loads(raw, parse_constant=_refuse)
    text = json.dumps(value, ensure_ascii=False)
    text.encode("utf-8")
    assert "\\u0000" not in text


def _refuse(constant: str) -> None:
    raise AssertionError(constant)


def _size(value: Any) -> int:
    return len(value.encode("utf-8")) if isinstance(value, str) else 8


class Broker:
    """Confluent's producer, as far as dead letters use it."""

    def __init__(self) -> None:
        self.dead_letters: list[tuple[bytes, list[tuple[str, bytes]]]] = []

    def produce(
        self, _topic: str, *, value: bytes, headers: list[tuple[str, bytes]], on_delivery: Any
    ) -> None:
        assert isinstance(value, bytes)
        assert all(isinstance(k, str) and isinstance(v, bytes) for k, v in headers)
        self.dead_letters.append((value, headers))
        on_delivery(None, self)

    def poll(self, _seconds: float) -> None: ...

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return len(self.dead_letters) - 1


def inbox(database: Binding, broker: Broker, *, clock: Callable[[], int] = now_ms, **settings: Any) -> Inbox:
    """The real inbox, ledger and dead letters over these."""
    return Inbox(
        Events(database),  # type: ignore[arg-type]  # a stand-in
        Arrivals(database),  # type: ignore[arg-type]  # a stand-in
        DeadLetters(broker, "failed"),  # type: ignore[arg-type]  # a stand-in
        Settings.model_validate(settings),
        clock=clock,
    )
