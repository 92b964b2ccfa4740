"""Records operations on queue and rows, with begin and end, as lines of JSON: a file for each process.

Times are of the machine's monotonic clock, in ns. A line is in the file before the operation can have an effect: of a
process that is killed then, the operation stays without an end.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

QUEUED = ("fencing_token", "holder", "lease_expires_at")
"""Columns of the queue that are recorded."""


class Recorder:
    """Appends lines to the file of this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, **line: Any) -> None:
        """Append a line. The file is opened anew: a process may have been forked, and the folder emptied."""
        file = os.open(
            self._folder / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, mode=0o644
        )
        try:
            os.write(file, (json.dumps(line) + "\n").encode())
        finally:
            os.close(file)


def _now() -> int:
    return time.monotonic_ns()


def _name(begin: int, n: int = 0) -> str:
    """A name of an operation that no other has."""
    return f"{os.getpid()}.{threading.get_ident()}.{begin}.{n}"


# -- rows --------------------------------------------------------------------------------------------------------


class _Intended(tuple[str, tuple[Any, ...]]):  # noqa: SLOT001  # a tuple has room for attributes only without slots
    """A statement that knows which row it is to change, and how."""

    change: tuple[Any, Any]


def _value(row: Any) -> list[Any]:
    return [row.created_by, list(row.mentors), row.status]


def record_rows(recorder: Recorder, module: ModuleType) -> None:
    """Record reads of rows, and make statements say what they are to change."""
    batches: Any = module.CourseBatches
    read, read_timed, update = batches.read, batches.read_timed, batches._update

    def recorded(ask: Callable[..., Any], row_of: Callable[[Any], Any]) -> Callable[..., Any]:
        def reading(self: Any, ids: Collection[Any]) -> Any:
            begin = _now()
            found = ask(self, ids)
            rows = {i.batch_id: _value(row_of(found[i])) if i in found else None for i in ids}
            recorder.write(kind="read", begin=begin, end=_now(), rows=rows)
            return found

        return reading

    def intended(self: Any, before: Any, after: Any) -> _Intended:
        statement = _Intended(update(self, before, after))
        statement.change = (before, after)
        return statement

    batches.read = recorded(read, lambda row: row)
    batches.read_timed = recorded(read_timed, lambda timed: timed.row)
    batches._update = intended


def record_statements(recorder: Recorder, module: ModuleType) -> None:
    """Record each try of a conditional write, with its answer."""
    batch, execute = module.Cql._batch, module.execute_concurrent
    known = threading.local()

    def remembered(self: Any, statements: Sequence[Any]) -> Any:
        made = batch(self, statements)
        if isinstance(statements[0], _Intended):
            changes = [
                (s.change[0].id.batch_id, _value(s.change[0]), _value(s.change[1])) for s in statements
            ]
            known.__dict__.setdefault("of", {})[id(made)] = (made, changes)
        return made

    def executed(session: Any, statements: Sequence[tuple[Any, Any]], **options: Any) -> Any:
        begin, of = _now(), known.__dict__.get("of", {})
        names = {n: _name(begin, n) for n, (s, _) in enumerate(statements) if id(s) in of}
        for n, name in names.items():
            recorder.write(kind="set", op=name, begin=begin, changes=of[id(statements[n][0])][1])
        results = execute(session, statements, **options)
        for n, name in names.items():
            success, rows = results[n]
            if success:
                applied = all(row[0] for row in rows.current_rows)
                recorder.write(op=name, end=_now(), applied=applied)
        return results

    concurrently = module.Cql._concurrently

    def forgotten(self: Any, statements: list[Any], *more: Any) -> list[Any]:
        try:
            return list(concurrently(self, statements, *more))
        finally:
            known.__dict__.clear()

    module.Cql._batch = remembered
    module.Cql._concurrently = forgotten
    vars(module)["execute_concurrent"] = executed


# -- the queue ---------------------------------------------------------------------------------------------------


class _Step(NamedTuple):
    """A part of a transaction."""

    what: str
    at: int
    of: Any


_transaction = threading.local()
"""`steps` of the transaction that this thread is in."""


def _add(what: str, of: Any) -> None:
    steps: list[_Step] | None = _transaction.__dict__.get("steps")
    if steps is not None:
        steps.append(_Step(what, _now(), of))


def record_transactions(recorder: Recorder, module: ModuleType) -> None:
    """Record each try of a transaction that looks at the queue or writes it: before its commit, and after."""
    once = module.Database._once

    def recorded(self: Any, work: Callable[[Any], Any], statement_ms: int) -> Any:
        begin = _now()
        name, steps = _name(begin), list[_Step]()

        def listened(connection: Any) -> Any:
            _transaction.steps = steps
            try:
                result = work(connection)
            finally:
                _transaction.steps = None
            if steps:
                recorder.write(kind="queue", op=name, begin=begin, steps=steps)
            return result

        result = once(self, listened, statement_ms)
        if steps:
            recorder.write(op=name, end=_now())
        return result

    module.Database._once = recorded


def record_queue(_: Recorder, module: ModuleType) -> None:
    """Note what a transaction sees of the queue and what it writes."""
    queue: Any = module.Queue
    claim, compare = queue.claim, queue._compare
    lock, same, set_, remove = module.lock, module._same_claim, module._set, module.remove

    def claimed(self: Any, decide: Callable[[Any], Any], *, run_id: str, lease_ms: int) -> Any:
        def decided(queued: Sequence[Any]) -> Any:
            choice = decide(queued)
            rows = [(e.mid, e.fencing_token, e.holder, e.lease_expires_ms) for e in queued]
            _add("looked", {"run": run_id, "ms": module.now_ms(), "rows": rows})
            return choice

        return claim(self, decided, run_id=run_id, lease_ms=lease_ms)

    def compared(self: Any, connection: Any, events: Sequence[Any]) -> Any:
        held = compare(self, connection, events)
        _add("fence", {e.mid: (e.fencing_token, e.mid not in held.lost) for e in events})
        return held

    def locked(connection: Any, events: Iterable[Any]) -> Any:
        events = list(events)
        ids = lock(connection, events)
        _add("lock", {e.mid: (e.fencing_token, ids.get(e.mid)) for e in events})
        return ids

    def same_claim(connection: Any, events: Iterable[Any], *conditions: Any) -> Any:
        rows = same(connection, events, *conditions)
        _add("same", {r.mid: r.fencing_token for r in rows})
        return rows

    def written(connection: Any, ids: Collection[int], **columns: Any) -> None:
        set_(connection, ids, **columns)
        of: Mapping[str, Any] = {name: value for name, value in columns.items() if name in QUEUED}
        if ids and of:
            _add("set", {"ids": list(ids), "columns": of})

    def removed(connection: Any, ids: Collection[int]) -> None:
        remove(connection, ids)
        if ids:
            _add("remove", list(ids))

    queue.claim, queue._compare = claimed, compared
    vars(module).update(lock=locked, _same_claim=same_claim, _set=written, remove=removed)


CHANGES: Mapping[str, Callable[[Recorder, ModuleType], None]] = {
    "ownership.ledger.database": record_transactions,
    "ownership.ledger.queue": record_queue,
    "ownership.platform.cassandra": record_statements,
    "ownership.platform.course_batches": record_rows,
}
"""What records, by the module that it changes."""
