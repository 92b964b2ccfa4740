"""What people are asked: a question for each transfer that awaits an approval.

A run of the approval DAG asks. It may end, or be deleted, before it is answered; then another run asks in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ownership.domain.clock import now_ms
from ownership.domain.contracts import PlanSummary
from ownership.domain.plan_report import escaped, markdown
from ownership.stages.parts import Parts


def awaits_a_question(parts: Parts, asks: Callable[[str], bool]) -> bool:
    """True if a transfer awaits an approval that no run asks for; `asks` says whether a run still does."""
    return any(run is None or not asks(run) for run in parts.events.asking_runs())


def questions(parts: Parts, *, run_id: str, asks: Callable[[str], bool], limit: int) -> list[dict[str, Any]]:
    """What `run_id` asks people: a question for each transfer that awaits an approval which no run asks for yet.

    `asks` says whether another run still does. At most `limit` questions are returned; another run asks the rest.
    """
    now = now_ms()
    gone = {run for run in parts.events.asking_runs() if run and run != run_id and not asks(run)}
    found = []
    for event in parts.events.to_be_asked(run_id, gone=gone, limit=limit):
        if not event.report:
            continue
        plan = PlanSummary.model_validate_json(event.report)
        users = f"{event.transfer.from_user} → {event.transfer.to_user}"
        asked_for = escaped(
            f"Requested by {event.requested_by or 'an unnamed person'}: {event.request_reason or 'no reason given'}."
        )
        found.append(
            {
                "mid": event.mid,
                "digest": event.digest,
                "label": users[:200],
                "subject": f"Approve: {plan.batches} course batches, {users}",
                "body": f"{asked_for}\n\n{markdown(plan)}",
                "seconds": (event.awaits_until_ms - now) // 1000,
            }
        )
    return found
