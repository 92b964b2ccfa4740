"""The queue: every event that is not final, claimed oldest first.

A claim locks the one row of `queue_head`, so claims follow one another and each sees what the one before took. It
hands out the next fencing token. Every later write for an event names that token, under a lock of the event's row:
a holder whose claim was taken over can no longer write. Nor can a try of a stage that a later try has replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    func,
    literal,
    not_,
    or_,
    select,
    text,
    true,
    update,
)

from ownership.domain.clock import now_ms
from ownership.domain.queue import Choice, ClaimedEvent, QueuedEvent, before_their_turn
from ownership.ledger.database import Database
from ownership.ledger.event_ids import EventIds
from ownership.ledger.schema import ORDER_KEY, TRANSFER, among, event, queue, queue_head, transfer_of

QUEUED = select(*TRANSFER, queue).join_from(queue, event, queue.c.event_id == event.c.id).order_by(*ORDER_KEY)
"""Rows for `queued_event`."""
_TOKENS = select(event.c.mid, queue.c.event_id, queue.c.claim_token, queue.c.fencing_token).join_from(
    queue, event, queue.c.event_id == event.c.id
)
_LEFT_TO_PEOPLE = queue.c.awaits.is_not(None) & queue.c.holder.is_(None)
"""What awaits an approval: no run holds it any more, whatever token it has. The run that claims it after the deadline
declines it."""
TAKE_OVER_MS = 60_000
"""Lease of an event that an operator's order takes over."""
_HELD = text(
    "SELECT array_agg(w.event_id) FILTER (WHERE q.event_id IS NULL) AS lost, "
    "CAST(1000 * extract(epoch FROM min(coalesce(q.lease_expires_at, to_timestamp(0))) "
    "FILTER (WHERE q.event_id IS NOT NULL)) AS bigint) AS lease_ends_ms "
    "FROM unnest(CAST(:ids AS bigint[]), CAST(:tokens AS bigint[])) AS w (event_id, token) "
    "LEFT JOIN queue q ON q.event_id = w.event_id AND q.fencing_token = w.token "
    "AND (q.awaits IS NULL OR q.holder IS NOT NULL)"
)


class Held(NamedTuple):
    """What became of a claim."""

    lost: frozenset[str]
    """Mids of the events that no longer carry the caller's token, or await an approval."""
    lease_ends_ms: int
    """When the first lease of the others ends; 0 if one of them has none."""


