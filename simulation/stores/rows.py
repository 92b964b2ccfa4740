"""Cassandra's `course_batch`: what a session of the driver does, in memory.

Conditions are evaluated as they are written in the statement. A conditional write whose answer was lost may take effect
later: before the next conditional write to its partition or the next serial read of it, as a Paxos round that a later
one completes. No other read sees it until then. Of two values of a creator the one with the later write time stays.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from cassandra import ConsistencyLevel, OperationTimedOut

from ownership.domain.plan import BatchId
from simulation.scheduler import Scheduler

STORE = "rows"
KEYSPACE, TABLE = "sunbird_courses", "course_batch"
COLUMNS = ("courseid", "batchid", "name", "createdby", "mentors", "status", "createdfor")

_LEVELS = {
    "consistency_level": ConsistencyLevel.LOCAL_QUORUM,
    "serial_consistency_level": ConsistencyLevel.LOCAL_SERIAL,
}

RowValues = dict[str, Any]


class Written(NamedTuple):
    """A change of a row that the job made."""

    id: BatchId
    before: RowValues
    """Empty if there was no row."""
    after: RowValues
    by: str
    """Name of the actor that sent it."""
    late: bool
    """True if it took effect after its sender had given it up."""


@dataclass
class Statement:
    """A prepared statement."""

    cql: str
    kind: str
    columns: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    """Columns that are compared; ``EXISTS`` alone for `IF EXISTS`."""
    many: bool = False
    """True if courses and batches are lists."""
    column_metadata: tuple[()] = ()

    def bind(self, values: Sequence[Any]) -> Bound:
        """The statement with its values."""
        return Bound(self, tuple(values))


class Bound(NamedTuple):
    """A statement with its values."""

    statement: Statement
    values: tuple[Any, ...]


class Batch(list[Bound]):
    """Conditional statements that apply together or not at all."""

    def __init__(self, _: object = None) -> None:
        super().__init__()

    def add(self, statement: Bound) -> None:
        """One statement more."""
        self.append(statement)


@cache
def prepared(cql: str) -> Statement:
    """A statement, taken apart. Knows the forms that the job writes, and no others."""
    if " FROM system_schema.columns " in cql:
        return Statement(cql, "schema")
    if re.fullmatch(r"SELECT batchid FROM \S+ WHERE courseid = \? LIMIT 1", cql):
        return Statement(cql, "select")
    if match := re.fullmatch(r"SELECT (.+) FROM \S+ WHERE courseid (=|IN) \? AND batchid (?:=|IN) \?", cql):
        return Statement(cql, "select", tuple(match[1].split(", ")), many=match[2] == "IN")
    match = re.fullmatch(r"UPDATE \S+ SET (.+) WHERE courseid = \? AND batchid = \?(?: IF (.+))?", cql)
    if match is None:
        raise ValueError(f"unknown statement: {cql}")
    conditions = tuple(c.removesuffix(" = ?") for c in match[2].split(" AND ")) if match[2] else ()
    return Statement(cql, "update", sets=tuple(match[1].split(", ")), conditions=conditions)


@dataclass
class Rows:
    """The table, and the sessions to it."""

    scheduler: Scheduler
    table: dict[BatchId, RowValues] = field(default_factory=dict)
    written_us: dict[BatchId, int] = field(default_factory=dict)
    """Write time of each creator."""
    pending: dict[str, list[tuple[Sequence[Bound], str]]] = field(default_factory=lambda: defaultdict(list))
    """By course, conditional writes without an answer, which may still take effect."""
    job_writes: list[Written] = field(default_factory=list)
    on_write: Callable[[Written], None] = lambda _: None

    # -- the driver's session ------------------------------------------------------------------------------

    def session(self) -> Any:
        """A session of the driver, as far as the job uses it."""
        return SimpleNamespace(
            prepare=prepared,
            cluster=SimpleNamespace(metadata=SimpleNamespace(partitioner="Murmur3Partitioner")),
            execution_profile_clone_update=lambda _, **updates: SimpleNamespace(**(_LEVELS | updates)),
        )

    def execute_concurrent(
        self, _session: Any, statements: Iterable[tuple[Any, Any]], *, execution_profile: Any, **_options: Any
    ) -> list[tuple[bool, Any]]:
        """As the driver's: outcomes in the order of the statements, each a call of its own."""
        serial = ConsistencyLevel.is_serial(execution_profile.consistency_level)
        return [self._outcome(s, serial=serial) for s, _ in statements]

    def _outcome(self, statement: Bound | Batch, *, serial: bool) -> tuple[bool, Any]:
        try:
            return True, self._execute(statement, serial=serial)
        except OperationTimedOut as e:
            return False, e

    def _execute(self, statement: Bound | Batch, *, serial: bool) -> list[tuple[Any, ...]]:
        s = self.scheduler
        if isinstance(statement, Bound) and statement.statement.kind == "schema":
            return [(name, "list<text>" if name in ("mentors", "createdfor") else "text") for name in COLUMNS]
        if isinstance(statement, Bound) and statement.statement.kind == "select":
            return s.call(
                STORE,
                "serial read" if serial else "read",
                lambda: self._decided(statement) if serial else self._select(statement),
                OperationTimedOut,
                told=_told_rows,
            )
        batch = [statement] if isinstance(statement, Bound) else list(statement)
        course = _key(batch[0]).course_id
        sender = s.current.name if s.current else ""

        def effect() -> list[tuple[Any, ...]]:
            self.settle(course)
            return [(self._apply(batch, sender, late=False),)]

        return s.call(
            STORE,
            " ".join(f"{_key(b).batch_id} {_told_update(b)}" for b in batch),
            effect,
            OperationTimedOut,
            late=lambda: self.pending[course].append((batch, sender)),
            told=lambda answer: "applied" if answer[0][0] else "refused",
        )

    # -- semantics -----------------------------------------------------------------------------------------

    def settle(self, course: str) -> None:
        """Let the writes of a partition whose answers were lost take effect, as far as they still can."""
        for batch, sender in self.pending.pop(course, ()):
            if self._apply(batch, sender, late=True):
                self.scheduler.remark(f"a write of {sender} to {course}, whose answer was lost, takes effect")

    def _decided(self, bound: Bound) -> list[tuple[Any, ...]]:
        """A serial read; nobody looks at its rows."""
        self.settle(bound.values[0])
        return []

    def _select(self, bound: Bound) -> list[tuple[Any, ...]]:
        first, second = bound.values
        courses, batches = (first, second) if bound.statement.many else ([first], [second])
        found = []
        for course in courses:
            for batch in batches:
                key = BatchId(course, batch)
                if (row := self.table.get(key)) is not None:
                    found.append(tuple(self._column(key, row, c) for c in bound.statement.columns))
        return found

    def _column(self, key: BatchId, row: RowValues, column: str) -> Any:
        column = column.strip('"')
        if column == "courseid":
            return key.course_id
        if column == "batchid":
            return key.batch_id
        if column == "writetime(createdby)":
            return self.written_us.get(key)
        value = row.get(column)
        return list(value) if isinstance(value, (list, tuple)) else value

    def _apply(self, batch: Sequence[Bound], sender: str, *, late: bool) -> bool:
        if not all(self._holds(b) for b in batch):
            return False
        for b in batch:
            key = _key(b)
            before = self.table.get(key)
            after = self._updated(key, dict(before or {}), b)
            self.table[key] = after
            if after != before:
                written = Written(key, dict(before or {}), dict(after), sender, late)
                self.job_writes.append(written)
                self.on_write(written)
        return True

    def _holds(self, b: Bound) -> bool:
        row = self.table.get(_key(b))
        conditions = b.statement.conditions
        if conditions == ("EXISTS",):
            return row is not None
        values = b.values[len(b.values) - len(conditions) :] if conditions else ()
        # A row that is not there has null in each column.
        return all(
            ((row or {}).get(c) or None) == (v or None) if c == "mentors" else (row or {}).get(c) == v
            for c, v in zip(conditions, values, strict=True)
        )

    def _updated(self, key: BatchId, row: RowValues, b: Bound) -> RowValues:
        values = iter(b.values)
        now_us = self.scheduler.now_ms * 1000
        for assignment in b.statement.sets:
            if assignment == "createdby = ?":
                value = next(values)
                if self.written_us.get(key, 0) <= now_us:
                    row["createdby"], self.written_us[key] = value, now_us
            elif assignment == "mentors[?] = ?":
                n, value = next(values), next(values)
                mentors = list(row.get("mentors") or ())
                if value is None:
                    del mentors[n]
                elif n < len(mentors):
                    mentors[n] = value
                row["mentors"] = mentors or None
            else:
                row["mentors"] = [*(row.get("mentors") or ()), *next(values)]
        return row


def _key(b: Bound) -> BatchId:
    n = len(b.statement.conditions) if b.statement.conditions != ("EXISTS",) else 0
    course, batch = b.values[len(b.values) - n - 2 : len(b.values) - n]
    return BatchId(course, batch)


def _told_update(b: Bound) -> str:
    count = sum(a.count("?") for a in b.statement.sets)
    return "/".join(str(v) for v in b.values[:count])


def _told_rows(rows: Sequence[tuple[Any, ...]]) -> str:
    return "; ".join(f"{r[1]} {r[2]} {','.join(r[3] or ())}" if len(r) > 3 else str(r[1]) for r in rows)
