"""Addresses, all relative to the page's own, so that Airflow may be served below any path."""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple
from urllib.parse import quote, urlencode

from ownership.domain.clock import MINUTE_MS, from_ms, to_ms
from ownership.domain.plan import BatchId
from ownership.ledger.reads.lists import Filters
from ownership.page.views.formats import short

_RUN_ID = re.compile(
    r"(manual|scheduled|asset_triggered|backfill|operator_triggered)__\d{4}-(\d\d-\d\d)T(\d\d:\d\d:\d\d)"
)


class RunLink(NamedTuple):
    """A run as Airflow knows it."""

    run_id: str
    dag_id: str
    state: str
    href: str

    @property
    def ended(self) -> bool:
        """True if it brings nothing more."""
        return self.state in ("success", "failed")


def run_label(run_id: str) -> str:
    """A run's kind and time, if its id has Airflow's own form."""
    found = _RUN_ID.match(run_id)
    if not found:
        return short(run_id)
    return f"{found[1].replace('_triggered', '').replace('_', ' ')} {found[2]} {found[3]}"


def detail_href(mid: str, **more: str) -> str:
    """Of a transfer."""
    return f"transfer?{urlencode({'mid': mid, **more})}"


def batch_href(batch: BatchId, **more: str) -> str:
    """Of what happened to a batch; of all batches of its id where the course is empty."""
    course = {"course": batch.course_id} if batch.course_id else {}
    return f"batch?{urlencode({'batch': batch.batch_id, **course, **more})}"


def user_href(user: str, **more: str) -> str:
    """Of what a user holds."""
    return f"user?{urlencode({'user': user, **more})}"


def find_href(text: str) -> str:
    """Of what is known by a text."""
    return f"find?{urlencode({'q': text})}"


def import_href(import_id: str, **more: object) -> str:
    """Of an import."""
    return f"import?{urlencode({'id': import_id, **more})}"


def list_href(f: Filters, **more: str) -> str:
    """Of the list, with its filters."""
    query = {
        "user": f.user,
        "state": f.state,
        "run": f.run_id,
        "course": f.course_id,
        "batch": f.batch_id,
        "request": f.request_id,
        "since": for_field(f.since_ms),
        "before": for_field(f.before_ms),
        **more,
    }
    parameters = urlencode({k: v for k, v in query.items() if v})
    return f"./?{parameters}" if parameters else "./"


def exports(filters: Filters) -> list[tuple[str, str, str]]:
    """Files with all that the list would show page by page: what is in it, its kind, and its address."""
    query = list_href(filters).partition("?")[2]
    return [
        (what, name, f"api/v1/exports/{what}?{'&'.join(filter(None, (f'format={kind}', query)))}")
        for what in ("transfers", "changes")
        for kind, name in (("csv", "CSV"), ("jsonl", "JSON lines"))
    ]


def run_href(dag_id: str, run_id: str, task_id: str = "") -> str:
    """Of a run in Airflow's own pages."""
    end = f"/tasks/{quote(task_id, safe='')}" if task_id else ""
    return f"../dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}{end}"


def for_field(at_ms: int | None) -> str:
    """Epoch ms as a form's date and time (UTC), to the minute where it is a whole one: `at_ms` gives the same again."""
    if at_ms is None:
        return ""
    precision = "milliseconds" if at_ms % 1000 else "seconds" if at_ms % MINUTE_MS else "minutes"
    return from_ms(at_ms).replace(tzinfo=None).isoformat(timespec=precision)


def at_ms(text: str) -> int | None:
    """Epoch ms of a form's date and time (UTC); None if it is empty, none, or beyond the calendar."""
    try:
        at = to_ms(datetime.fromisoformat(text))
        from_ms(at)
    except (ValueError, OverflowError):
        return None
    return at
