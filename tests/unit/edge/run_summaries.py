"""Summaries of runs, and the messages that they make."""

from __future__ import annotations

from typing import Any

from ownership.domain.contracts import Conflict, PlanSummary, Summary
from ownership.domain.next_steps import next_conf
from ownership.domain.states import EventState
from ownership.edge.run_message import RunMessage, run_message

DAG_ID = "user_ownership_transfer"
RUN_ID = "manual__2026-11-23T08:00:00+00:00"
LINK = "https://airflow.example/dags/user_ownership_transfer/runs/manual__2026"
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a&b",
    "{{ 7*7 }}",
    "{% raw %}",
    "%s%n",
]


def message_of(summary: Summary, *, run_id: str = RUN_ID, link: str = LINK) -> RunMessage:
    found = run_message(summary, dag_id=DAG_ID, run_id=run_id, link=link)
    assert found
    return found


def failed(*mids: str, why: str = "User-Org unavailable: HTTP 503") -> Summary:
    return Summary(
        events={"failed": len(mids)},
        failures=dict.fromkeys(mids, why),
        users=dict.fromkeys(mids, "old-1 → new-1"),
        next_conf={m: next_conf(EventState.FAILED, m) or "" for m in mids},
    )


def plan(mid: str = "m2", state: EventState = EventState.AWAITING_APPROVAL, **more: Any) -> PlanSummary:
    digest = "0123456789abcdef0123"
    given = {
        "courses": {"c1": 39, "c2": 2},
        "more_courses": 1,
        "conflicts": 3,
        "next_conf": next_conf(state, mid, digest) or "",
        **more,
    }
    return PlanSummary(
        mid=mid, from_user="old-2", to_user="new-2", state=state, digest=digest, batches=42, **given
    )


def conflict(text: str) -> Conflict:
    return Conflict(mid=text, course_id=text, batch_id=text)


CONFLICTS = Summary(
    conflicts=(Conflict(mid="m4", course_id="c1", batch_id="b1"),),
    batches={"changed_elsewhere": 1, "moved": 4},
    users={"m4": "old-4 → new-4", "m": "x → y"},
)
EVERYTHING = failed("m1").model_copy(
    update={"plans": (plan(), plan("m3", EventState.REHEARSED)), "conflicts": CONFLICTS.conflicts}
)
