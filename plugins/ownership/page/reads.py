"""The ledger as the page reads it: by the tables' own keys, a page at a time, with bounds that are told.

Every walk is newest first. It ends when it has what a page shows, or has looked at `MOST_LOOKED` events or
`MOST_HOURS` hours: whoever looks at the page is told how far back it has looked, and may go on from there.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ownership.chunks import chunks
from ownership.cql import Cql, some_keys
from ownership.errors import SettingsError
from ownership.events import MAX_CLOCK_DRIFT_MS, OrderKey, Transfer, folded, with_follow_ups
from ownership.ledger import HOUR_MS
from ownership.open_list import OpenRow, open_row
from ownership.options import Options
from ownership.plan import BatchId
from ownership.reconcile.report import Report
from ownership.reconcile.store import Reconciliations
from ownership.schema import BY_HOUR, BY_RUN, BY_USER, CHANGE, EVENT, OPEN, QUEUE
from ownership.states import OPEN_STATES

PER_PAGE = 50
"""Transfers, and batches, on one page."""
MOST_LOOKED = 1000
"""Events that one page looks at for its counts by state."""
MOST_SOUGHT = 5000
"""Events that one page looks at to find those of a wanted state."""
MOST_HOURS = 24 * 31
"""Hours that one page walks back through."""
HOURS_AT_ONCE = 24
MOST_OPEN = 2000
"""Open events that are counted; more are told as more."""
MOST_EARLIER = 500
"""Rows of the open list before an event, in which what it waits for is looked for."""
MOST_NEAR = 100
"""Events of a user before and after one, among which the rest of its lane and its undos are looked for."""
MOST_LANE = 50
"""Events of a lane that are shown."""
MOST_PROGRESS = 10_000
"""Rows of the audit trail that are read to tell how far a transfer is."""
LEAST_OF_BUCKET = 100
OPEN_EVENTS = "open"
"""The filter that stands for every open state."""

_LIGHT = "mid, state, run_id, plan_of, from_user, to_user, options, t, kafka_partition, kafka_offset"
_LINE = (
    "mid, state, reason, source, from_user, to_user, organisation_id, requested_by, run_id, counts, t, "
    "kafka_partition, kafka_offset, kafka_ms, received_at, completed_at, ended_at, options, late, attempts, "
    "plan_of, buckets"
)
_KEY = "t, kafka_partition, kafka_offset, mid"
_DESCENDING = "ORDER BY t DESC, kafka_partition DESC, kafka_offset DESC, mid DESC"


class Cursor(BaseModel):
    """Where a page begins: after this key, in this hour or an earlier one. Made by us, read from an address."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hour: int = Field(0, ge=0, le=2**31)
    t: int | None = Field(None, ge=-(2**63), lt=2**63)
    partition: int = Field(0, ge=-(2**31), lt=2**31)
    offset: int = Field(0, ge=-(2**63), lt=2**63)
    mid: str = Field("", max_length=320)

    @property
    def key(self) -> OrderKey | None:
        """The last key that was shown; None if the page begins with the hour."""
        return None if self.t is None else OrderKey(self.t, self.partition, self.offset, self.mid)

    def text(self) -> str:
        """For an address."""
        packed = json.dumps([self.hour, self.t, self.partition, self.offset, self.mid]).encode()
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")

    @classmethod
    def of(cls, text: str | None) -> Cursor | None:
        """From an address; None for anything that is no cursor."""
        if not text:
            return None
        try:
            values = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            return cls(**dict(zip(("hour", "t", "partition", "offset", "mid"), values, strict=True)))
        except (ValueError, TypeError, ValidationError, RecursionError):
            return None

    @classmethod
    def after(cls, key: OrderKey, hour: int = 0) -> Cursor:
        """What comes after `key`."""
        return cls(hour=hour, t=key.t, partition=key.partition, offset=key.offset, mid=key.mid)


class Wanted(NamedTuple):
    """What the list shall show. Times in epoch ms; `before` is not included."""

    user: str = ""
    state: str = ""
    run_id: str = ""
    since_ms: int | None = None
    before_ms: int | None = None
    cursor: Cursor | None = None

    @property
    def states(self) -> tuple[str, ...]:
        """The states that are wanted; all if empty."""
        return OPEN_STATES if self.state == OPEN_EVENTS else (self.state,) if self.state else ()


class Found(NamedTuple):
    """An event on the walk: its key, the hour of its message, and what decides whether it is shown."""

    key: OrderKey
    hour: int
    at_ms: int


