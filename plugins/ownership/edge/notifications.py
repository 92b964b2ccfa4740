"""One message for a run that needs somebody: as mail, to a webhook, or both.

`message` says whether there is anything to tell, and what. `RunNotifier` sends it; the settings
`notify.email.to` and `notify.webhook.connection` say where to.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

import structlog
from airflow.sdk.bases.notifier import BaseNotifier
from airflow.sdk.configuration import conf
from airflow.sdk.log import mask_secret, redact  # type: ignore[attr-defined]  # as providers import it

from ownership.domain.states import EventState
from ownership.domain.text import one_line

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ownership.domain.contracts import PlanSummary, Summary
    from ownership.domain.settings import Settings

log = structlog.get_logger(__name__)

TRANSFERS = "user_ownership_transfer"
"""The DAG that takes the conf of a next step."""
SMTP = "smtp_default"

FAILED, APPROVAL_WANTED, CONFLICTS = "failed", "approval_wanted", "conflicts"
"""The kinds: why a run is told of."""

LISTED = 20
"""Most entries of a list; the others are counted."""
SUBJECT, ID, USERS, REASON, CONF = 200, 300, 600, 300, 8000
"""Most characters of each. A conf is left out where it is longer: half of one is of no use."""

SECONDS = 15.0
"""A message is sent or given up within this: 20 s after a task's end (``[core] task_success_overtime``)
its process is killed."""
CALL_SECONDS = 10.0
"""Time-out of the webhook, for the connection and for each wait for bytes."""


class NextStep(NamedTuple):
    """What to do, and what to paste for it, if anything."""

    text: str
    conf: str = ""


class Message(NamedTuple):
    """The same in the forms that are sent."""

    subject: str
    """One line."""
    text: str
    html: str
    body: dict[str, Any]
    """For a webhook, as JSON."""


class _Part(NamedTuple):
    title: str
    lines: Sequence[str]
    left_out: int


def message(summary: Summary, *, dag_id: str, run_id: str, link: str) -> Message | None:
    """What to tell of a run; None if nothing failed, awaits an approval, or was in conflict.

    Pure. Ids and reasons come from outside: each becomes one line of bounded length.
    """
    from ownership.domain.states import BatchOutcome

    approvals = [p for p in summary.plans if p.state == EventState.AWAITING_APPROVAL]
    # The summary names the first few; it counts all.
    counts = {
        FAILED: max(len(summary.failures), summary.failed),
        APPROVAL_WANTED: max(len(approvals), summary.events.get(EventState.AWAITING_APPROVAL, 0)),
        CONFLICTS: max(len(summary.conflicts), summary.batches.get(BatchOutcome.CHANGED_ELSEWHERE, 0)),
    }
    counts = {kind: n for kind, n in counts.items() if n}
    if not counts:
        return None
    failures = dict(list(summary.failures.items())[:LISTED])
    conflicts = summary.conflicts[:LISTED]
    told_users = summary.users | {p.mid: f"{p.from_user} → {p.to_user}" for p in approvals}
    shown = [*failures, *(p.mid for p in approvals[:LISTED])]
    shown += [c.mid for c in conflicts]
    users = {_id(mid): one_line(told_users[mid], USERS) for mid in shown if mid in told_users}
    body = {
        "dag_id": _id(dag_id),
        "run_id": _id(run_id),
        "link": link,
        "kinds": list(counts),
        "counts": counts,
        "failures": {_id(mid): one_line(why, REASON) for mid, why in failures.items()},
        "approvals": [_approval(p) for p in approvals[:LISTED]],
        "conflicts": [
            {"mid": _id(c.mid), "course_id": _id(c.course_id), "batch_id": _id(c.batch_id)} for c in conflicts
        ],
        "users": users,
        "next_step": [
            s._asdict() for s in _next_steps(summary, approvals, failures, conflicts=CONFLICTS in counts)
        ],
    }
    body["subject"] = subject = one_line(f"{dag_id}: {_counted(counts)} ({run_id})", SUBJECT)
    body["text"] = text = _text(body)
    return Message(subject, text, _html(body), body)


def _id(text: str) -> str:
    return one_line(text, ID)


def _counted(counts: Mapping[str, int]) -> str:
    words = {
        FAILED: ("failed", "failed"),
        APPROVAL_WANTED: ("approval wanted", "approvals wanted"),
        CONFLICTS: ("conflict", "conflicts"),
    }
    return ", ".join(f"{n} {words[kind][n > 1]}" for kind, n in counts.items())


def _approval(plan: PlanSummary) -> dict[str, Any]:
    return {
        "mid": _id(plan.mid),
        "digest": _id(plan.digest),
        "batches": plan.batches,
        "courses": {_id(c): n for c, n in list(plan.courses.items())[:LISTED]},
        "more_courses": plan.more_courses,
        "conflicts": plan.conflicts,
    }


def _next_steps(
    summary: Summary, approvals: Sequence[PlanSummary], failures: Iterable[str], *, conflicts: bool
) -> list[NextStep]:
    """What somebody should do, approvals first. The same conf is told once."""
    steps = []
    for plan in approvals[:LISTED]:
        given = plan.next_conf or summary.next_conf.get(plan.mid, "")
        steps.append(
            _pasted(
                f"To approve {_id(plan.mid)}, answer under Required actions, or trigger {TRANSFERS} with",
                given,
            )
        )
    confs = list(dict.fromkeys(summary.next_conf[mid] for mid in failures if mid in summary.next_conf))
    again = {given: mids for given in confs if (mids := _redriven(given))}
    if summary.failed:
        steps.append(
            NextStep(
                "Failed events stay in the queue and are tried again by themselves; until then they block "
                "later events of their users. Cure the reason."
            )
        )
    if again:
        every = list(dict.fromkeys(mid for mids in again.values() for mid in mids))
        given = json.dumps({"redrive": {"mids": every}})
        steps.append(_pasted(f"To try them now, trigger {TRANSFERS} with", given))
    steps += [
        _pasted(f"Once the reason is cured, trigger {TRANSFERS} with", c) for c in confs if c not in again
    ]
    if summary.failures and not (summary.failed or confs):
        steps.append(NextStep("Cure the reason. Where it names no cure, the log of the task has more."))
    if conflicts:
        steps.append(
            NextStep(
                "Batches in conflict were changed by somebody else and left with whom they name now. See "
                "whether that is meant."
            )
        )
    return steps


def _pasted(text: str, given: str) -> NextStep:
    if not given or len(given) > CONF:
        return NextStep(f"{text} the conf that XCom return_value of settle has.")
    return NextStep(f"{text}:", one_line(given, CONF))


def _redriven(given: str) -> list[str]:
    """The mids of a conf that does nothing but redrive mids."""
    try:
        match json.loads(given):
            case {"redrive": {"mids": [*mids], **rest}, **others} if not rest and not others:
                return [m for m in mids if isinstance(m, str)]
    except (ValueError, RecursionError):
        pass
    return []


def _parts(body: Mapping[str, Any]) -> list[_Part]:
    """What is listed, from the webhook's body: the same bounds hold everywhere."""
    users, counts = body["users"], body["counts"]

    def who(mid: str) -> str:
        return f"{mid} ({users[mid]})" if mid in users else mid

    def size(approval: Mapping[str, Any]) -> str:
        courses = f"{'more than ' if approval['more_courses'] else ''}{len(approval['courses'])}"
        rest = f"; {n} that were found would not change" if (n := approval["conflicts"]) else ""
        return f"{approval['batches']} batches in {courses} courses{rest}"

    def which(conflict: Mapping[str, str]) -> str:
        return f"{who(conflict['mid'])}: batch {conflict['batch_id']} of course {conflict['course_id']}"

    told = (
        (FAILED, "Failed", [f"{who(mid)}: {why}" for mid, why in body["failures"].items()]),
        (APPROVAL_WANTED, "Approval wanted", [f"{who(a['mid'])}: {size(a)}" for a in body["approvals"]]),
        (CONFLICTS, "Conflicts", [which(c) for c in body["conflicts"]]),
    )
    return [
        _Part(f"{title} ({counts[kind]})", lines, counts[kind] - len(lines))
        for kind, title, lines in told
        if kind in counts
    ]


