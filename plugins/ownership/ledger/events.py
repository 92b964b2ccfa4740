"""Events of the ledger: their rows, verdicts and ends.

A claimed event is written only under its fencing token: the queue's row is locked, and a token that is not the
caller's any more means that the write is left out. A final state and the end of its place in the queue are one
transaction, and so are all events of a phase.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, and_, exists, or_, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from ownership.domain.clock import from_ms, now, now_ms
from ownership.domain.contracts import PlanSummary
from ownership.domain.event import Transfer, folded
from ownership.domain.next_steps import next_conf
from ownership.domain.options import PLAIN, Options
from ownership.domain.plan import Scope
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import FINAL_STATES, MADE, Decision, EventState
from ownership.domain.text import printable
from ownership.ledger.database import NO_NESTED_LOOP, Database
from ownership.ledger.queue import lock, remove
from ownership.ledger.schema import (
    ORDER_KEY,
    TRANSFER,
    among,
    change,
    columns_of,
    event,
    event_run,
    payload,
    queue,
    rejected_message,
    transfer_of,
)

APPROVAL = "approval"
"""What an event in the queue awaits."""
MAX_KEPT_REASON = 2000
"""Most characters of an event's reason."""


class Verdict(NamedTuple):
    """Whether an event may be carried out, and why, in the words of who says so."""

    decision: Decision
    reason: str | None = None

    @property
    def valid(self) -> bool:
        """True if it is carried out."""
        return self.decision is not Decision.INVALID


class EventRow(NamedTuple):
    """An event as the ledger knows it, without its message."""

    transfer: Transfer
    state: EventState
    origin: str
    topic: str
    kafka_ms: int
    received_at: datetime
    verdict: Verdict | None = None
    reason: str | None = None
    waits_for: str | None = None
    """Mid of the earlier event for which the run that last wrote this one left it in the queue."""
    organisation_id: str | None = None
    fencing_token: int = 0
    attempts: int = 0
    planned_with: frozenset[str] = frozenset()
    """Mids of the events under which the plan of its phase stands."""
    counts: Mapping[str, int] = {}
    late: bool = False
    planned_at: datetime | None = None
    applied_at: datetime | None = None
    completed_at: datetime | None = None
    ended_at: datetime | None = None
    reproved_at: datetime | None = None
    run_id: str | None = None
    options: Options = PLAIN
    requested_by: str | None = None
    request_reason: str | None = None
    request_id: str | None = None
    """The platform's API call that emitted the event with others."""
    digest: str | None = None
    report: str | None = None
    approved_digest: str | None = None
    approved_by: str | None = None
    awaits_until_ms: int = 0
    next_conf: str | None = None

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid

    @property
    def giver_deleted(self) -> bool:
        """True if the old user is deleted or blocked, and the transfer is carried out nevertheless."""
        return self.verdict is not None and self.verdict.decision is Decision.GIVER_DELETED

    @property
    def scope(self) -> Scope:
        """Which batches the event may change, and what of them.

        User-Org does not show the organisation of a deleted old user: then the rows must not contradict the event's.
        """
        organisation = folded(self.organisation_id or "") if self.giver_deleted else None
        return self.options.scope._replace(organisation=organisation)

    @property
    def whole(self) -> bool:
        """True for a transfer of everything that the old user has."""
        return self.options.whole and not self.giver_deleted

    @property
    def final(self) -> bool:
        """True if the state never changes again."""
        return self.state in FINAL_STATES


class RejectedMessage(NamedTuple):
    """A message that is no event, as the ledger keeps it."""

    mid: str
    """Of the ledger: where the message lies."""
    origin: str
    topic: str
    partition: int
    offset: int
    kafka_ms: int
    message_mid: str | None
    """The `mid` that the message carries, where it can be read."""
    body: bytes
    reason: str
    next_conf: str | None
    received_at: datetime | None = None
    request_id: str | None = None
    """The platform's API call that emitted it, where it can be read."""


_CONVERTED = ("transfer", "state", "verdict", "planned_with", "options", "awaits_until_ms")
_AS_IT_IS = tuple(name for name in EventRow._fields if name not in _CONVERTED)
"""Fields that are columns."""
EVENT_COLUMNS = (
    *TRANSFER,
    *(event.c[name] for name in _AS_IT_IS),
    *(event.c[n] for n in ("state", "verdict", "verdict_reason", "planned_with", "options", "awaits_until")),
)
"""Columns for `event_row`."""
_EVENT = select(*EVENT_COLUMNS)
_HAS_GIVEN = or_(
    event.c.state == EventState.COMPLETED,
    (event.c.state == EventState.ABANDONED)
    & exists().where(change.c.event_id == event.c.id, among(change.c.outcome, MADE)),
)
"""An event that completed, or was abandoned half-way: what it moved until then stays moved."""