class Queue:
    """Claims, leases and releases."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids = EventIds()

    def read(self) -> list[QueuedEvent]:
        """All events of the queue, in order."""
        return self._database.run(lambda c: [queued_event(r) for r in c.execute(QUEUED)])

    def claim(
        self, decide: Callable[[list[QueuedEvent]], Choice], *, run_id: str, lease_ms: int
    ) -> tuple[list[ClaimedEvent], Choice]:
        """Take what `decide` chooses from the queue as it is; what was taken, in order, and the choice.

        One transaction: no other claim comes between the look and the taking. A repeated claim takes the run's own
        events again, under a new token.
        """

        def work(connection: Connection) -> tuple[list[ClaimedEvent], Choice]:
            token = _locked_head(connection) + 1
            rows = connection.execute(QUEUED).all()
            choice = decide([queued_event(r) for r in rows])
            if choice.take:
                ids = {r.mid: r.event_id for r in rows}
                _take(connection, [ids[e.mid] for e in choice.take], token, run_id, lease_ms, begins=True)
            return [ClaimedEvent(e.transfer, token) for e in choice.take], choice

        return self._database.run(work)

    def begin(
        self,
        phases: Sequence[Sequence[ClaimedEvent]],
        *,
        run_id: str,
        passes_to: Mapping[str, Collection[str]],
    ) -> dict[str, str]:
        """Mark that the run begins to change batches for the events of phases, as far as it is their turn.

        No claim comes between the look and the mark: an event of their users that comes late is seen here, or its
        claim sees the mark. Returns by mid the events before which another one goes now, with the mid of that one;
        their phases are not begun. `passes_to`: by mid, see `QueuedEvent`.
        """

        def work(connection: Connection) -> dict[str, str]:
            _locked_head(connection)
            ids = lock(connection, [e for p in phases for e in p])
            for mid in passes_to.keys() & ids.keys():
                _set(connection, [ids[mid]], passes_to=sorted(passes_to[mid]))
            begun = select(queue.c.event_id).where(among(queue.c.event_id, ids.values()), queue.c.begun)
            done = set(connection.scalars(begun))
            new = [
                QueuedEvent(e.transfer, 0, passes_to=frozenset(passes_to.get(e.mid, ())))
                for p in phases
                for e in p
                if e.mid in ids and ids[e.mid] not in done
            ]
            # Phases of one run, which may hold thousands of events, meet only in what late ones pass on.
            passing = true() if passes_to else func.cardinality(queue.c.passes_to) > 0
            others = QUEUED.where(
                or_(queue.c.holder.is_distinct_from(run_id), and_(queue.c.begun, passing)),
                not_(among(queue.c.event_id, ids.values())),
            )
            blockers = before_their_turn(new, map(queued_event, connection.execute(others)), run_id=run_id)
            # Of a phase that lost an event meanwhile, none begins: the next fence ends it.
            free = [
                e.mid for p in phases if all(e.mid in ids and e.mid not in blockers for e in p) for e in p
            ]
            _set(connection, {ids[m] for m in free} - done, begun=True)
            return blockers

        return self._database.run(work)

    def held(self, claimed: Sequence[ClaimedEvent]) -> Held:
        """What became of the claim on `claimed`.

        The server compares the tokens: a run may hold thousands of events, and looks before each wave of writes.
        """

        def work(connection: Connection) -> Held:
            held = self._compare(connection, claimed)
            if held.lost:
                # In a ledger that was restored meanwhile, events that are read again have other ids.
                self._ids.forget()
                held = self._compare(connection, claimed)
            return held

        return self._database.run(work)

    def _compare(self, connection: Connection, claimed: Sequence[ClaimedEvent]) -> Held:
        mids = [e.mid for e in claimed]
        known = self._ids.of(connection, mids)
        ids = [known.get(m, 0) for m in mids]
        tokens = [e.fencing_token for e in claimed]
        found = connection.execute(_HELD, {"ids": _numbers(ids), "tokens": _numbers(tokens)}).one()
        gone = set(found.lost or ())
        lost = frozenset(m for m, i in zip(mids, ids, strict=True) if i in gone)
        return Held(lost, found.lease_ends_ms or 0)

    def claim_again(
        self, claimed: Sequence[ClaimedEvent], *, run_id: str, lease_ms: int
    ) -> list[ClaimedEvent]:
        """The same events; those whose claim nobody took over have a new token, under a new lease.

        Whoever writes under the token of before, such as an earlier try that was frozen, no longer can. Events that the
        earlier try let go of, as at a SIGTERM, are among them: its token is still theirs.
        """

        def work(connection: Connection) -> dict[str, int]:
            token = _locked_head(connection) + 1
            own = or_(queue.c.holder == run_id, queue.c.holder.is_(None))
            rows = _same_claim(connection, claimed, own, ~_LEFT_TO_PEOPLE)
            if rows:
                _take(connection, [r.event_id for r in rows], token, run_id, lease_ms, begins=False)
            return {r.mid: token for r in rows}

        return _under(claimed, self._database.run(work))

    def take_over(self, mid: str, *, run_id: str, awaiting: bool = False) -> ClaimedEvent | None:
        """Claim one event, also from another holder; None if it is not in the queue, or not `awaiting` an approval."""
        wanted = QUEUED.where(event.c.mid == mid, *([queue.c.awaits.is_not(None)] if awaiting else []))

        def work(connection: Connection) -> ClaimedEvent | None:
            token = _locked_head(connection) + 1
            row = connection.execute(wanted).first()
            if row is None:
                return None
            _take(connection, [row.event_id], token, run_id, TAKE_OVER_MS, begins=True)
            return ClaimedEvent(transfer_of(row), token)

        return self._database.run(work)

    def current(self, claimed: Sequence[ClaimedEvent]) -> list[ClaimedEvent]:
        """Those of `claimed` whose claim nobody took over, each with the token that it has now."""
        if not claimed:
            return []
        rows = self._database.run(lambda c: _same_claim(c, claimed))
        tokens = {r.mid: r.fencing_token for r in rows}
        return _under([e for e in claimed if e.mid in tokens], tokens)

    def renew(self, claimed: Sequence[ClaimedEvent], *, run_id: str, lease_expires_ms: int) -> None:
        """Set how long the claim lives on, where it still is the caller's."""
        self._write(claimed, holder=run_id, lease_expires_at=lease_expires_ms)

    def release(self, claimed: Sequence[ClaimedEvent], *, next_try_ms: int) -> None:
        """Let go of events, where they still are the caller's; claimable from `next_try_ms` on.

        One that awaits an approval keeps its deadline.
        """
        self._write(claimed, **_let_go(next_try_ms))

    def release_all(self, run_id: str) -> None:
        """Release every event that the run holds."""

        def work(connection: Connection) -> None:
            held = select(queue.c.event_id).where(queue.c.holder == run_id).order_by(queue.c.event_id)
            ids = connection.scalars(held.with_for_update()).all()
            _set(connection, ids, **_let_go(0))

        self._database.run(work)

    def _write(self, claimed: Sequence[ClaimedEvent], **columns: Any) -> None:
        """Write columns of events that still are the caller's."""

        def work(connection: Connection) -> None:
            _set(connection, lock(connection, claimed).values(), **columns)

        if claimed:
            self._database.run(work)