def _more(left_out: int) -> str:
    return f"… and {left_out} more; XCom return_value of settle and the ledger have them"


def _head(body: Mapping[str, Any]) -> str:
    return f"Run {body['run_id']} of {body['dag_id']}: {_counted(body['counts'])}."


def _text(body: Mapping[str, Any]) -> str:
    lines = [_head(body)] + ([body["link"]] if body["link"] else [])
    for title, listed, left_out in _parts(body):
        lines += ["", title, *(f"- {line}" for line in listed)]
        lines += [_more(left_out)] if left_out else []
    lines += ["", "Next step"]
    for step in body["next_step"]:
        lines += [step["text"]] + ([f"    {step['conf']}"] if step["conf"] else [])
    return "\n".join(lines) + "\n"


def _html(body: Mapping[str, Any]) -> str:
    pieces = [f"<p>{escape(_head(body))}</p>"]
    if body["link"]:
        pieces.append(f'<p><a href="{escape(body["link"])}">{escape(body["link"])}</a></p>')
    for title, listed, left_out in _parts(body):
        items = "".join(f"<li>{escape(line)}</li>" for line in listed)
        pieces.append(f"<h3>{escape(title)}</h3><ul>{items}</ul>")
        pieces += [f"<p>{escape(_more(left_out))}</p>"] if left_out else []
    pieces.append("<h3>Next step</h3>")
    for step in body["next_step"]:
        pieces.append(f"<p>{escape(step['text'])}</p>")
        pieces += [f"<pre>{escape(step['conf'])}</pre>"] if step["conf"] else []
    return "\n".join(pieces) + "\n"


