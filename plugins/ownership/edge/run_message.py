"""What a run tells operators: failures, wanted approvals, conflicts, and what to do next. Pure.

The webhook's body comes first, with all bounds; text and mail are its fields in the templates beside this module. Ids and
reasons come from outside: each becomes one line of bounded length.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ownership.domain.contracts import PlanSummary, Summary
from ownership.domain.next_steps import next_conf
from ownership.domain.states import BatchOutcome, EventState
from ownership.domain.text import one_line

TRANSFERS = "user_ownership_transfer"
"""The DAG that takes the conf of a next step."""

MAX_LISTED = 20
"""Entries of a list; the others are counted."""
MAX_SUBJECT, MAX_ID, MAX_USERS, MAX_REASON, MAX_CONF = 200, 300, 600, 300, 8000
"""Characters of each. A longer conf is left out: half of one is of no use."""


class Kind(StrEnum):
    """Why a run sends a message."""

    FAILED = "failed"
    APPROVAL_WANTED = "approval_wanted"
    CONFLICTS = "conflicts"


_TITLES = {
    Kind.FAILED: "Failed",
    Kind.APPROVAL_WANTED: "Approval wanted",
    Kind.CONFLICTS: "Conflicts",
}
_COUNTED = {
    Kind.FAILED: ("failed", "failed"),
    Kind.APPROVAL_WANTED: ("approval wanted", "approvals wanted"),
    Kind.CONFLICTS: ("conflict", "conflicts"),
}


class NextStep(NamedTuple):
    """What to do, and the conf to paste for it, if any."""

    text: str
    conf: str = ""


class RunMessage(NamedTuple):
    """One message in the forms that are sent."""

    subject: str
    """One line."""
    text: str
    html: str
    body: dict[str, Any]
    """For a webhook, as JSON."""


class _List(NamedTuple):
    title: str
    lines: Sequence[str]
    left_out: int


def run_message(summary: Summary, *, dag_id: str, run_id: str, link: str) -> RunMessage | None:
    """The message of a run; None if nothing failed, awaits an approval, or was in conflict."""
    approvals = [p for p in summary.plans if p.state == EventState.AWAITING_APPROVAL]
    counts = _counts(summary, approvals)
    if not counts:
        return None
    failures = dict(list(summary.failures.items())[:MAX_LISTED])
    approvals, conflicts = approvals[:MAX_LISTED], summary.conflicts[:MAX_LISTED]
    users = summary.users | {p.mid: f"{p.from_user} → {p.to_user}" for p in approvals}
    named = [*failures, *(p.mid for p in approvals), *(c.mid for c in conflicts)]
    steps = list(_next_steps(summary, approvals, failures, counts))
    body = {
        "dag_id": _id(dag_id),
        "run_id": _id(run_id),
        "link": link,
        "kinds": list(counts),
        "counts": counts,
        "failures": {_id(mid): one_line(why, MAX_REASON) for mid, why in failures.items()},
        "approvals": [_approval(p) for p in approvals],
        "conflicts": [{name: _id(value) for name, value in c.model_dump().items()} for c in conflicts],
        "users": {_id(mid): one_line(users[mid], MAX_USERS) for mid in named if mid in users},
        "next_step": [s._asdict() for s in steps],
    }
    in_words = ", ".join(f"{n} {_COUNTED[kind][n > 1]}" for kind, n in counts.items())
    fields = {
        "head": f"Run {body['run_id']} of {body['dag_id']}: {in_words}.",
        "link": link,
        "lists": _lists(body, counts),
        "next_steps": steps,
    }
    subject = one_line(f"{dag_id}: {in_words} ({run_id})", MAX_SUBJECT)
    text = _templates().get_template("run_message.txt").render(fields)
    html = _templates().get_template("run_message.html").render(fields)
    return RunMessage(subject, text, html, body | {"subject": subject, "text": text})


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=select_autoescape(("html",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _counts(summary: Summary, approvals: Collection[PlanSummary]) -> dict[Kind, int]:
    """By kind, how many there are: the summary names the first few and counts all."""
    conflicts = summary.batches.get(BatchOutcome.CHANGED_ELSEWHERE, 0)
    counts = {
        Kind.FAILED: max(len(summary.failures), summary.failed),
        Kind.APPROVAL_WANTED: max(len(approvals), summary.events.get(EventState.AWAITING_APPROVAL, 0)),
        Kind.CONFLICTS: max(len(summary.conflicts), conflicts),
    }
    return {kind: n for kind, n in counts.items() if n}


def _id(text: str) -> str:
    return one_line(text, MAX_ID)


def _approval(plan: PlanSummary) -> dict[str, Any]:
    return {
        "mid": _id(plan.mid),
        "digest": _id(plan.digest),
        "batches": plan.batches,
        "courses": {_id(c): n for c, n in list(plan.courses.items())[:MAX_LISTED]},
        "more_courses": plan.more_courses,
        "conflicts": plan.conflicts,
    }


def _lists(body: Mapping[str, Any], counts: Mapping[Kind, int]) -> list[_List]:
    """The lists of text and mail, from the webhook's body: the same bounds hold everywhere."""
    users = body["users"]

    def event(mid: str) -> str:
        return f"{mid} ({users[mid]})" if mid in users else mid

    def size(approval: Mapping[str, Any]) -> str:
        courses = f"{'more than ' if approval['more_courses'] else ''}{len(approval['courses'])}"
        rest = f"; {n} that were found would not change" if (n := approval["conflicts"]) else ""
        return f"{approval['batches']} batches in {courses} courses{rest}"

    lines = {
        Kind.FAILED: [f"{event(mid)}: {why}" for mid, why in body["failures"].items()],
        Kind.APPROVAL_WANTED: [f"{event(a['mid'])}: {size(a)}" for a in body["approvals"]],
        Kind.CONFLICTS: [
            f"{event(c['mid'])}: batch {c['batch_id']} of course {c['course_id']}" for c in body["conflicts"]
        ],
    }
    return [_List(f"{_TITLES[kind]} ({n})", lines[kind], n - len(lines[kind])) for kind, n in counts.items()]