def lock(connection: Connection, claimed: Iterable[ClaimedEvent]) -> dict[str, int]:
    """Lock the queue's rows of those events that still carry their token, and are not left to people; their ids by mid.

    In the order of their ids, so that two transactions never wait for each other.
    """
    wanted = {e.mid: e.fencing_token for e in claimed}
    mine = _TOKENS.where(among(event.c.mid, wanted), ~_LEFT_TO_PEOPLE)
    rows = connection.execute(mine.order_by(queue.c.event_id).with_for_update(of=queue))
    return {r.mid: r.event_id for r in rows if r.fencing_token == wanted[r.mid]}


def _same_claim(
    connection: Connection, claimed: Iterable[ClaimedEvent], *conditions: ColumnElement[bool]
) -> list[Any]:
    """Mid, event id and token of those of `claimed` that are in the queue by the same claim."""
    tokens = {e.mid: e.fencing_token for e in claimed}
    rows = connection.execute(_TOKENS.where(among(event.c.mid, tokens), *conditions))
    # Tokens only rise: one that is older than its claim's first is from a claim before.
    return [r for r in rows if r.claim_token <= tokens[r.mid]]


def remove(connection: Connection, event_ids: Collection[int]) -> None:
    """Take events that have become final out of the queue."""
    connection.execute(delete(queue).where(among(queue.c.event_id, event_ids)))


def _let_go(next_try_ms: int) -> dict[str, Any]:
    """Columns of an event that nobody holds, claimable from `next_try_ms` on, or after its approval's deadline."""
    next_try = literal(next_try_ms, queue.c.next_try_at.type)
    return {
        "holder": None,
        "lease_expires_at": None,
        "next_try_at": case((queue.c.awaits.is_(None), next_try), else_=queue.c.next_try_at),
    }


def _numbers(numbers: Iterable[int]) -> str:
    """As PostgreSQL reads an array; the driver takes longer for thousands of numbers than the server."""
    return "{" + ",".join(map(str, numbers)) + "}"


def _locked_head(connection: Connection) -> int:
    """The last fencing token; other claims wait until this transaction ends."""
    token: int = connection.execute(select(queue_head.c.fencing_token).with_for_update()).scalar_one()
    return token


def _take(
    connection: Connection,
    event_ids: Collection[int],
    token: int,
    run_id: str,
    lease_ms: int,
    *,
    begins: bool,
) -> None:
    """Hold events under a new token: a claim that begins, or a later try within the claim that there is."""
    ids = sorted(event_ids)
    connection.execute(update(queue_head).values(fencing_token=token))
    # Locked in the order of their ids, as every other write does it.
    rows = select(queue.c.event_id).where(among(queue.c.event_id, ids)).order_by(queue.c.event_id)
    connection.execute(rows.with_for_update())
    claim = {"claim_token": token} if begins else {}
    _set(connection, ids, fencing_token=token, holder=run_id, lease_expires_at=now_ms() + lease_ms, **claim)


def _under(claimed: Iterable[ClaimedEvent], tokens: Mapping[str, int]) -> list[ClaimedEvent]:
    return [e._replace(fencing_token=tokens.get(e.mid, e.fencing_token)) for e in claimed]


def _set(connection: Connection, event_ids: Collection[int], **columns: Any) -> None:
    if event_ids:
        connection.execute(update(queue).where(among(queue.c.event_id, event_ids)).values(**columns))


def queued_event(r: Any) -> QueuedEvent:
    """An event of the queue, from a row of `QUEUED`."""
    return QueuedEvent(
        transfer_of(r),
        r.accepted_at,
        r.fencing_token,
        r.holder,
        r.lease_expires_at or 0,
        r.next_try_at or 0,
        r.awaits,
        r.begun,
        frozenset(r.passes_to),
    )