Sending = Callable[["Context"], None]


class RunNotifier(BaseNotifier):
    """Sends the message of a run, for ``on_success_callback`` and ``on_failure_callback`` of `settle`.

    It never fails: what cannot be sent is a warning in the log. Mail and webhook are sent at once, so
    neither waits for the other, and both are given up after `SECONDS`, whatever holds them: the name
    server, a server that is silent or drips, or the providers' own tries. Mail waits as long as the extra
    ``timeout`` of its connection says (30 s, a socket operation) and makes ``retry_limit`` (5) more tries;
    the webhook has `CALL_SECONDS` and one try.

    The providers' notifiers are called by their `notify`: their texts are not rendered as templates.
    """

    def notify(self, context: Context) -> None:
        """Send the run's message, if there is something to tell and somebody to tell it to."""
        until = time.monotonic() + SECONDS
        try:
            from ownership.edge.hooks import load_settings

            settings = load_settings()
            if not settings.notify_email_to.strip(" ,") and not settings.notify_webhook:
                return
            ti = context["ti"]
            told = message(
                _summary(context), dag_id=ti.dag_id, run_id=ti.run_id, link=_link(ti.dag_id, ti.run_id)
            )
            if told:
                _send(_sendings(settings, told), context, until)
        except Exception as e:  # noqa: BLE001  # the run has ended as it has, told or not
            log.warning("notification not sent", why=_why(e))


NEWS = "news"
"""XCom key: true if a task found something that nobody was told of yet."""


class NewsNotifier(RunNotifier):
    """Sends the message of a task that failed only if it found something new."""

    def notify(self, context: Context) -> None:
        """Send it, unless the same was told before."""
        ti = context["ti"]
        if ti.xcom_pull(task_ids=ti.task_id, key=NEWS) is False:
            log.info("nothing new to tell")
            return
        super().notify(context)


