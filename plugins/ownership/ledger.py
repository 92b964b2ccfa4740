"""The events of the ledger: inbox, state, verdict, and the two listings.

An event's row is inserted once and then changed only by a compare-and-set that carries the
claim's token: a token lower than the row's, or a final state, is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ownership.cql import Cql, Statement, some_keys
from ownership.events import OrderKey, Transfer, folded
from ownership.next_steps import next_conf
from ownership.open_list import Held
from ownership.options import PLAIN, Options
from ownership.schema import BY_HOUR, BY_RUN, BY_USER, EVENT
from ownership.states import (
    ABANDONED,
    AWAITING_APPROVAL,
    COMPLETED,
    DECLINED,
    FAILED,
    FINAL_STATES,
    OPEN_STATES,
    RECEIVED,
    REHEARSED,
    REJECTED,
    SKIPPED,
)

VALID = "valid"

HOUR_MS = 3_600_000

_OPEN = "('" + "', '".join(OPEN_STATES) + "')"


class Origin(NamedTuple):
    """Where an event came from. `kafka_ms` is the broker's timestamp, or the time of a manual start."""

    source: str
    topic: str
    partition: int
    offset: int
    kafka_ms: int


class Arrival(NamedTuple):
    """An event, or a rejected message, on its way into the ledger."""

    mid: str
    origin: Origin
    payload: bytes
    transfer: Transfer | None
    """None for a rejected message."""
    organisation_id: str | None = None
    ets: int | None = None
    rejected_because: str | None = None
    message_mid: str | None = None
    """The `mid` that a rejected message carries, where it can be read."""
    options: Options = PLAIN
    requested_by: str | None = None
    request_reason: str | None = None
    next_conf: str | None = None


class EventRow(NamedTuple):
    """An event as the ledger knows it."""

    mid: str
    state: str
    verdict: str | None
    reason: str | None
    transfer: Transfer | None
    organisation_id: str | None
    source: str
    payload: bytes
    kafka_ms: int
    token: int
    attempts: int
    plan_of: frozenset[str]
    buckets: int
    counts: Mapping[str, int]
    late: bool
    completed_at: datetime | None
    reproved_at: datetime | None
    run_id: str | None
    options: Options
    requested_by: str | None
    request_reason: str | None
    digest: str | None
    report: str | None
    approved_digest: str | None
    awaits_until_ms: int
    next_conf: str | None

    @property
    def final(self) -> bool:
        """True if the state never changes again."""
        return self.state in FINAL_STATES