def _next_steps(
    summary: Summary, approvals: Sequence[PlanSummary], failures: Collection[str], counts: Collection[Kind]
) -> Iterator[NextStep]:
    """What an operator should do, approvals first. The same conf is given once."""
    for plan in approvals:
        approve = f"To approve {_id(plan.mid)}, answer under Required actions, or trigger {TRANSFERS} with"
        yield _pasted(approve, plan.next_conf or summary.next_conf.get(plan.mid, ""))
    confs = {mid: summary.next_conf[mid] for mid in failures if mid in summary.next_conf}
    redriven = [mid for mid, conf in confs.items() if conf == next_conf(EventState.FAILED, mid)]
    if summary.failed:
        yield NextStep(
            "Failed events stay in the queue and are tried again by themselves; until then they block later events of "
            "their users. Cure the reason."
        )
    if redriven:
        conf = json.dumps({"redrive": {"mids": redriven}})
        yield _pasted(f"To try them now, trigger {TRANSFERS} with", conf)
    for conf in dict.fromkeys(conf for mid, conf in confs.items() if mid not in redriven):
        yield _pasted(f"Once the reason is cured, trigger {TRANSFERS} with", conf)
    if summary.failures and not (summary.failed or confs):
        yield NextStep("Cure the reason. Where it names no cure, the log of the task has more.")
    if Kind.CONFLICTS in counts:
        yield NextStep(
            "Another writer changed the batches in conflict; the job left them with the owners that they have now. See "
            "whether that is meant."
        )


def _pasted(text: str, conf: str) -> NextStep:
    if not conf or len(conf) > MAX_CONF:
        return NextStep(f"{text} the conf that XCom return_value of settle has.")
    return NextStep(f"{text}:", one_line(conf, MAX_CONF))