class Listed(NamedTuple):
    """One page of the list."""

    rows: list[Any]
    """Columns of `_LINE`."""
    states: Counter[str]
    """Of everything that was looked at."""
    looked: int
    from_ms: int | None
    """Time of the oldest moment that was looked at; None for a list that time does not bound."""
    to_ms: int | None
    cursor: Cursor | None
    """Where to go on; None at the end."""


class OpenNow(NamedTuple):
    """The open list as it is."""

    events: int
    waiting: int
    """Of those, that await an approval."""
    more: bool
    """True if there are more than were counted."""


class BatchChange(NamedTuple):
    """What an event did to a batch: its plan row and its images, oldest first, as the ledger has them."""

    id: BatchId
    plan: Any | None
    images: list[Any]


class Changed(NamedTuple):
    """One page of an event's changes."""

    batches: list[BatchChange]
    cursor: tuple[int, str, str] | None
    """Bucket, course and batch after which to go on; None at the end."""


class Progress(NamedTuple):
    """How far the batches of an event are; of those that were looked at, if `sampled`."""

    planned: int
    moved: int
    proven: int
    sampled: bool


class Reads:
    """Bounded reads of the ledger."""

    def __init__(self, cql: Cql, keyspace: str, *, retention_days: int) -> None:
        self._cql = cql
        self._retention_ms = retention_days * 24 * HOUR_MS
        self._event = f"{keyspace}.{EVENT}"
        self._by_hour = f"{keyspace}.{BY_HOUR}"
        self._by_user = f"{keyspace}.{BY_USER}"
        self._by_run = f"{keyspace}.{BY_RUN}"
        self._change = f"{keyspace}.{CHANGE}"
        self._open = f"{keyspace}.{OPEN}"
        self._reconciliations = Reconciliations(cql, keyspace)

    def reconciliations(self, most: int) -> list[Report]:
        """The reports of the last runs, the newest first; none if the ledger is older than reconciliations are."""
        try:
            return self._reconciliations.last(most)
        except SettingsError:
            return []

    # -- the list ------------------------------------------------------------------------------------------

    def page(self, wanted: Wanted, *, now_ms: int) -> Listed:
        """One page of what is wanted, newest first."""
        walk = _Walk(wanted, now_ms)
        for some in self._keys(wanted, walk):
            states = {r.mid: r for r in self._events("mid, state, run_id", [f.key.mid for f in some])}
            for found in some:
                walk.take(found, states.get(found.key.mid))
            if walk.enough:
                break
        lines = {r.mid: r for r in self._events(_LINE, [f.key.mid for f in walk.shown])}
        rows = [lines[f.key.mid] for f in walk.shown if f.key.mid in lines]
        return Listed(rows, walk.states, walk.looked, walk.from_ms, walk.to_ms, walk.cursor())

    def open_now(self) -> OpenNow:
        """How many events are open."""
        cql = f"SELECT mid, awaits FROM {self._open} WHERE queue = ? LIMIT {MOST_OPEN + 1}"
        # The partition's static column comes back alone when no row is left.
        rows = [r for r in self._cql.select(cql, (QUEUE,)) if r.mid is not None]
        return OpenNow(
            min(len(rows), MOST_OPEN), sum(r.awaits is not None for r in rows), len(rows) > MOST_OPEN
        )

    def _keys(self, wanted: Wanted, walk: _Walk) -> Iterator[Sequence[Found]]:
        if wanted.run_id:
            return self._of_run(wanted)
        if wanted.user:
            return self._of_user(wanted)
        if wanted.state and set(wanted.states) <= set(OPEN_STATES):
            return self._of_open_list(wanted)
        return self._of_hours(wanted, walk)

    def _of_hours(self, wanted: Wanted, walk: _Walk) -> Iterator[Sequence[Found]]:
        """Hours backwards, some at once where they are empty."""
        # A message may be a little ahead of this clock.
        newest = walk.now_ms // HOUR_MS + 1
        oldest = (walk.now_ms - self._retention_ms) // HOUR_MS
        key: OrderKey | None = None
        if wanted.before_ms is not None and wanted.before_ms // HOUR_MS < newest:
            newest = wanted.before_ms // HOUR_MS
            # The order's time is never further than this from the message's, by which hours are kept.
            key = OrderKey(wanted.before_ms + MAX_CLOCK_DRIFT_MS, 0, 0, "")
        if wanted.since_ms is not None:
            oldest = max(oldest, wanted.since_ms // HOUR_MS)
        hour = newest
        if wanted.cursor:
            hour, key = min(newest, wanted.cursor.hour), wanted.cursor.key
        walk.bounded(wanted.since_ms, wanted.before_ms)
        last = max(oldest, hour - MOST_HOURS + 1)
        at_once = 1
        while hour >= last:
            hours = [hour] if key else list(range(hour, max(last - 1, hour - at_once), -1))
            answers = self._hours(hours, key)
            key = None
            for h, rows in zip(hours, answers, strict=True):
                yield [Found(_key(r), h, r.kafka_ms or r.t) for r in rows]
                if len(rows) > MOST_LOOKED:  # there is more of this hour
                    hour, key = h, _key(rows[-1])
                    break
                walk.passed(h)
                hour = h - 1
            at_once = 1 if any(answers) else min(at_once * 2, HOURS_AT_ONCE)
        if hour >= oldest:
            walk.stopped_at(hour)

    def _hours(self, hours: Sequence[int], key: OrderKey | None) -> list[list[Any]]:
        """The newest of each hour, before `key` if there is one."""
        before = f" AND ({_KEY}) < (?, ?, ?, ?)" if key else ""
        cql = (
            f"SELECT {_KEY}, kafka_ms FROM {self._by_hour} WHERE hour = ?{before} {_DESCENDING} "
            f"LIMIT {MOST_LOOKED + 1}"
        )
        return self._cql.select_each(cql, [(h, *(key or ())) for h in hours])

    def _of_user(self, wanted: Wanted) -> Iterator[Sequence[Found]]:
        low = wanted.since_ms if wanted.since_ms is not None else 0
        high = wanted.before_ms if wanted.before_ms is not None else 2**62
        key = wanted.cursor.key if wanted.cursor else None
        upper = f"({_KEY}) < (?, ?, ?, ?)" if key else "t < ?"
        cql = (
            f"SELECT {_KEY} FROM {self._by_user} WHERE user_id = ? AND {upper} AND {'(t)' if key else 't'} >= "
            f"{'(?)' if key else '?'} {_DESCENDING} LIMIT {_limit(wanted)}"
        )
        values = (folded(wanted.user), *(key or (high,)), low)
        yield from chunks([Found(_key(r), 0, r.t) for r in self._cql.select(cql, values)], MOST_LOOKED)

    def _of_open_list(self, wanted: Wanted) -> Iterator[Sequence[Found]]:
        key = wanted.cursor.key if wanted.cursor else None
        before = f" AND ({_KEY}) < (?, ?, ?, ?)" if key else ""
        cql = f"SELECT {_KEY} FROM {self._open} WHERE queue = ?{before} {_DESCENDING} LIMIT {_limit(wanted)}"
        rows = self._cql.select(cql, (QUEUE, *(key or ())))
        yield from chunks([Found(_key(r), 0, r.t) for r in rows if r.mid is not None], MOST_LOOKED)

    def _of_run(self, wanted: Wanted) -> Iterator[Sequence[Found]]:
        """What a run holds or has planned: by mid, because that is how its table is kept."""
        after = wanted.cursor.mid if wanted.cursor else ""
        cql = f"SELECT mid FROM {self._by_run} WHERE run_id = ? AND mid > ? LIMIT {_limit(wanted)}"
        mids = {r.mid for r in self._cql.select(cql, (wanted.run_id, after))}
        held = f"SELECT mid, holder FROM {self._open} WHERE queue = ? LIMIT {MOST_OPEN}"
        rows = [r for r in self._cql.select(held, (QUEUE,)) if r.mid is not None]
        mids |= {r.mid for r in rows if r.holder == wanted.run_id and r.mid > after}
        yield from chunks([Found(OrderKey(0, 0, 0, mid), 0, 0) for mid in sorted(mids)], MOST_LOOKED)

    # -- one event -----------------------------------------------------------------------------------------

    def event(self, mid: str) -> Any | None:
        """An event's whole row, None if there is none."""
        return next(iter(self._cql.select(f"SELECT * FROM {self._event} WHERE mid = ?", (mid,))), None)

    def queued(self, key: OrderKey) -> OpenRow | None:
        """Its row in the open list."""
        cql = (
            f"SELECT * FROM {self._open} WHERE queue = ? AND t = ? AND kafka_partition = ? AND kafka_offset = ? "
            "AND mid = ?"
        )
        rows = [r for r in self._cql.select(cql, (QUEUE, *key)) if r.mid is not None]
        return open_row(rows[0]) if rows else None

    def waits_for(self, transfer: Transfer) -> str | None:
        """Mid of the nearest earlier open event that shares a user with `transfer`."""
        cql = (
            f"SELECT {_KEY}, from_user, to_user FROM {self._open} WHERE queue = ? AND ({_KEY}) < (?, ?, ?, ?) "
            f"{_DESCENDING} LIMIT {MOST_EARLIER}"
        )
        for r in self._cql.select(cql, (QUEUE, *transfer.key)):
            if r.mid is not None and transfer.users & {folded(r.from_user or ""), folded(r.to_user or "")}:
                return str(r.mid)
        return None

    def lane(self, event: Any) -> list[Any]:
        """The events that were planned as one with `event`, in order, itself among them."""
        members = {event.mid: event}
        todo, seen = {folded(event.from_user), folded(event.to_user)}, set[str]()
        while todo and event.plan_of and len(members) < MOST_LANE:
            seen |= todo
            mids = self._near(todo, _key(event)) - set(members)
            found = [
                r
                for r in self._events(_LIGHT, sorted(mids))
                if r.run_id == event.run_id and set(r.plan_of or ()) & set(event.plan_of)
            ]
            members |= {r.mid: r for r in found}
            todo = {folded(u) for r in found for u in (r.from_user, r.to_user)} - seen
        return sorted(members.values(), key=_key)[:MOST_LANE]

    def followed_by(self, event: Any) -> list[Any]:
        """Events that undo `event`, apply its plan, or finish what its second proof found; in order."""
        users = {folded(event.from_user), folded(event.to_user)}
        mids = {m for m in self._near(users, _key(event)) if m.startswith(("undo:", "execute:"))}
        found = self._events(_LINE, sorted(mids | set(with_follow_ups(event.mid)[1:])))

        def concerns(r: Any) -> bool:
            options = Options.of(r.options)
            return r.mid.startswith(f"{event.mid}+") or event.mid in (options.undo_of, options.plan_of)

        return sorted(filter(concerns, found), key=_key)

    def _near(self, users: Collection[str], key: OrderKey) -> set[str]:
        """Mids of the users' events: the nearest before and after `key`, and the newest of all."""
        mids: set[str] = set()
        for where, order, values in (
            (f"AND ({_KEY}) < (?, ?, ?, ?)", _DESCENDING, key),
            (f"AND ({_KEY}) > (?, ?, ?, ?)", "", key),
            ("", _DESCENDING, ()),
        ):
            cql = f"SELECT mid FROM {self._by_user} WHERE user_id = ? {where} {order} LIMIT {MOST_NEAR}"
            for rows in self._cql.select_each(cql, [(u, *values) for u in sorted(users)]):
                mids |= {r.mid for r in rows}
        return mids

    # -- what it changed -----------------------------------------------------------------------------------

    def changes(self, event: Any, after: tuple[int, str, str] | None, *, most: int = PER_PAGE) -> Changed:
        """One page of the batches that an event concerns, in the audit trail's order."""
        buckets = max(event.buckets or 1, 1)
        bucket, course, batch = after or (0, "", "")
        cql = (
            f"SELECT * FROM {self._change} WHERE mid = ? AND bucket = ? AND (courseid, batchid) > (?, ?) "
            f"LIMIT {most * 4}"
        )
        found: list[BatchChange] = []
        while bucket < buckets:
            rows = self._cql.select(cql, (event.mid, bucket, course, batch))
            some = _by_batch(rows)
            whole = len(rows) < most * 4
            if not whole and len(some) > 1:
                some.pop()  # the rest of its rows may be beyond the limit
            found += self._with_plans(event, bucket, some[: most - len(found)])
            if len(found) >= most or not whole:
                last = found[-1].id
                ended = whole and bucket == buckets - 1 and last == some[-1].id
                return Changed(found, None if ended else (bucket, *last))
            bucket, course, batch = bucket + 1, "", ""
        return Changed(found, None)

    def _with_plans(self, event: Any, bucket: int, some: list[BatchChange]) -> list[BatchChange]:
        """The plan of a batch that a chain moves stands under the event that moved it first."""
        lacking = [c for c in some if c.plan is None]
        others = sorted(set(event.plan_of or ()) - {event.mid})[:25]
        if not lacking or not others:
            return some
        cql = (
            f"SELECT * FROM {self._change} WHERE mid IN ? AND bucket = ? AND courseid = ? AND batchid = ? "
            "AND claim_token = 0"
        )
        answers = self._cql.select_each(cql, [(others, bucket, *c.id) for c in lacking])
        plans = {c.id: rows[0] for c, rows in zip(lacking, answers, strict=True) if rows}
        return [c._replace(plan=c.plan or plans.get(c.id)) for c in some]

    def progress(self, event: Any) -> Progress:
        """How many of its planned batches are moved, and proven."""
        buckets = max(event.buckets or 1, 1)
        limit = max(LEAST_OF_BUCKET, MOST_PROGRESS // buckets)
        cql = (
            f"SELECT courseid, batchid, claim_token, outcome, row_at FROM {self._change} "
            f"WHERE mid IN ? AND bucket = ? LIMIT {limit}"
        )
        # Of a chain, the plan stands under the event that comes first.
        mids = sorted({event.mid, *(event.plan_of or ())})[:25]
        answers = self._cql.select_each(cql, [(mids, b) for b in range(min(buckets, MOST_PROGRESS // limit))])
        planned, moved, proven = set[BatchId](), set[BatchId](), set[BatchId]()
        for rows in answers:
            for r in rows:
                batch = BatchId(r.courseid, r.batchid)
                if not r.claim_token:
                    planned.add(batch)
                    if r.outcome is not None:
                        proven.add(batch)
                elif r.row_at is not None:
                    moved.add(batch)
        sampled = any(len(rows) >= limit for rows in answers) or len(answers) < buckets
        return Progress(len(planned), len(planned & (moved | proven)), len(proven), sampled)

    def _events(self, columns: str, mids: Sequence[str]) -> list[Any]:
        cql = f"SELECT {columns} FROM {self._event} WHERE mid IN ?"
        return [r for rows in self._cql.select_each(cql, some_keys(mids)) for r in rows]


class _Walk:
    """What a walk has seen so far, and when it has seen enough."""

    def __init__(self, wanted: Wanted, now_ms: int) -> None:
        self.now_ms = now_ms
        self.shown: list[Found] = []
        self.states: Counter[str] = Counter()
        self.looked = 0
        self.from_ms: int | None = None
        self.to_ms: int | None = None
        self._wanted = wanted
        self._last: Found | None = None
        self._more: Cursor | None = None
        self._since_ms: int | None = None
        self._by_hour = False
        self._cut = False

    @property
    def enough(self) -> bool:
        return self._cut

    def bounded(self, since_ms: int | None, before_ms: int | None) -> None:
        """The walk is by hours, down to `since_ms`."""
        self._by_hour = True
        self.to_ms = before_ms if before_ms is not None else self.now_ms
        if cursor := self._wanted.cursor:
            self.to_ms = cursor.t if cursor.t is not None else (cursor.hour + 1) * HOUR_MS
        self._since_ms = since_ms

    def passed(self, hour: int) -> None:
        """All of an hour was looked at."""
        self.from_ms = max(hour * HOUR_MS, self._since_ms or 0)

    def stopped_at(self, hour: int) -> None:
        """The bound of hours was reached; `hour` was not looked at."""
        self._more = self._more or Cursor(hour=hour)

    def take(self, found: Found, row: Any | None) -> None:
        """Look at one event; those beyond the bounds of the page are left to the next."""
        w = self._wanted
        if self._cut or not self._in_time(found):
            return
        full = len(self.shown) >= PER_PAGE
        if self.looked >= (MOST_SOUGHT if w.states and not full else MOST_LOOKED):
            # Go on after the last that is shown, or, where too few were found, after the last looked at.
            self._cut = True
            last = self.shown[-1] if full else self._last
            self._more = Cursor.after(last.key, last.hour) if last else None
            if self._by_hour and self._last:
                self.from_ms = self._last.at_ms
            return
        self._last = found
        self.looked += 1
        if row is None:  # indexed, and not written yet: whoever accepted it is at it
            return
        self.states[row.state] += 1
        if w.states and row.state not in w.states:
            return
        if full:
            self._more = Cursor.after(self.shown[-1].key, self.shown[-1].hour)
            return
        self.shown.append(found)

    def cursor(self) -> Cursor | None:
        """Where the next page begins."""
        return self._more

    def _in_time(self, found: Found) -> bool:
        w = self._wanted
        if not self._by_hour and not found.at_ms:
            return True
        after = w.since_ms is None or found.at_ms >= w.since_ms
        return after and (w.before_ms is None or found.at_ms < w.before_ms)


def _limit(wanted: Wanted) -> int:
    return (MOST_SOUGHT if wanted.states else MOST_LOOKED) + 1


def _key(r: Any) -> OrderKey:
    return OrderKey(r.t or 0, r.kafka_partition or 0, r.kafka_offset or 0, r.mid)


def _by_batch(rows: Sequence[Any]) -> list[BatchChange]:
    """Rows of one partition, which come batch by batch, the plan row first."""
    found: list[BatchChange] = []
    for r in rows:
        batch = BatchId(r.courseid, r.batchid)
        if not found or found[-1].id != batch:
            found.append(BatchChange(batch, None, []))
        if r.claim_token:
            found[-1].images.append(r)
        else:
            found[-1] = found[-1]._replace(plan=r)
    return found
