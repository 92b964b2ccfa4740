"""`settle`: what the run leaves behind is released, and the run's summary is drawn from the ledger."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from ownership.domain.clock import now_ms, to_ms
from ownership.domain.contracts import PlanTold, Slice, Summary
from ownership.domain.next_steps import next_conf
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.stages.lookup import WAITS
from ownership.stages.parts import Parts
from ownership.stages.working import batches_of

FIRST_DELAY_MS = 10_000
LAST_DELAY_MS = 900_000
MAX_REPORTED = 50
"""Events that a summary names of each sort; all are in the ledger."""
MAX_PLANS = 20
MAX_CONFLICTS = 20
WAITING = "waiting"
_DIED = "its stage ended without a result: see the task's log"


class Settled(NamedTuple):
    """How a run ended."""

    summary: Summary
    finished: list[EventRow]
    """The events that it completed, in their order."""

    @property
    def lags(self) -> list[float]:
        """For each of them, the time (ms) from its message to its proof."""
        return [to_ms(r.completed_at) - r.kafka_ms for r in self.finished if r.completed_at]


def next_try_ms(attempts: int) -> int:
    """Delay (ms) before a failed event is tried again by another run: doubling, with jitter."""
    delay = min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** min(max(attempts - 1, 0), 10))
    return int(delay * random.uniform(0.75, 1.25))


def settle(
    parts: Parts, slices: Sequence[Slice], waits: dict[str, str], told: dict[str, str] | None = None
) -> Settled:
    """Release the events that this run still holds; count how its events ended.

    An event that is open without a recorded reason was in a stage that died: it failed. One that
    only waits for an earlier event of its lane may be claimed at once. `told` is what became of the
    run's orders.
    """
    held = [h for s in slices for h in s.held]
    mine = set(parts.queue.held(held))
    rows = parts.events.read([h.mid for h in held])
    became = {h.mid: _became(rows[h.mid], h.mid in mine) for h in held if h.mid in rows}  # others are too old
    of: dict[str, list[ClaimedEvent]] = defaultdict(list)
    for h in held:
        of[became.get(h.mid, "")].append(h)

    unsaid = [h for h in of[EventState.FAILED] if rows[h.mid].state != EventState.FAILED]
    failures = {h.mid: rows[h.mid].reason or _DIED for h in of[EventState.FAILED]}
    parts.events.fail([(h, failures[h.mid], rows[h.mid].attempts + 1) for h in unsaid])
    parts.queue.release(of[WAITING], next_try_ms=0)
    _release(parts, [(h, rows[h.mid].attempts) for h in of[EventState.FAILED]])

    told = dict(told or {})
    for h in of[EventState.DECLINED]:
        # To apply a plan is asked of this very run; that nobody approved one is nobody's failure.
        where = failures if rows[h.mid].options.plan_of else told
        where[h.mid] = rows[h.mid].reason or EventState.DECLINED
    completed = [rows[h.mid] for h in sorted(of[EventState.COMPLETED], key=lambda h: h.transfer.key)]
    summary = Summary(
        events=dict(Counter(became.values())),
        batches=batches_of(r.counts for r in completed),
        failures=dict(list(failures.items())[:MAX_REPORTED]),
        waits=waits,
        told=told,
    )
    return Settled(_with_details(parts, summary, rows), completed)


def _became(row: EventRow, mine: bool) -> str:  # noqa: FBT001  # of this run still
    """What the run's summary counts an event as."""
    if row.final:
        return row.state
    if not mine:
        return "taken_over"
    if row.state == EventState.RECEIVED and (row.reason or "").startswith(WAITS):
        return WAITING
    return row.state if row.state == EventState.AWAITING_APPROVAL else EventState.FAILED


def _release(parts: Parts, failed: Sequence[tuple[ClaimedEvent, int]]) -> None:
    """Let go of failed events, each with the delay of its number of attempts."""
    now = now_ms()
    by_attempts: dict[int, list[ClaimedEvent]] = defaultdict(list)
    for h, attempts in failed:
        by_attempts[attempts].append(h)
    for attempts, some in by_attempts.items():
        parts.queue.release(some, next_try_ms=now + next_try_ms(attempts))


def _with_details(parts: Parts, summary: Summary, rows: Mapping[str, EventRow]) -> Summary:
    """The summary with plans, conflicts, and what to paste next, for the events that need somebody."""
    plans = [
        PlanTold.model_validate_json(row.report)
        for row in rows.values()
        if row.report and row.state in (EventState.REHEARSED, EventState.AWAITING_APPROVAL)
    ][:MAX_PLANS]
    conflicts = [
        row
        for row in rows.values()
        if row.state == EventState.COMPLETED and row.counts.get(BatchOutcome.CHANGED_ELSEWHERE)
    ]
    named = {m: rows[m] for m in summary.failures}
    named |= {p.mid: rows[p.mid] for p in plans} | {row.mid: row for row in conflicts[:MAX_REPORTED]}
    return summary.model_copy(
        update={
            "plans": tuple(plans),
            "conflicts": tuple(islice(_conflicts(parts, conflicts), MAX_CONFLICTS)),
            "users": {m: f"{r.transfer.from_user} → {r.transfer.to_user}" for m, r in named.items()},
            "next_conf": {
                m: conf
                for m, r in named.items()
                if (conf := next_conf(_now_in(r, summary.failures), m, r.digest))
            },
        }
    )


def _now_in(row: EventRow, failures: Collection[str]) -> EventState:
    """The event's state, also where this very run has just written it."""
    return EventState.FAILED if row.mid in failures and not row.final else row.state


def _conflicts(parts: Parts, events: Iterable[EventRow]) -> Iterator[str]:
    """Batches that were left alone because somebody else changed them."""
    for event in events:
        for r in parts.changes.read_plan(
            event.mid, outcome=BatchOutcome.CHANGED_ELSEWHERE, limit=MAX_CONFLICTS
        ):
            yield f"{event.mid}: batch {r.planned.id.batch_id} of course {r.planned.id.course_id}"