class Events:
    """Reads and writes of events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- reads ---------------------------------------------------------------------------------------------

    def read(self, mids: Collection[str]) -> dict[str, EventRow]:
        """The events that exist among `mids`."""
        return {e.mid: e for e in self._select(_EVENT.where(among(event.c.mid, mids)))} if mids else {}

    def bodies(self, mids: Collection[str]) -> dict[str, bytes | None]:
        """The messages of those events that exist among `mids`; None for one whose message was erased."""
        query = (
            select(event.c.mid, payload.c.body)
            .join_from(event, payload, payload.c.event_id == event.c.id, isouter=True)
            .where(among(event.c.mid, mids))
        )
        return self._database.run(lambda c: {r.mid: r.body for r in c.execute(query)})

    def rejected(self, mids: Collection[str]) -> dict[str, RejectedMessage]:
        """The rejected messages that exist among `mids`."""
        query = select(*columns_of(rejected_message, RejectedMessage)).where(
            among(rejected_message.c.mid, mids)
        )
        return self._database.run(lambda c: {r.mid: RejectedMessage(**r._asdict()) for r in c.execute(query)})

    def later_ended(self, transfers: Sequence[Transfer]) -> list[EventRow]:
        """Events after the first of `transfers` that have given for good, and reach their users, directly or by chain."""
        if not transfers:
            return []
        first, own = min(transfers).key, {t.mid for t in transfers}
        found: dict[str, EventRow] = {}
        todo, seen = {u for t in transfers for u in t.users}, set[str]()
        while todo:
            seen |= todo
            of_users = or_(among(event.c.source_user, todo), among(event.c.target_user, todo))
            query = _EVENT.where(_HAS_GIVEN, of_users, tuple_(*ORDER_KEY) > first)
            more = {e.mid: e for e in self._select(query) if e.mid not in own and e.mid not in found}
            found |= more
            todo = {u for e in more.values() for u in e.transfer.users} - seen
        return list(found.values())

    def gave_back(self, later_than: EventRow) -> bool:
        """True if a later transfer that has ended gave the old user of an event batches that the event is about.

        One that is open changes nothing: a follow-up comes before it in order, or waits for its end.
        """
        own = later_than.scope.batch_id
        batch_id = event.c.options["asset"]["batch_id"].astext
        query = select(event.c.mid).where(
            event.c.target_user == later_than.transfer.source,
            tuple_(*ORDER_KEY) > later_than.transfer.key,
            _HAS_GIVEN,
            *([or_(batch_id.is_(None), batch_id == own)] if own else []),
        )
        return self._database.run(lambda c: c.execute(query.limit(1)).first() is not None)

    def given_to(self, users: Collection[str], *, since_ms: int) -> list[EventRow]:
        """Events that completed at `since_ms` or later, whatever their order, or were abandoned, and gave to `users`.

        The index may not show what they gave: the LMS may have written its document from an older row. That of an
        abandoned one does not follow at all.
        """
        return self._select(
            _EVENT.where(
                among(event.c.target_user, users),
                event.c.ended_at.isnot(None),
                or_(
                    event.c.state == EventState.ABANDONED,
                    and_(event.c.state == EventState.COMPLETED, event.c.ended_at >= from_ms(since_ms)),
                ),
            )
        )

    def of_window(
        self,
        start_ms: int,
        end_ms: int,
        states: Collection[EventState],
        *,
        size: int = 200,
        unproven_since_ms: int | None = None,
        newest_first: bool = False,
    ) -> Iterator[list[EventRow]]:
        """Events in one of `states` whose message has start <= broker's timestamp < end, `size` at a time.

        In the order of these timestamps. However many there are, only one part is in memory. `unproven_since_ms`:
        only those that ended then or later, and have no second proof.
        """
        key = event.c.kafka_ms, event.c.id
        query = (
            select(event.c.id, *EVENT_COLUMNS)
            .where(event.c.kafka_ms >= start_ms, event.c.kafka_ms < end_ms, among(event.c.state, states))
            .order_by(*(k.desc() if newest_first else k for k in key))
            .limit(size)
        )
        if unproven_since_ms is not None:
            query = query.where(event.c.reproved_at.is_(None), event.c.ended_at >= from_ms(unproven_since_ms))
        beyond = tuple_(*key).__lt__ if newest_first else tuple_(*key).__gt__

        def read(part: Select[Any]) -> Sequence[Row[Any]]:
            return self._database.run(lambda c: c.execute(part).all())

        rows = read(query)
        while rows:
            yield [event_row(r) for r in rows]
            rows = read(query.where(beyond((rows[-1].kafka_ms, rows[-1].id))))

    def of_users(self, source: str | None, target: str | None, start_ms: int, end_ms: int) -> list[EventRow]:
        """Events from `source` to `target` (folded; None is any) with start <= order time < end, in order."""
        query = _EVENT.where(event.c.order_ms >= start_ms, event.c.order_ms < end_ms)
        if source:
            query = query.where(event.c.source_user == source)
        if target:
            query = query.where(event.c.target_user == target)
        return self._select(query)

    def of_run(self, run_id: str) -> list[EventRow]:
        """Events that a run was the last to plan or skip."""
        return self._select(
            _EVENT.join(event_run, event_run.c.event_id == event.c.id).where(
                event_run.c.run_id == run_id, event.c.run_id == run_id
            )
        )

    def _select(self, query: Select[Any]) -> list[EventRow]:
        return self._database.run(lambda c: [event_row(r) for r in c.execute(query.order_by(*ORDER_KEY))])

    # -- decisions -----------------------------------------------------------------------------------------

    def decide(self, verdicts: Sequence[tuple[ClaimedEvent, Verdict]], *, run_id: str) -> dict[str, Verdict]:
        """Record verdicts, once and for all.

        Returns by mid the verdict that stands (an earlier one wins); events that were taken over are left out.
        """

        def work(connection: Connection) -> dict[str, Verdict]:
            mine = lock(connection, [e for e, _ in verdicts])
            writes = [
                (e, {"verdict": v.decision, "verdict_reason": v.reason, "run_id": run_id})
                for e, v in verdicts
            ]
            _update(connection, mine, writes, undecided=True)
            rows = connection.execute(
                select(event.c.mid, event.c.verdict, event.c.verdict_reason).where(
                    among(event.c.id, mine.values()), event.c.verdict.isnot(None)
                )
            )
            return {r.mid: _verdict(r) for r in rows}

        return self._database.run(work) if verdicts else {}

    def note(self, claimed: Sequence[ClaimedEvent], **columns: Any) -> None:
        """Set columns of open events; those that were taken over are left alone."""
        self._write([(e, columns) for e in claimed])

    def planned(self, claimed: Sequence[tuple[ClaimedEvent, int, frozenset[str]]], *, run_id: str) -> None:
        """Record for each event (with its number of tries, and `planned_with`) that its plan is complete."""
        common = {"reason": None, "run_id": run_id, "planned_at": now()}
        writes = [
            (e, {**common, "attempts": attempts, "planned_with": sorted(planned_with)})
            for e, attempts, planned_with in claimed
        ]
        self._write(writes, state=EventState.PLANNED, run_id=run_id)

    def fail(self, failed: Sequence[tuple[ClaimedEvent, str, int]]) -> None:
        """Record that a try failed: reason and number of tries. The event stays open."""
        writes = [(e, {"reason": why, "attempts": n}) for e, why, n in failed]
        self._write(writes, state=EventState.FAILED)

    def keep_waiting(self, claimed: Sequence[tuple[ClaimedEvent, str]]) -> None:
        """Record for which earlier event (its mid) the run leaves an event that it has claimed to a later phase."""
        writes = [
            (e, {"reason": f"waits for {blocker}, which goes first", "waits_for": blocker})
            for e, blocker in claimed
        ]
        self._write(writes, state=EventState.RECEIVED)

    # -- ends ----------------------------------------------------------------------------------------------

    def complete(
        self, phases: Sequence[Sequence[tuple[ClaimedEvent, Mapping[str, int]]]]
    ) -> list[ClaimedEvent]:
        """Commit phases: all events of a phase become `completed`, with their counts, or none of them.

        Returns the events that are committed; a phase of which an event was taken over is left out.
        """
        claimed = {e.mid: e for p in phases for e, _ in p}

        def work(connection: Connection) -> list[ClaimedEvent]:
            mine = lock(connection, claimed.values())
            before = _ended_by(
                connection, [e for e in claimed.values() if e.mid not in mine], EventState.COMPLETED
            )
            whole = [p for p in phases if all(e.mid in mine or e.mid in before for e, _ in p)]
            ending = [(e, counts) for p in whole for e, counts in p if e.mid in mine]
            at = now()
            common = {"state": EventState.COMPLETED, "reason": None, "completed_at": at, "ended_at": at}
            _update(connection, mine, [(e, {**common, "counts": dict(counts)}) for e, counts in ending])
            remove(connection, [mine[e.mid] for e, _ in ending])
            return [e for p in whole for e, _ in p]

        return self._database.run(work)

    def rehearse(self, planned: Sequence[tuple[ClaimedEvent, PlanSummary, Mapping[str, int]]]) -> None:
        """Make dry runs final as `rehearsed`, each with its plan and what that expects."""
        writes = [
            (e, {"counts": dict(counts), "reason": None, **_plan_columns(plan)})
            for e, plan, counts in planned
        ]
        self._write(writes, state=EventState.REHEARSED)

    def skip(self, claimed: Sequence[tuple[ClaimedEvent, str]], *, run_id: str) -> None:
        """Make events final as `skipped`, each with its reason."""
        writes = [(e, {"reason": why}) for e, why in claimed]
        self._write(writes, state=EventState.SKIPPED, run_id=run_id)

    def decline(self, claimed: ClaimedEvent, reason: str) -> bool:
        """Make an event final as `declined`. False if it is not the caller's any more, or final."""
        return self._write([(claimed, {"reason": reason})], state=EventState.DECLINED)

    def abandon(self, claimed: ClaimedEvent, reason: str) -> bool:
        """Make an event final as `abandoned`. False if it is not the caller's any more, or final."""
        return self._write([(claimed, {"reason": reason})], state=EventState.ABANDONED)

    # -- approvals -----------------------------------------------------------------------------------------

    def await_approval(self, claimed: ClaimedEvent, plan: PlanSummary, reason: str, until_ms: int) -> None:
        """Let go of an event until an operator approves its plan, at most until then (epoch ms)."""
        columns = {
            "reason": reason,
            "awaits_until": from_ms(until_ms),
            "asked_run": None,
            **_plan_columns(plan),
        }
        queued = {"awaits": APPROVAL, "next_try_at": until_ms, "begun": False}
        self._write([(claimed, columns)], state=EventState.AWAITING_APPROVAL, queued=queued)

    def approve(self, claimed: ClaimedEvent, digest: str, by: str) -> bool:
        """Approve the plan with `digest`: the event goes back into the queue, and on with that plan alone."""
        columns = {"reason": None, "approved_digest": digest, "approved_by": by}
        queued = {"awaits": None, "next_try_at": None}
        return self._write([(claimed, columns)], state=EventState.RECEIVED, queued=queued)

    def asking_runs(self) -> set[str | None]:
        """The runs that ask for the approvals that events await; None stands for an event that no run asks for yet."""
        query = (
            select(event.c.asked_run)
            .distinct()
            .join_from(queue, event, queue.c.event_id == event.c.id)
            .where(queue.c.awaits == APPROVAL, event.c.awaits_until > now_ms())
        )
        return self._database.run(lambda c: set(c.scalars(query)))

    def to_be_asked(self, run_id: str, *, gone: Collection[str], limit: int) -> list[EventRow]:
        """Events that await an approval which no other run than `run_id` asks for, `limit` of them at most.

        Runs in `gone` ask no longer; from now on `run_id` asks in their place.
        """
        mine = event.c.asked_run == run_id

        def work(connection: Connection) -> list[EventRow]:
            awaiting = event.c.state == EventState.AWAITING_APPROVAL
            free = or_(mine, event.c.asked_run.is_(None), among(event.c.asked_run, gone))
            ids = (
                select(event.c.id)
                .where(awaiting, free)
                .order_by(mine.desc().nulls_last(), *ORDER_KEY)
                .limit(limit)
            )
            connection.execute(update(event).where(event.c.id.in_(ids)).values(asked_run=run_id))
            query = _EVENT.where(awaiting, mine)
            return [event_row(r) for r in connection.execute(query.order_by(*ORDER_KEY).limit(limit))]

        return self._database.run(work)

    def reproved(self, mids: Collection[str]) -> None:
        """Note the second proof of completed events."""
        done = among(event.c.mid, mids) & (event.c.state == EventState.COMPLETED)
        self._database.run(lambda c: c.execute(update(event).where(done).values(reproved_at=now())))

    # -- how -----------------------------------------------------------------------------------------------

    def _write(
        self,
        writes: Sequence[tuple[ClaimedEvent, Mapping[str, Any]]],
        *,
        state: EventState | None = None,
        queued: Mapping[str, Any] | None = None,
        run_id: str | None = None,
    ) -> bool:
        """Set state and columns of events, the same for all, where they still are the caller's. True if all are.

        In a final state they leave the queue; an earlier try of the same transaction counts. With `queued` they stay
        there, let go of, with these columns. `run_id` planned or skipped them.
        """
        final = state if state in FINAL_STATES else None

        def work(connection: Connection) -> bool:
            mine = lock(connection, [e for e, _ in writes])
            lost = [e for e, _ in writes if e.mid not in mine]
            common = ({"state": state} if state else {}) | ({"ended_at": now()} if final else {})
            _update(connection, mine, [(e, {**columns, **common}) for e, columns in writes])
            if final:
                remove(connection, mine.values())
                before = _ended_by(connection, lost, final)
                lost = [e for e in lost if e.mid not in before]
            elif queued:
                let_go = update(queue).where(among(queue.c.event_id, mine.values()))
                connection.execute(let_go.values(holder=None, lease_expires_at=None, **queued))
            if run_id and mine:
                values = [{"run_id": run_id, "event_id": i} for i in mine.values()]
                connection.execute(insert(event_run).on_conflict_do_nothing(), values)
            return not lost

        return self._database.run(work) if writes else True


