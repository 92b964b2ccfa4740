"""Histories of claims and rows, as the job's processes recorded them, and whether they are linearizable.

A key of the queue is an event, a key of the rows is a batch. A conditional batch of several rows counts for each row by
itself: that it is atomic is not checked here.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from chaos.linearizable import Operation, S, explain

Line = Mapping[str, Any]


class Row(NamedTuple):
    """What an edit and a transfer may change in a row."""

    created_by: str | None
    mentors: tuple[str, ...]
    status: int | None


NO_ROW = Row(None, (), None)
"""A row that does not exist."""


class Place(NamedTuple):
    """An event's place in the queue."""

    token: int = 0
    holder: str | None = None
    lease_ms: int = 0


GONE = Place(-1)
"""Of an event that is final."""

Rows = dict[str, list[Operation[Row]]]
Places = dict[str, list[Operation[Place]]]


@dataclass
class Verdict:
    """What is wrong with the histories of a round."""

    operations: int = 0
    unknown: int = 0
    """Operations of which no process knows whether they took effect."""
    violations: list[str] = field(default_factory=list)

    def add(self, what: str, first: S, operations: Sequence[Operation[S]]) -> None:
        """Take in the history of one key, which begins with the value `first`."""
        self.operations += len(operations)
        self.unknown += sum(o.end is None for o in operations)
        if stuck := explain(first, operations):
            self.violations.append(f"{what} is not linearizable: {stuck}")


class Writes:
    """Records plain writes of rows, those of the LMS."""

    def __init__(self) -> None:
        self.operations: Rows = defaultdict(list)

    @contextmanager
    def plainly(self, batch: str, columns: Mapping[str, Any] | None) -> Iterator[None]:
        """A plain write of these columns, or the deletion of the row; its effect is unknown after an exception."""
        begin, end = time.monotonic_ns(), None
        try:
            yield
            end = time.monotonic_ns()
        finally:
            text = f"the LMS writes {dict(columns)}" if columns else "the LMS deletes it"
            self.operations[batch].append(Operation(begin, end, partial(_edited, columns), text))


def take(folder: Path) -> list[Line]:
    """The lines of all processes; the files are deleted."""
    lines: list[Line] = []
    for file in sorted(folder.glob("*.jsonl")):
        text = file.read_text()
        file.unlink()
        whole = (line for line in text.splitlines(keepends=True) if line.endswith("\n"))
        lines += map(json.loads, whole)
    return lines


def judge(lines: Sequence[Line], rows: Mapping[str, Row], edits: Rows, mids: Mapping[int, str]) -> Verdict:
    """Whether all histories are linearizable: of rows, by their first values; of events, by their ids in the ledger."""
    ends = {line["op"]: line for line in lines if "kind" not in line}
    by_batch: Rows = defaultdict(list, {b: list(o) for b, o in edits.items()})
    by_mid: Places = defaultdict(list)
    verdict = Verdict()
    for line in lines:
        if line.get("kind") == "read":
            _add_read(line, by_batch)
        elif line.get("kind") == "set":
            _add_set(line, ends.get(line["op"]), by_batch)
        elif line.get("kind") == "queue":
            verdict.violations += _Transaction(line, ends.get(line["op"]), mids).add_to(by_mid)
    for batch, operations in by_batch.items():
        if batch in rows:
            verdict.add(f"the row of {batch}", rows[batch], operations)
    for mid in {*mids.values()} & by_mid.keys():
        verdict.add(f"the place of {mid} in the queue", Place(), by_mid[mid])
    return verdict


# -- rows --------------------------------------------------------------------------------------------------------


def _row(value: Sequence[Any] | None) -> Row:
    return NO_ROW if value is None else Row(value[0], tuple(value[1]), value[2])


def _add_read(line: Line, operations: Rows) -> None:
    for batch, value in line["rows"].items():
        seen = _row(value)
        operations[batch].append(
            Operation(line["begin"], line["end"], partial(_same, seen), f"read {tuple(seen)}", reads=True)
        )


def _add_set(line: Line, end: Line | None, operations: Rows) -> None:
    """A try of a conditional write. One of several rows that was refused says nothing about any of them."""
    applied = bool(end["applied"]) if end else None
    if applied is False and len(line["changes"]) > 1:
        return
    for batch, before, after in line["changes"]:
        old, new = _row(before), _row(after)
        effect = partial(_refused, old) if applied is False else partial(_swapped, old, new)
        answer = {True: "applied", False: "refused", None: "unknown"}[applied]
        text = f"compare-and-set from {tuple(old)} to {tuple(new)}: {answer}"
        ended = end["end"] if end else None
        operations[batch].append(Operation(line["begin"], ended, effect, text, reads=applied is False))


def _same(seen: Any, state: Any) -> Any:
    return state if state == seen else None


