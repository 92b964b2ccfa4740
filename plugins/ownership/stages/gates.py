"""Where a planned event ends or waits instead of being applied: dry runs, stale plans, approvals."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import NamedTuple

import structlog

from ownership.domain.clock import HOUR_MS, now_ms
from ownership.domain.contracts import Phase, PlanSummary
from ownership.domain.next_steps import next_conf
from ownership.domain.plan_report import PlanReport, owners_text
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.stages.claimed_work import ClaimedWork
from ownership.stages.parts import Parts

log = structlog.get_logger(__name__)

MAX_DIFFERENCES = 3


class Plan(NamedTuple):
    """What was planned for some phases."""

    batches: int
    reports: dict[str, PlanReport]
    """By mid, for the events whose plan a person may look at."""
    started: AbstractSet[str]
    """Mids whose changes began in an earlier try: their plan needs no approval any more."""


def end_here(parts: Parts, claimed: ClaimedWork, plan: Plan) -> dict[str, EventState]:
    """Drop the phases that do not go on; the state of each of their events, by mid."""
    dry = [p for p in claimed.book.phases if claimed.events[p.events[0].mid].options.dry_run]
    rehearsed = [(e, plan.reports[e.mid]) for p in dry for e in p.events]
    parts.events.rehearse([(e, _summary(r, EventState.REHEARSED), r.outcomes) for e, r in rehearsed])
    claimed.drop(dry)
    ended: dict[str, EventState] = dict.fromkeys((e.mid for e, _ in rehearsed), EventState.REHEARSED)
    for phase in list(claimed.book.phases):
        if state := _gate(parts, claimed, plan, phase):
            claimed.drop([phase])
            ended |= dict.fromkeys((e.mid for e in phase.events), state)
    return ended


def _gate(parts: Parts, claimed: ClaimedWork, plan: Plan, phase: Phase) -> EventState | None:
    held = phase.events[0]
    event = claimed.events[held.mid]
    report = plan.reports.get(held.mid)
    if report is None or plan.started & {e.mid for e in phase.events}:
        return None
    if event.options.plan_of and report.digest != event.options.digest:
        return _refused(parts, held, event, report)
    limit = parts.settings.approval_batches
    if limit and report.batches > limit and report.digest != event.approved_digest:
        return _left_to_approval(parts, held, event, report, limit)
    return None


def _refused(parts: Parts, held: ClaimedEvent, event: EventRow, report: PlanReport) -> EventState:
    why = (
        f"declined: the plan of {event.options.plan_of} no longer holds: {_differences(parts, event, report)}"
    )
    parts.events.decline(held, why)
    log.warning("plan refused", mid=held.mid, why=why)
    return EventState.DECLINED


def _left_to_approval(
    parts: Parts, held: ClaimedEvent, event: EventRow, report: PlanReport, limit: int
) -> EventState:
    again = "; the plan has changed since it was approved" if event.approved_digest else ""
    until_ms = now_ms() + parts.settings.approval_hours * HOUR_MS
    why = f"{report.batches} batches are more than approval.batches = {limit}{again}"
    parts.events.await_approval(held, _summary(report, EventState.AWAITING_APPROVAL), why, until_ms)
    log.warning("transfer awaits approval", mid=held.mid, why=why, digest=report.digest)
    return EventState.AWAITING_APPROVAL


def _summary(report: PlanReport, state: EventState) -> PlanSummary:
    """The plan as people read it, with the conf that goes on from `state`."""
    plan = report.summary()
    conf = next_conf(state, plan.mid, plan.digest) or ""
    return plan.model_copy(update={"state": state, "next_conf": conf})


def _differences(parts: Parts, event: EventRow, report: PlanReport) -> str:
    """What has changed since the dry run, the first few."""
    mid = event.options.plan_of or ""
    changes = [r.row for r in parts.changes.read_plan(mid) if r.hop and r.row]
    now = parts.rows.read([before.id for before in changes])
    found = []
    for before in changes:
        row = now.get(before.id)
        name = f"batch {before.id.batch_id} of course {before.id.course_id}"
        if row is None:
            found.append(f"{name} is gone")
        elif row.owners != before.owners:
            found.append(f"{name} was {owners_text(before)} and is {owners_text(row)}")
        elif row.status != before.status:
            found.append(f"{name} had status {before.status} and has {row.status}")
    if not found:
        return f"it had {len(changes)} batches, now there are {report.batches}"
    more = f" and {len(found) - MAX_DIFFERENCES} more" if len(found) > MAX_DIFFERENCES else ""
    return "; ".join(found[:MAX_DIFFERENCES]) + more
