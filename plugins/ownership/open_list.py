"""The queue: every event that is not final, in one partition, claimed oldest first.

Rows are added and claimed by conditional batches on the partition's `version`; everything else
is conditional on the row's own claim token. So two runs never hold the same event, and a
holder whose claim was taken over can no longer write.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from ownership.chunks import chunks
from ownership.cql import Conditional, Cql, Statement
from ownership.errors import Unavailable
from ownership.events import OrderKey, Transfer
from ownership.schema import OPEN, QUEUE

ROWS_PER_BATCH = 100
"""Rows in one conditional batch on the open list."""
ORPHAN_MS = 10 * 60 * 1000
"""A row whose event was not written within this time no longer blocks others."""
_ROUNDS = 50
"""Lost races in a row before a claim gives up; each means that somebody else made progress."""

T = TypeVar("T")

_KEY = "queue = ? AND t = ? AND kafka_partition = ? AND kafka_offset = ? AND mid = ?"


class OpenRow(NamedTuple):
    """An event in the queue. Times in epoch ms; token 0 was never claimed."""

    transfer: Transfer
    accepted_ms: int
    token: int = 0
    holder: str | None = None
    until_ms: int = 0
    next_try_ms: int = 0
    done: bool = False
    awaits: str | None = None
    """What somebody must give before it goes on (an approval); `next_try_ms` is until when it waits."""

    @property
    def key(self) -> OrderKey:
        """Place in the queue."""
        return self.transfer.key


class Held(NamedTuple):
    """An event as its holder knows it."""

    transfer: Transfer
    token: int

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid


@dataclass
class Choice:
    """What a claim may take, and why it may not take the rest."""

    take: list[OpenRow] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    """Reason by mid of every event that stays in the queue."""
    left: list[OpenRow] = field(default_factory=list)
    """Rows that the run itself holds and cannot take."""
    young_until_ms: int = 0
    """When the last event that is only too young will be old enough; 0 if there is none."""


def choose(
    rows: Iterable[OpenRow],
    *,
    run_id: str,
    now_ms: int,
    judged_ms: int,
    grace_ms: int,
    most: int,
    patient: bool = True,
    mine: Collection[OrderKey] = (),
    orphans: Collection[str] = (),
    only: Collection[str] | None = None,
) -> Choice:
    """Walk the queue in key order and decide what `run_id` may claim. Pure.

    `judged_ms` is the clock taken before the watermarks were read: whoever is older than the
    grace by it cannot be preceded by a message that this run has not read. A `patient` run leaves
    failed events alone until their next try is due. `mine` was taken in this claim already;
    `orphans` are mids whose event row does not exist yet; `only` are the mids that are wanted, if not all.
    """
    choice = Choice()
    busy: dict[str, str] = {}
    for row in sorted(rows):
        mid, users = row.transfer.mid, row.transfer.users
        if row.key in mine:
            continue
        reason = _busy(row, run_id, now_ms, patient=patient)
        if not reason and mid in orphans:
            if now_ms - row.accepted_ms > ORPHAN_MS:
                choice.waits[mid] = "has no event row: whoever accepted it died; send it again"
                continue
            reason = "is being accepted"
        if not reason and (blocker := next((busy[u] for u in sorted(users) if u in busy), None)):
            reason = f"waits for {blocker}"
        if not reason and only is not None and mid not in only:
            reason = "is left to another run"
        if not reason and judged_ms - row.accepted_ms < grace_ms:
            reason = "is too young"
            choice.young_until_ms = max(choice.young_until_ms, row.accepted_ms + grace_ms)
        if not reason and len(choice.take) >= most:
            reason = "waits for a later run: this one has max_events"
        if reason:
            choice.waits[mid] = reason
            busy.update(dict.fromkeys(users, mid))
            if row.holder == run_id:
                choice.left.append(row)
        else:
            choice.take.append(row)
    return choice


def _busy(row: OpenRow, run_id: str, now_ms: int, *, patient: bool) -> str:
    """Why nobody else may take the event now, empty if they may."""
    if row.done:
        return "is being completed"
    if row.holder and row.holder != run_id and row.until_ms > now_ms:
        return f"is held by run {row.holder}"
    if row.awaits and row.next_try_ms > now_ms:
        return f"awaits {row.awaits}"
    if patient and row.next_try_ms > now_ms and row.holder != run_id:
        return f"failed and is tried again in {(row.next_try_ms - now_ms) / 1000:.0f} s"
    return ""


def at_work(rows: Iterable[OpenRow], *, now_ms: int, lives_ms: int) -> set[str]:
    """Runs that hold events and work on them. Pure.

    A claim that outlives a claim's life (`lives_ms`) is kept for a retry that is not due yet.
    """
    return {r.holder for r in rows if r.holder and not r.done and now_ms < r.until_ms <= now_ms + lives_ms}


class OpenList:
    """The rows of `transfer_open`."""

    def __init__(self, cql: Cql, keyspace: str) -> None:
        self._cql = cql
        self._table = f"{keyspace}.{OPEN}"

    def read(self, *, serial: bool = True) -> tuple[int, list[OpenRow]]:
        """The queue's version and rows, in order."""
        rows = self._cql.select(f"SELECT * FROM {self._table} WHERE queue = ?", (QUEUE,), serial=serial)
        version = next((r.version for r in rows), None) or 0
        # A partition without rows still answers with its static column.
        return version, [open_row(r) for r in rows if r.mid is not None]

    def add(self, rows: Sequence[OpenRow]) -> None:
        """Put rows into the queue; those that are there already stay as they are.

        :raises Unavailable: if others keep changing the queue.
        """
        todo = {r.key: r for r in rows}
        for _ in range(_ROUNDS):
            version, there = self.read()
            for row in there:
                todo.pop(row.key, None)
            while todo:
                some = list(todo.values())[:ROWS_PER_BATCH]
                insert = (
                    f"INSERT INTO {self._table} (queue, t, kafka_partition, kafka_offset, mid, from_user, "
                    "to_user, accepted_ms, claim_token, holder, until_ms, next_try_ms, done) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                )
                answer = self._bump(
                    version,
                    [
                        (
                            insert,
                            (
                                *_bound(r.key),
                                r.transfer.from_user,
                                r.transfer.to_user,
                                r.accepted_ms,
                                r.token,
                                r.holder,
                                r.until_ms,
                                r.next_try_ms,
                                r.done,
                            ),
                        )
                        for r in some
                    ],
                )
                if not answer.applied:
                    break
                version += 1
                for r in some:
                    del todo[r.key]
            if not todo:
                return
        raise Unavailable("open list", "others keep changing it")

    def claim(self, rows: Sequence[OpenRow], version: int, *, run_id: str, lives_ms: int) -> list[Held]:
        """Take `rows` as they were read at `version`, in order, each for `lives_ms` from its taking.

        Returns what was taken: all of it, or the first part if somebody else came between
        (then read and choose again).
        """
        taken: list[Held] = []
        for some in chunks(rows, ROWS_PER_BATCH):
            token = version + 1
            update = (
                f"UPDATE {self._table} SET claim_token = ?, holder = ?, until_ms = ? "
                f"WHERE {_KEY} IF claim_token = ?"
            )
            until_ms = int(time.time() * 1000) + lives_ms
            answer = self._bump(
                version, [(update, (token, run_id, until_ms, *_bound(r.key), r.token)) for r in some]
            )
            if not answer.applied:
                break
            version = token
            taken += [Held(r.transfer, token) for r in some]
        return taken

    def held(self, events: Sequence[Held]) -> dict[str, OpenRow]:
        """By mid, the rows of those `events` that still carry their token and are not done.

        Read at quorum: a claim is committed at quorum before its holder acts on it.
        """
        tokens = {e.transfer.key: e.token for e in events}
        return {
            key.mid: row
            for key, row in self._rows(tokens).items()
            if row.token == tokens[key] and not row.done
        }

    def renew(self, events: Sequence[Held], *, run_id: str, until_ms: int) -> None:
        """Set how long the claim lives on, where it still is the caller's."""
        cql = f"UPDATE {self._table} SET holder = ?, until_ms = ? WHERE {_KEY} IF claim_token = ?"
        self._while_mine(events, cql, (run_id, until_ms))

    def release(self, events: Sequence[Held], *, next_try_ms: int) -> None:
        """Let go of events, where they still are the caller's; claimable from `next_try_ms` on."""
        cql = (
            f"UPDATE {self._table} SET holder = null, until_ms = 0, next_try_ms = ? "
            f"WHERE {_KEY} IF claim_token = ?"
        )
        self._while_mine(events, cql, (next_try_ms,))

    def park(self, event: Held, *, awaits: str, until_ms: int) -> None:
        """Let go of an event that waits for somebody, until `until_ms` at most."""
        cql = (
            f"UPDATE {self._table} SET holder = null, until_ms = 0, awaits = ?, next_try_ms = ? "
            f"WHERE {_KEY} IF claim_token = ?"
        )
        self._while_mine([event], cql, (awaits, until_ms))

    def unpark(self, event: Held) -> None:
        """Let an event that waited go on."""
        cql = (
            f"UPDATE {self._table} SET holder = null, until_ms = 0, awaits = null, next_try_ms = 0 "
            f"WHERE {_KEY} IF claim_token = ?"
        )
        self._while_mine([event], cql, ())

    def mark_done(self, events: Sequence[Held]) -> bool:
        """Mark all of `events` done, or none: the commit of a phase. False if one was taken over."""
        cql = f"UPDATE {self._table} SET done = true WHERE {_KEY} IF claim_token = ?"
        return self._batch([(cql, (*_bound(e.transfer.key), e.token)) for e in events]).applied

    def remove(self, rows: Sequence[Held]) -> None:
        """Take final events out of the queue, where the token is still the one given."""
        self._while_mine(rows, f"DELETE FROM {self._table} WHERE {_KEY} IF claim_token = ?", ())

    def _rows(self, keys: Iterable[OrderKey]) -> dict[OrderKey, OpenRow]:
        cql = f"SELECT * FROM {self._table} WHERE queue = ? AND (t, kafka_partition, kafka_offset, mid) IN ?"
        found: dict[OrderKey, OpenRow] = {}
        for some in self._cql.select_each(
            cql, [(QUEUE, list(k)) for k in chunks(list(keys), ROWS_PER_BATCH)]
        ):
            found |= {row.key: row for row in map(open_row, some)}
        return found

    def _while_mine(self, events: Sequence[Held], cql: str, values: tuple[object, ...]) -> None:
        """A conditional write of each event's row; rows of others are left alone."""

        def statements(some: Iterable[Held]) -> list[Statement]:
            return [(cql, (*values, *_bound(e.transfer.key), e.token)) for e in some]

        for some in chunks(list(events), ROWS_PER_BATCH):
            if self._batch(statements(some)).applied or len(some) == 1:
                continue
            # One row of the batch is somebody else's: row by row it is only that one that stays.
            for event in some:
                self._cql.conditional(*statements([event])[0])

    def _bump(self, version: int, statements: list[Statement]) -> Conditional:
        bump = f"UPDATE {self._table} SET version = ? WHERE queue = ? IF version = ?"
        return self._batch([(bump, (version + 1, QUEUE, version)), *statements])

    def _batch(self, statements: list[Statement]) -> Conditional:
        return self._cql.conditional_batch(statements)


def _bound(key: OrderKey) -> tuple[object, ...]:
    return (QUEUE, *key)


def open_row(r: Any) -> OpenRow:
    """A row of the table, as it was read."""
    key = OrderKey(r.t, r.kafka_partition, r.kafka_offset, r.mid)
    return OpenRow(
        Transfer(key, r.from_user, r.to_user),
        r.accepted_ms or 0,
        r.claim_token or 0,
        r.holder,
        r.until_ms or 0,
        r.next_try_ms or 0,
        bool(r.done),
        r.awaits,
    )