def _swapped(old: Row, new: Row, state: Row) -> Row | None:
    return new if state == old else None


def _refused(old: Row, state: Row) -> Row | None:
    return None if state == old else state


def _edited(columns: Mapping[str, Any] | None, state: Row) -> Row:
    if columns is None:
        return NO_ROW
    return Row(
        columns.get("createdby", state.created_by),
        tuple(columns.get("mentors", state.mentors)),
        columns.get("status", state.status),
    )


# -- the queue ---------------------------------------------------------------------------------------------------

Effect = Callable[[Place], Place | None]


class _Transaction:
    """A transaction that looked at the queue or wrote it.

    What it only looked at was so when it looked. What it locked stayed so until its end, when its writes took effect.
    """

    def __init__(self, line: Line, end: Line | None, mids: Mapping[int, str]) -> None:
        self._begin: int = line["begin"]
        self._steps: Sequence[tuple[str, int, Any]] = line["steps"]
        self._end: int | None = end["end"] if end else None
        self._mids = mids
        self._since: dict[str, int] = {}
        self._effects: dict[str, list[tuple[Effect, str]]] = defaultdict(list)
        self._violations: list[str] = []

    def add_to(self, operations: Places) -> list[str]:
        """Add its operations. Returns events that it took and might not."""
        before, looked = self._begin, dict[str, Any]()
        for what, at, of in self._steps:
            if what == "looked":
                looked = of
                for mid, *seen in of["rows"]:
                    self._read(operations, mid, at, partial(_same, Place(*seen)), f"seen as {tuple(seen)}")
            elif what == "fence":
                for mid, (token, holds) in of.items():
                    words = "holds" if holds else "is lost"
                    self._read(
                        operations, mid, at, partial(_has, token, holds=holds), f"token {token} {words}"
                    )
            elif what == "same":
                for mid, token in of.items():
                    self._read(operations, mid, at, partial(_has, token, holds=True), f"token is {token}")
            elif what == "lock":
                self._lock(operations, at, of)
            elif what == "set":
                self._set(of, before, looked)
            elif what == "remove":
                self._write(of, before, _removed, "final")
            before = at
        for mid, effects in self._effects.items():
            together = partial(_all, [effect for effect, _ in effects])
            text = ", ".join(words for _, words in effects) + ("" if self._end else ": unknown")
            operations[mid].append(Operation(self._since[mid], self._end, together, text))
        return self._violations

    def _read(self, operations: Places, mid: str, at: int, effect: Effect, text: str) -> None:
        operations[mid].append(Operation(self._begin, at, effect, text, reads=True))

    def _lock(self, operations: Places, at: int, of: Mapping[str, tuple[int, int | None]]) -> None:
        written = {i for what, _, of_it in self._steps for i in _written(what, of_it)}
        for mid, (token, event_id) in of.items():
            effect: Effect = partial(_has, token, holds=event_id is not None)
            text = f"token {token} {'locked' if event_id is not None else 'is lost'}"
            if event_id in written:
                self._since[mid] = self._begin
                self._effects[mid].append((effect, text))
            else:
                self._read(operations, mid, at, effect, text)

    def _set(self, of: Mapping[str, Any], before: int, looked: Mapping[str, Any]) -> None:
        columns = of["columns"]
        self._write(of["ids"], before, partial(_written_to, columns), f"set {columns}")
        if not looked or "fencing_token" not in columns:
            return
        taken = {self._mids.get(i) for i in of["ids"]}
        for mid, _, holder, lease_ms in looked["rows"]:
            if mid in taken and holder not in (None, looked["run"]) and lease_ms > looked["ms"]:
                self._violations.append(f"{looked['run']} took {mid} while {holder} held it")

    def _write(self, ids: Iterable[int], before: int, effect: Effect, text: str) -> None:
        for mid in (self._mids[i] for i in ids if i in self._mids):
            self._since.setdefault(mid, before)
            self._effects[mid].append((effect, text))


def _written(what: str, of: Any) -> Collection[int]:
    return of["ids"] if what == "set" else of if what == "remove" else ()


def _has(token: int, state: Place, *, holds: bool) -> Place | None:
    return state if (state.token == token) is holds else None


def _removed(_: Place) -> Place:
    return GONE


def _written_to(columns: Mapping[str, Any], state: Place) -> Place | None:
    """Tokens only rise. An event that became final meanwhile has no row to write to."""
    if state == GONE:
        return GONE
    token = columns.get("fencing_token", state.token)
    if "fencing_token" in columns and token <= state.token:
        return None
    return Place(
        token, columns.get("holder", state.holder), columns.get("lease_expires_at", state.lease_ms) or 0
    )


def _all(effects: Sequence[Effect], state: Place) -> Place | None:
    now: Place | None = state
    for effect in effects:
        now = effect(now) if now is not None else None
    return now