def _plan_columns(plan: PlanSummary) -> dict[str, str]:
    return {"digest": plan.digest, "report": plan.model_dump_json()}


def _ended_by(connection: Connection, claimed: Sequence[ClaimedEvent], state: EventState) -> set[str]:
    """Mids of those that ended in `state` under their token: a repeated transaction finds what it did before."""
    if not claimed:
        return set()
    wanted = {e.mid: e.fencing_token for e in claimed}
    rows = connection.execute(
        select(event.c.mid, event.c.fencing_token).where(among(event.c.mid, wanted), event.c.state == state)
    )
    return {r.mid for r in rows if r.fencing_token == wanted[r.mid]}


def _update(
    connection: Connection,
    ids: Mapping[str, int],
    writes: Iterable[tuple[ClaimedEvent, Mapping[str, Any]]],
    *,
    undecided: bool = False,
) -> None:
    """Set columns and the fencing token of those events that have an id in `ids`, in one statement; the same for all.

    With `undecided` only of events without a verdict.

    Every write ends an event's wait, unless it sets `waits_for`. A new state brings the conf that goes on from it.
    """
    rows = []
    for e, columns in writes:
        if e.mid in ids:
            row = {"id": ids[e.mid], "waits_for": None, **columns, "fencing_token": e.fencing_token}
            if reason := columns.get("reason"):
                row["reason"] = printable(reason)[:MAX_KEPT_REASON]
            if state := columns.get("state"):
                row["next_conf"] = next_conf(state, e.mid, columns.get("digest"))
            rows.append(row)
    if not rows:
        return
    # What is the same for all is sent once: a phase of 1,000 events has as many mids in each event's `planned_with`.
    same = {name: value for name, value in rows[0].items() if all(row[name] == value for row in rows)}
    own = [{name: value for name, value in row.items() if name not in same or name == "id"} for row in rows]
    values = ", ".join(f"{n} = {'same' if n in same else 'own'}.{n}" for n in rows[0] if n != "id")
    condition = " AND event.verdict IS NULL" if undecided else ""
    connection.execute(NO_NESTED_LOOP)
    connection.execute(
        text(
            f"UPDATE event SET {values} FROM json_populate_recordset(CAST(NULL AS event), :own) AS own, "
            "json_populate_record(CAST(NULL AS event), :same) AS same "
            f"WHERE event.id = own.id AND event.id = ANY(:ids){condition}"
        ),
        {
            "own": json.dumps(own, default=datetime.isoformat),
            "same": json.dumps(same, default=datetime.isoformat),
            "ids": [row["id"] for row in rows],
        },
    )


def event_row(r: Any) -> EventRow:
    """An event from a row with `EVENT_COLUMNS`."""
    return EventRow(
        transfer=transfer_of(r),
        state=EventState(r.state),
        verdict=_verdict(r) if r.verdict else None,
        planned_with=_shared(tuple(r.planned_with)),
        options=Options.of(r.options),
        awaits_until_ms=r.awaits_until or 0,
        **{name: getattr(r, name) for name in _AS_IT_IS},
    )


@lru_cache(maxsize=64)
def _shared(mids: tuple[str, ...]) -> frozenset[str]:
    """One set for all events of a phase: each of 1,000 events may name all of them."""
    return frozenset(mids)


def _verdict(r: Any) -> Verdict:
    return Verdict(Decision(r.verdict), r.verdict_reason)
