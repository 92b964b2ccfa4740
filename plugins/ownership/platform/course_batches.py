"""Rows of the platform's `course_batch`: read by partition, changed only by compare-and-set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from more_itertools import chunked

from ownership.domain.errors import SettingsError
from ownership.domain.plan import BatchId, Row
from ownership.domain.settings import Settings
from ownership.platform.cassandra import Cql, Statement, StatementRefused
from ownership.platform.ring import TokenRange
from ownership.platform.search_documents import COLUMNS

IDS_PER_READ = 100
"""Batches in one read."""
COURSES_PER_READ = 10
"""Courses in one read: each is looked through for all batches of the read."""


_KEY = "courseid, batchid"
"""The first columns of every read."""
_COLUMNS = f"{_KEY}, createdby, mentors, status, createdfor"
"""What a `Row` is made of."""


class RawRow(NamedTuple):
    """A row as the driver reads it: of a million of them, few are worth a `Row`."""

    courseid: str
    batchid: str
    createdby: str | None
    mentors: list[str] | None
    status: int | None


class TimedRow(NamedTuple):
    """A row, and when its creator was written."""

    row: Row
    created_by_us: int
    """Epoch µs; 0 if the row has no creator."""


class CourseBatches:
    """Reads and conditional writes of `course_batch`."""

    def __init__(self, cql: Cql, keyspace: str, table: str, *, batch_size: int) -> None:
        """`batch_size`: limit on the rows of one conditional batch; with 1 there are no batches."""
        self._cql = cql
        self._keyspace, self._name = keyspace, table
        self._table = f"{keyspace}.{table}"
        self._batch_size = batch_size
        self._row_by_row = False
        """True once the server has refused a read of several rows."""

    def read(self, ids: Collection[BatchId]) -> dict[BatchId, Row]:
        """The rows that exist, with the fields that a transfer reads."""
        rows = self._select(_COLUMNS, ids)
        return {r.id: r for r in map(_row, rows)}

    def decide(self, course_ids: Collection[str]) -> None:
        """Let the changes of these courses be made or ruled out whose answers were lost: then reads tell which."""
        cql = f"SELECT batchid FROM {self._table} WHERE courseid = ? LIMIT 1"
        self._cql.decide(cql, [(c,) for c in course_ids])

    def read_timed(self, ids: Collection[BatchId]) -> dict[BatchId, TimedRow]:
        """The rows that exist, each with the write time of its creator."""
        rows = self._select(f"{_COLUMNS}, writetime(createdby)", ids)
        return {t.row.id: t for t in (TimedRow(_row(r), r[-1] or 0) for r in rows)}

    def read_whole(self, ids: Collection[BatchId]) -> dict[BatchId, dict[str, Any]]:
        """The rows that exist, with the columns that a document is made from, as far as the table has them.

        The columns are named: with `*`, a column that is added while a session lives shifts what it reads. Timestamps
        are ms since the epoch: the driver fails at one beyond the year 9999, and with it the whole read.
        """
        columns = {n: t for n, t in self._cql.columns(self._keyspace, self._name).items() if n in COLUMNS}
        read = [f'toUnixTimestamp("{n}")' if t == "timestamp" else f'"{n}"' for n, t in columns.items()]
        rows = self._select(", ".join((_KEY, *read)), ids)
        return {BatchId(r[0], r[1]): dict(zip(columns, r[2:], strict=True)) for r in rows}

    def pages(self, tokens: TokenRange, *, rows: int) -> Iterator[list[RawRow]]:
        """The rows whose course is in a range of the ring, at most `rows` at a time, as they are now."""
        first = ">=" if tokens.first else ">"
        cql = (
            f"SELECT {', '.join(RawRow._fields)} FROM {self._table} "
            f"WHERE token(courseid) {first} ? AND token(courseid) <= ?"
        )
        for page in self._cql.pages(cql, (tokens.after, tokens.upto), rows=rows):
            yield [RawRow(*r) for r in page]

    def creators_written_ms(self, ids: Collection[BatchId]) -> dict[BatchId, int]:
        """When the creator of each row was written (epoch ms), of the rows that have one."""
        found = self._select(f"{_KEY}, writetime(createdby)", ids)
        return {BatchId(course, batch): us // 1000 for course, batch, us in found if us is not None}

    def compare_and_set(
        self, changes: Sequence[tuple[Row, Row]], *, alone: bool = False
    ) -> list[bool | None]:
        """Change each (before, after) where the row still is `before`, owners and status.

        Rows of one course go together, at most `batch_size`, and apply as a whole or not at all; `alone` changes
        each by itself. `before` must name somebody: a condition on nulls only would create a row that does not
        exist. None means that the last try was not applied, and that an earlier one may have been, whose answer was
        lost or beside which a batch was refused: the row tells. True does not mean that the value changed: one with
        a write time in the future stays.
        """
        try:
            return self._compare_and_set(changes, 1 if alone else self._batch_size)
        except StatementRefused:
            if alone or self._batch_size == 1:
                raise
            # `batch_size_fail_threshold`, a guardrail, or a store without conditional batches. Other groups of this
            # call may have been applied, and are not applied again: the row tells.
            return [applied or None for applied in self._compare_and_set(changes, 1)]

    def _compare_and_set(self, changes: Sequence[tuple[Row, Row]], size: int) -> list[bool | None]:
        by_course: dict[str, list[int]] = defaultdict(list)
        for n, (before, _) in enumerate(changes):
            by_course[before.id.course_id].append(n)
        groups = [g for of_course in by_course.values() for g in chunked(of_course, size)]
        applied = self._cql.conditional_batches([[self._update(*changes[n]) for n in g] for g in groups])
        by_change = {n: done for group, done in zip(groups, applied, strict=True) for n in group}
        return [by_change[n] for n in range(len(changes))]

    def _update(self, before: Row, after: Row) -> Statement:
        sets: list[tuple[str, tuple[Any, ...]]] = []
        if before.created_by != after.created_by:
            sets.append(("createdby = ?", (after.created_by,)))
        if before.mentors != after.mentors:
            sets += _mentor_sets(before.mentors, after.mentors)
        cql = (
            f"UPDATE {self._table} SET {', '.join(name for name, _ in sets)} WHERE courseid = ? AND batchid = ? "
            "IF createdby = ? AND mentors = ? AND status = ?"
        )
        condition = (*before.id, before.created_by, list(before.mentors) or None, before.status)
        return cql, (*(v for _, values in sets for v in values), *condition)

    def _select(self, columns: str, ids: Collection[BatchId]) -> list[tuple[Any, ...]]:
        """The rows of `ids`, many in one read where the server allows it. `columns` begin with the key.

        Cassandra 3.11 refuses two IN relations where a collection is selected, and guardrails (4.1 and later) bound
        them. One refusal is enough: from then on each row is read by itself.
        """
        wanted = {i for i in ids if i.course_id and i.batch_id}  # a stray document may name no course
        select = f"SELECT {columns} FROM {self._table} WHERE"
        if self._row_by_row:
            answers = self._cql.select_each(f"{select} courseid = ? AND batchid = ?", wanted)
        else:
            try:
                answers = self._cql.select_each(f"{select} courseid IN ? AND batchid IN ?", _reads(wanted))
            except StatementRefused:
                self._row_by_row = True
                return self._select(columns, wanted)
        # Courses that are read together may have batches of the same id.
        return [r for rows in answers for r in rows if r[:2] in wanted]


def _reads(ids: Collection[BatchId]) -> Iterator[tuple[list[str], list[str]]]:
    """Courses and their batches, read together: a few small courses, or a part of a large one."""
    by_course: dict[str, list[str]] = defaultdict(list)
    for i in sorted(ids):
        by_course[i.course_id].append(i.batch_id)
    courses: list[str] = []
    batches: list[str] = []
    for course, of_course in by_course.items():
        for part in chunked(of_course, IDS_PER_READ):
            if courses and (len(courses) == COURSES_PER_READ or len(batches) + len(part) > IDS_PER_READ):
                yield courses, batches
                courses, batches = [], []
            courses = [*courses, course]
            batches = [*batches, *part]
    if courses:
        yield courses, batches


def _mentor_sets(before: Sequence[str], after: Sequence[str]) -> list[tuple[str, tuple[Any, ...]]]:
    """Assignments that make the list `after`, each element by itself.

    A list that is assigned as a whole is deleted and written anew. Elements with a write time in the future survive
    the deletion, so that the list would have the old elements beside the new ones.
    """
    changed = [(n, new) for n, (old, new) in enumerate(zip(before, after, strict=False)) if old != new]
    # Null deletes an element. The last ones go first: each deletion moves those behind it.
    deleted = [(n, None) for n in reversed(range(len(after), len(before)))]
    sets: list[tuple[str, tuple[Any, ...]]] = [("mentors[?] = ?", v) for v in (*changed, *deleted)]
    if added := list(after[len(before) :]):
        sets.append(("mentors = mentors + ?", (added,)))
    return sets


def _row(read: tuple[Any, ...]) -> Row:
    course, batch, creator, mentors, status, created_for = read[:6]
    return Row(BatchId(course, batch), creator, tuple(mentors or ()), status, tuple(created_for or ()))


def check_table(cql: Cql, settings: Settings) -> None:
    """Verify that the platform's table is there.

    :raises SettingsError: saying which is missing and what to set.
    """
    columns = cql.columns(settings.keyspace, settings.course_batch_table)
    if not columns and not cql.has_keyspace(settings.keyspace):
        raise SettingsError(
            f"Cassandra has no keyspace '{settings.keyspace}': set 'lms-cassandra.keyspace', "
            "or point Connection 'cassandra_default' to the platform's cluster."
        )
    if not columns:
        raise SettingsError(
            f"Keyspace '{settings.keyspace}' has no table '{settings.course_batch_table}': "
            "set 'lms-cassandra.course_batch.table'."
        )
    missing = {"courseid", "batchid", "createdby", "mentors", "status", "createdfor"} - set(columns)
    if missing:
        raise SettingsError(
            f"Table '{settings.keyspace}.{settings.course_batch_table}' has no column "
            f"{', '.join(sorted(missing))}: it is no course_batch table; set 'lms-cassandra.course_batch.table'."
        )
    # The elements of a frozen list cannot be written by themselves.
    if not columns["mentors"].startswith("list<"):
        raise SettingsError(
            f"Column mentors of table '{settings.keyspace}.{settings.course_batch_table}' is {columns['mentors']}, the "
            "platform's is list<text>: set 'lms-cassandra.course_batch.table' to the platform's own table."
        )