class Ledger:
    """Rows of `transfer_event` and its listings."""

    def __init__(self, cql: Cql, keyspace: str) -> None:
        self._cql = cql
        self._event = f"{keyspace}.{EVENT}"
        self._by_hour = f"{keyspace}.{BY_HOUR}"
        self._by_user = f"{keyspace}.{BY_USER}"
        self._by_run = f"{keyspace}.{BY_RUN}"

    def read(self, mids: Collection[str]) -> dict[str, EventRow]:
        """The events that exist among `mids`."""
        cql = f"SELECT * FROM {self._event} WHERE mid IN ?"
        # A rejected message may have megabytes: such rows are read one by one.
        large = [([m],) for m in mids if m.startswith("rejected:")]
        small = some_keys(m for m in mids if not m.startswith("rejected:"))
        answers = self._cql.select_each(cql, [*large, *small])
        return {r.mid: _event_row(r) for rows in answers for r in rows}

    def index(self, arrivals: Sequence[Arrival]) -> None:
        """Write the by-hour and by-user rows; may be repeated."""
        hour = (
            f"INSERT INTO {self._by_hour} (hour, t, kafka_partition, kafka_offset, mid, kafka_ms) "
            "VALUES (?, ?, ?, ?, ?, ?)"
        )
        user = (
            f"INSERT INTO {self._by_user} (user_id, t, kafka_partition, kafka_offset, mid, from_user, to_user) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)"
        )
        statements: list[tuple[tuple[str, object], Statement]] = []
        for a in arrivals:
            o = a.origin
            key = a.transfer.key if a.transfer else OrderKey(o.kafka_ms, o.partition, o.offset, a.mid)
            at = o.kafka_ms // HOUR_MS
            statements.append(((hour, at), (hour, (at, *key, o.kafka_ms))))
            if e := a.transfer:
                statements += [((user, u), (user, (u, *key, e.from_user, e.to_user))) for u in e.users]
        self._cql.write(statements)

    def insert(self, arrivals: Sequence[Arrival]) -> dict[str, EventRow]:
        """Insert the events that do not exist. Returns, by mid, those that did exist."""
        cql = (
            f"INSERT INTO {self._event} (mid, state, reason, source, topic, kafka_partition, kafka_offset, "
            "kafka_ms, message_mid, payload, t, ets, from_user, to_user, organisation_id, claim_token, "
            "attempts, received_at, ended_at, options, requested_by, request_reason, next_conf) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) IF NOT EXISTS"
        )
        now = _now()
        answers = self._cql.conditionals(
            (
                cql,
                (
                    a.mid,
                    RECEIVED if a.transfer else REJECTED,
                    a.rejected_because,
                    a.origin.source,
                    a.origin.topic,
                    a.transfer.key.partition if a.transfer else a.origin.partition,
                    a.transfer.key.offset if a.transfer else a.origin.offset,
                    a.origin.kafka_ms,
                    a.message_mid,
                    a.payload,
                    a.transfer.key.t if a.transfer else a.origin.kafka_ms,
                    a.ets,
                    a.transfer.from_user if a.transfer else None,
                    a.transfer.to_user if a.transfer else None,
                    a.organisation_id,
                    0,
                    0,
                    now,
                    None if a.transfer else now,
                    a.options.text(),
                    a.requested_by,
                    a.request_reason,
                    a.next_conf,
                ),
            )
            for a in arrivals
        )
        there = [a.mid for a, answer in zip(arrivals, answers, strict=True) if not answer.applied]
        return self.read(there)

    def later_completed(self, transfers: Iterable[Transfer], users: Collection[str]) -> list[EventRow]:
        """Completed events after the first of `transfers` that reach `users`, directly or by chain."""
        transfers = list(transfers)
        first, own = min(transfers).key, {t.mid for t in transfers}
        cql = (
            f"SELECT t, kafka_partition, kafka_offset, mid, from_user, to_user FROM {self._by_user} "
            "WHERE user_id IN ? AND (t, kafka_partition, kafka_offset, mid) > (?, ?, ?, ?)"
        )
        found: dict[str, EventRow] = {}
        todo, seen = set(users), set[str]()
        while todo:
            seen |= todo
            rows = self._cql.select_each(cql, some_keys(sorted(todo), *first))
            mids = {r.mid for some in rows for r in some} - own - set(found)
            completed = {m: e for m, e in self.read(mids).items() if e.state == COMPLETED}
            found |= completed
            todo = {u for e in completed.values() if e.transfer for u in e.transfer.users} - seen
        return list(found.values())

    def later_than(self, event: EventRow) -> list[EventRow]:
        """Events of the old user of `event` that come after it."""
        if event.transfer is None:
            return []
        cql = (
            f"SELECT mid FROM {self._by_user} "
            "WHERE user_id = ? AND (t, kafka_partition, kafka_offset, mid) > (?, ?, ?, ?)"
        )
        rows = self._cql.select(cql, (event.transfer.source, *event.transfer.key))
        return list(self.read({r.mid for r in rows}).values())

    def given_to(self, users: Collection[str], *, since_ms: int) -> list[EventRow]:
        """Events since `since_ms` (order time) that completed and gave to one of `users`.

        Only those not proven a second time: the index may not show yet what they gave.
        """
        cql = f"SELECT mid, to_user FROM {self._by_user} WHERE user_id IN ? AND t >= ?"
        rows = self._cql.select_each(cql, some_keys(sorted(users), since_ms))
        mids = {r.mid for some in rows for r in some if folded(r.to_user) in users}
        return [e for e in self.read(mids).values() if e.state == COMPLETED and e.reproved_at is None]

    def of_hours(self, start_ms: int, end_ms: int) -> list[str]:
        """Mids of the messages with start <= broker's timestamp < end, in hour order."""
        cql = f"SELECT mid, kafka_ms FROM {self._by_hour} WHERE hour = ?"
        hours = range(start_ms // HOUR_MS, -(-end_ms // HOUR_MS))
        found = self._cql.select_each(cql, [(h,) for h in hours])
        return [r.mid for some in found for r in some if start_ms <= r.kafka_ms < end_ms]

    def of_user(self, user: str, start_ms: int, end_ms: int) -> list[str]:
        """Mids of the events of a user (folded) with start <= order time < end, in event order."""
        cql = f"SELECT mid FROM {self._by_user} WHERE user_id = ? AND t >= ? AND t < ?"
        return [r.mid for r in self._cql.select(cql, (user, start_ms, end_ms))]

    def note_run(self, run_id: str, mids: Collection[str]) -> None:
        """List `mids` under the run that plans or skips them."""
        cql = f"INSERT INTO {self._by_run} (run_id, mid) VALUES (?, ?)"
        self._cql.write((run_id, (cql, (run_id, mid))) for mid in mids)

    def of_run(self, run_id: str) -> list[str]:
        """Mids of the events that a run planned or skipped; another run may have completed them."""
        return [
            r.mid for r in self._cql.select(f"SELECT mid FROM {self._by_run} WHERE run_id = ?", (run_id,))
        ]

    def decide_all(
        self, verdicts: Sequence[tuple[Held, bool, str | None]], *, run_id: str
    ) -> list[str | None]:
        """Record verdicts (event, valid, reason if not), once and for all.

        Returns, in their order, the verdict that stands (an earlier one wins), or None where the
        event is taken over or final.
        """
        cql = (
            f"UPDATE {self._event} SET verdict = ?, claim_token = ?, run_id = ? WHERE mid = ? "
            f"IF verdict = null AND claim_token <= ? AND state IN {_OPEN}"
        )
        wanted = [VALID if valid else f"invalid: {reason}" for _, valid, reason in verdicts]
        answers = self._cql.conditionals(
            (cql, (want, h.token, run_id, h.mid, h.token))
            for want, (h, _, _) in zip(wanted, verdicts, strict=True)
        )
        stands: list[str | None] = []
        for want, (h, _, _), answer in zip(wanted, verdicts, answers, strict=True):
            current = answer.rows[0] if answer.rows else {}
            theirs = (current.get("claim_token") or 0) > h.token or current.get("state") in FINAL_STATES
            if answer.applied:
                stands.append(want)
            else:
                stands.append(None if theirs else current.get("verdict"))
        return stands

    def note(self, events: Sequence[Held], **columns: Any) -> list[bool]:
        """Set columns of open events under their token. False for each that is not the caller's."""
        return self._set([(e, columns) for e in events])

    def note_each(self, events: Sequence[tuple[Held, Mapping[str, Any]]]) -> list[bool]:
        """`note` with columns of its own for each event (the same names for all)."""
        return self._set(events)

    def complete(self, events: Sequence[tuple[Held, Mapping[str, int]]]) -> None:
        """Make events final as `completed`, with their counts, where nobody did so before."""
        now = _now()
        self._set(
            [
                (
                    e,
                    {
                        "state": COMPLETED,
                        "counts": dict(counts),
                        "reason": None,
                        "completed_at": now,
                        "ended_at": now,
                        "next_conf": next_conf(COMPLETED, e.mid),
                    },
                )
                for e, counts in events
            ]
        )

    def rehearse(self, events: Sequence[tuple[Held, Mapping[str, int]]]) -> None:
        """Make dry runs final as `rehearsed`, with what their plans expect."""
        now = _now()
        self._set(
            [
                (e, {"state": REHEARSED, "counts": dict(counts), "reason": None, "ended_at": now})
                for e, counts in events
            ]
        )

    def tell_plan(self, held: Held, digest: str, report: str, state: str) -> bool:
        """Keep an event's plan as people read it, with the conf that would go on with it in `state`."""
        columns = {"digest": digest, "report": report, "next_conf": next_conf(state, held.mid, digest)}
        return self._set([(held, columns)])[0]

    def await_approval(self, held: Held, reason: str, until_ms: int) -> bool:
        """Let an event wait until somebody approves its plan, at most until then (epoch ms)."""
        columns = {
            "state": AWAITING_APPROVAL,
            "reason": reason[:2000],
            "awaits_until_ms": until_ms,
            "asked_run": None,
        }
        return self._set([(held, columns)])[0]

    def to_be_asked(self, mids: Collection[str], run_id: str) -> list[EventRow]:
        """Those of `mids` that await an approval that no other run than `run_id` asks for."""
        cql = (
            f"UPDATE {self._event} SET asked_run = ? WHERE mid = ? "
            f"IF state = '{AWAITING_APPROVAL}' AND asked_run = null"
        )
        answers = self._cql.conditionals((cql, (run_id, m)) for m in mids)
        mine = [
            m
            for m, answer in zip(mids, answers, strict=True)
            if answer.applied
            or (answer.rows[0].get("state"), answer.rows[0].get("asked_run")) == (AWAITING_APPROVAL, run_id)
        ]
        return list(self.read(mine).values())

    def approve(self, held: Held, digest: str, by: str) -> bool:
        """Approve the plan with `digest`; the event may go on with that one and with no other."""
        columns = {"state": RECEIVED, "reason": None, "approved_digest": digest, "approved_by": by}
        return self._set([(held, columns)])[0]

    def decline(self, held: Held, reason: str) -> bool:
        """Make an event final as `declined`. False if it is not the caller's any more, or final."""
        columns = {"state": DECLINED, "reason": reason[:2000], "ended_at": _now(), "next_conf": None}
        return self._set([(held, columns)])[0]

    def skip(self, events: Sequence[tuple[Held, str]]) -> None:
        """Make events final as `skipped`, each with its reason."""
        now = _now()
        self._set(
            [
                (
                    e,
                    {
                        "state": SKIPPED,
                        "reason": why,
                        "ended_at": now,
                        "next_conf": next_conf(SKIPPED, e.mid),
                    },
                )
                for e, why in events
            ]
        )

    def abandon(self, held: Held, reason: str) -> bool:
        """Make an event final as `abandoned`. False if it is not the caller's any more, or final."""
        columns = {"state": ABANDONED, "reason": reason, "ended_at": _now(), "next_conf": None}
        return self._set([(held, columns)])[0]

    def fail(self, events: Sequence[tuple[Held, str, int]]) -> list[bool]:
        """Record that a try failed: reason and number of attempts. The event stays open."""
        return self._set(
            [
                (
                    e,
                    {
                        "state": FAILED,
                        "reason": why[:2000],
                        "attempts": n,
                        "next_conf": next_conf(FAILED, e.mid),
                    },
                )
                for e, why, n in events
            ]
        )

    def reproved(self, mids: Collection[str]) -> None:
        """Note the second proof of completed events."""
        cql = f"UPDATE {self._event} SET reproved_at = ? WHERE mid = ? IF state = 'completed'"
        now = _now()
        self._cql.conditionals((cql, (now, m)) for m in mids)

    def _set(self, events: Sequence[tuple[Held, Mapping[str, Any]]]) -> list[bool]:
        if not events:
            return []
        names = list(events[0][1])
        cql = (
            f"UPDATE {self._event} SET {', '.join(f'{n} = ?' for n in names)}, claim_token = ? WHERE mid = ? "
            f"IF claim_token <= ? AND state IN {_OPEN}"
        )
        answers = self._cql.conditionals(
            (cql, (*(columns[n] for n in names), e.token, e.mid, e.token)) for e, columns in events
        )
        return [a.applied for a in answers]


def _now() -> datetime:
    return datetime.now(UTC)


def _event_row(r: Any) -> EventRow:
    key = OrderKey(r.t or 0, r.kafka_partition or 0, r.kafka_offset or 0, r.mid)
    return EventRow(
        mid=r.mid,
        state=r.state,
        verdict=r.verdict,
        reason=r.reason,
        transfer=Transfer(key, r.from_user, r.to_user) if r.from_user is not None else None,
        organisation_id=r.organisation_id,
        source=r.source,
        payload=r.payload or b"",
        kafka_ms=r.kafka_ms or 0,
        token=r.claim_token or 0,
        attempts=r.attempts or 0,
        plan_of=frozenset(r.plan_of or ()),
        buckets=r.buckets or 0,
        counts=dict(r.counts or {}),
        late=bool(r.late),
        completed_at=r.completed_at,
        reproved_at=r.reproved_at,
        run_id=r.run_id,
        options=Options.of(r.options),
        requested_by=r.requested_by,
        request_reason=r.request_reason,
        digest=r.digest,
        report=r.report,
        approved_digest=r.approved_digest,
        awaits_until_ms=r.awaits_until_ms or 0,
        next_conf=r.next_conf,
    )
