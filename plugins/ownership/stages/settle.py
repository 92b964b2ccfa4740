"""`settle`: releases the events that the run still holds, and sums the run up from the ledger."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from more_itertools import map_reduce

from ownership.domain.clock import now_ms, to_ms
from ownership.domain.contracts import Conflict, PlanSummary, Pulled, Summary
from ownership.domain.next_steps import next_conf
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.stages.finished import total_batches
from ownership.stages.parts import Parts

FIRST_DELAY_MS = 10_000
LAST_DELAY_MS = 900_000
MAX_REPORTED = 50
"""Events that a summary names of each sort; all are in the ledger."""
MAX_PLANS = 20
MAX_CONFLICTS = 20
WAITING, TAKEN_OVER = "waiting", "taken_over"
"""What the summary counts open events as, beside their states."""
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


def settle(parts: Parts, pulled: Pulled) -> Settled:
    """Release the events that this run still holds; count how its events ended.

    An event that is open without a recorded reason was in a stage that died: it failed. One that
    only waits for an earlier event of its lane may be claimed at once.
    """
    claimed = [e for s in pulled.slices for e in s.events]
    held = {e.mid: e for e in parts.queue.current(claimed)}
    rows = parts.events.read([e.mid for e in claimed])
    by_outcome: dict[str, list[ClaimedEvent]] = defaultdict(list)
    for e in claimed:
        if e.mid in rows:  # else it is so old that retention removed it
            outcome = _outcome_of(rows[e.mid], e, held=e.mid in held)
            by_outcome[outcome].append(held.get(e.mid, e))

    failures = _release(parts, by_outcome[WAITING], by_outcome[EventState.FAILED], rows)
    failures = pulled.refused | failures
    waits = {e.mid: rows[e.mid].reason or WAITING for e in by_outcome[WAITING][:MAX_REPORTED]}
    not_done = [e.mid for state in (EventState.SKIPPED, EventState.ABANDONED) for e in by_outcome[state]]
    not_done = sorted(not_done, key=lambda mid: mid not in pulled.own)[:MAX_REPORTED]
    notes = pulled.notes | {mid: _ended(rows[mid]) for mid in not_done}
    for e in by_outcome[EventState.DECLINED]:
        # The operator asked this very run to apply a plan; that an approval was not given fails no run.
        where = failures if rows[e.mid].options.plan_of else notes
        where[e.mid] = rows[e.mid].reason or EventState.DECLINED
    completed = [rows[e.mid] for e in sorted(by_outcome[EventState.COMPLETED], key=lambda e: e.transfer.key)]
    deleted = ((r.mid, r.verdict) for r in completed if r.verdict and r.giver_deleted)
    notes |= {mid: f"giver deleted: {v.reason}" for mid, v in islice(deleted, MAX_REPORTED)}
    reported = dict(islice(failures.items(), MAX_REPORTED))
    summary = Summary(
        events={outcome: len(events) for outcome, events in by_outcome.items() if events},
        batches=total_batches(r.counts for r in completed),
        failures=reported,
        waits=pulled.waits | waits,
        notes=notes,
        **_details(parts, rows, reported, not_done),
    )
    return Settled(summary, completed)


def _release(
    parts: Parts,
    waiting: Sequence[ClaimedEvent],
    failed: Sequence[ClaimedEvent],
    rows: Mapping[str, EventRow],
) -> dict[str, str]:
    """Let go of these events: the failed ones with the delay of their attempts. Returns why each failed, by mid."""
    failures = {e.mid: _failure(rows[e.mid]) for e in failed}
    unrecorded = [e for e in failed if rows[e.mid].state != EventState.FAILED]
    parts.events.fail([(e, failures[e.mid], rows[e.mid].attempts + 1) for e in unrecorded])
    parts.queue.release(waiting, next_try_ms=0)
    now = now_ms()
    for attempts, events in map_reduce(failed, lambda e: rows[e.mid].attempts).items():
        parts.queue.release(events, next_try_ms=now + next_try_ms(attempts))
    return failures


def _outcome_of(row: EventRow, event: ClaimedEvent, *, held: bool) -> str:
    """What the run's summary counts an event as, by the claim's first token; `held`: the run still holds it."""
    if row.final:
        return row.state
    if not held:
        return TAKEN_OVER
    # A wait that an earlier run recorded says nothing about this one: its stage may have died.
    if row.waits_for and row.fencing_token >= event.fencing_token:
        return WAITING
    return row.state if row.state == EventState.AWAITING_APPROVAL else EventState.FAILED


def _failure(row: EventRow) -> str:
    """Why an open event failed: its reason, unless that is only an earlier run's wait."""
    return row.reason if row.reason and not row.waits_for else _DIED


def _ended(row: EventRow) -> str:
    """Why an event ended that was not carried out."""
    return f"{row.state}: {row.reason}" if row.state == EventState.SKIPPED else row.reason or row.state


def _details(
    parts: Parts, rows: Mapping[str, EventRow], failed: Collection[str], not_done: Collection[str]
) -> dict[str, Any]:
    """Plans, conflicts, and the users and the next conf of the events that an operator must look at."""
    plans = [
        PlanSummary.model_validate_json(row.report)
        for row in rows.values()
        if row.report and row.state in (EventState.REHEARSED, EventState.AWAITING_APPROVAL)
    ][:MAX_PLANS]
    conflicts = [
        row
        for row in rows.values()
        if row.state == EventState.COMPLETED and row.counts.get(BatchOutcome.CHANGED_ELSEWHERE)
    ]
    mids = (*failed, *not_done, *(p.mid for p in plans), *(r.mid for r in conflicts[:MAX_REPORTED]))
    named = {m: rows[m] for m in mids if m in rows}  # what the conf named may be no event
    # What failed may have been read before `settle` wrote that.
    states = {m: EventState.FAILED if m in failed and not r.final else r.state for m, r in named.items()}
    confs = {m: next_conf(states[m], m, r.digest) for m, r in named.items()}
    return {
        "plans": tuple(plans),
        "conflicts": tuple(islice(_conflicts(parts, conflicts), MAX_CONFLICTS)),
        "users": {m: f"{r.transfer.from_user} → {r.transfer.to_user}" for m, r in named.items()},
        "next_conf": {m: conf for m, conf in confs.items() if conf},
    }


def _conflicts(parts: Parts, events: Iterable[EventRow]) -> Iterator[Conflict]:
    """Batches that events left alone because another writer changed them."""
    for event in events:
        for r in parts.changes.read_plan(
            event.mid, outcome=BatchOutcome.CHANGED_ELSEWHERE, limit=MAX_CONFLICTS
        ):
            yield Conflict(mid=event.mid, **r.planned.id._asdict())