def _summary(context: Context) -> Summary:
    """How the run ended, from the task's own XCom; or how the task failed."""
    from ownership.domain.contracts import Summary

    ti = context["ti"]
    if error := context.get("exception"):
        return Summary(failures={ti.task_id: redact(str(error)) or type(error).__name__})
    value = ti.xcom_pull(task_ids=ti.task_id, key="return_value", map_indexes=ti.map_index)
    if not isinstance(value, Mapping):  # the task was killed
        return Summary(failures={ti.task_id: "ended without a summary: its log says why"})
    return Summary.model_validate({k: v for k, v in value.items() if k in Summary.model_fields})


def _link(dag_id: str, run_id: str) -> str:
    """The run's page in the UI; empty where ``[api] base_url`` is not set."""
    base_url = str(conf.get("api", "base_url", fallback="") or "").rstrip("/")
    return f"{base_url}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}" if base_url else ""


def _sendings(settings: Settings, told: Message) -> dict[str, Sending]:
    """What sends the message, by way; one that cannot be made is logged and left out."""
    makers: dict[str, Callable[[], Sending]] = {}
    if to := [a for a in map(str.strip, settings.notify_email_to.split(",")) if a]:
        makers["mail"] = lambda: _mail(to, told)
    if conn_id := settings.notify_webhook:
        makers["webhook"] = lambda: _webhook(conn_id, told)
    made = {}
    for way, make in makers.items():
        try:
            made[way] = make()
        except Exception as e:  # noqa: BLE001  # the other one is still sent
            log.warning("notification not sent", by=way, why=_why(e))
    return made


def _mail(to: list[str], told: Message) -> Sending:
    """As mail; the sender is extra ``from_email`` of the connection."""
    from airflow.providers.smtp.notifications.smtp import SmtpNotifier

    mail = SmtpNotifier(to=to, subject=told.subject, html_content=told.html, smtp_conn_id=SMTP)
    return mail.notify


def _webhook(conn_id: str, told: Message) -> Sending:
    """As JSON to the URL of the connection."""
    from airflow.providers.http.notifications.http import HttpNotifier

    from ownership.edge.connections import connection

    # Many webhooks have their secret in the path, which the client's errors name.
    host = connection(conn_id).host or ""
    url = urlsplit(host if "://" in host else f"//{host}")
    path = url.path + (f"?{url.query}" if url.query else "")
    if len(path) > 8:
        mask_secret(path)
    webhook = HttpNotifier(
        http_conn_id=conn_id,
        endpoint="",
        json=told.body,
        headers={"Content-Type": "application/json"},
        # A redirect is an error: a client that follows it asks again without the body.
        extra_options={"timeout": CALL_SECONDS, "allow_redirects": True, "max_redirects": 0},
    )
    return webhook.notify


def _send(sendings: Mapping[str, Sending], context: Context, until: float) -> None:
    """Send at once, in threads that nobody waits for after `until`."""

    def run(way: str, send: Sending) -> None:
        try:
            send(context)
        except Exception as e:  # noqa: BLE001  # providers raise what they like
            log.warning("notification not sent", by=way, why=_why(e))
        else:
            log.info("notification sent", by=way)

    threads = {
        way: threading.Thread(
            target=copy_context().run,  # the log's fields: which task this is
            args=(run, way, send),
            name=f"notify-{way}",
            daemon=True,
        )
        for way, send in sendings.items()
    }
    for thread in threads.values():
        thread.start()
    for way, thread in threads.items():
        thread.join(max(until - time.monotonic(), 0))
        if thread.is_alive():
            log.warning("notification given up", by=way, after_seconds=SECONDS)


def _why(error: Exception) -> str:
    """For the log: secrets that Airflow knows of are masked."""
    return one_line(f"{type(error).__name__}: {redact(str(error))}", REASON)
