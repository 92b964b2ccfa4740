"""The task of `ownership_health`, as Airflow runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException

from ownership.domain.conf import refuse
from ownership.edge import metrics
from ownership.edge.hooks import load_settings
from ownership.edge.interruption import interruptible
from ownership.edge.ledger_hook import opened_database
from ownership.edge.notifications import NEWS
from ownership.edge.versions import missing
from ownership.health.look import look
from ownership.health.problems import problems, sentence
from ownership.ledger.months import ensure_months
from ownership.ledger.months import remove_old as remove_old_rows

if not TYPE_CHECKING:
    __getattr__ = missing

log = structlog.get_logger(__name__)

VERDICT = "verdict"
"""XCom key of what a run found, in one line: the page's API shows it."""
KNOWN = "known"
"""XCom key of the problems that a run found, so that the next one announces only new ones."""


def check() -> str:
    """Look at everything; returns a sentence if all is well.

    A problem is announced when it appears, not again by each run that still finds it.

    :raises AirflowFailException: saying what is wrong.
    :raises ConfError: if the run has a conf. It has looked then: the page shows what the last run found.
    """
    context = get_current_context()
    ti, run = context["ti"], context["dag_run"]
    settings = load_settings()
    with interruptible():
        facts = look(settings, on_worker=True)
    found = problems(facts, deadline_minutes=settings.deadline_minutes)
    metrics.problems(len(found))
    if facts.proven:
        metrics.proven(facts.proven)
    verdict = sentence(facts, found)
    now: dict[str, list[str]] = {}
    for p in found:
        now[p.kind] = sorted({*now.get(p.kind, ()), *p.subjects})
    ti.xcom_push(key=NEWS, value=is_news(_before(ti), now))
    ti.xcom_push(key=KNOWN, value=now)
    ti.xcom_push(key=VERDICT, value=verdict)
    for problem in found:
        log.warning(problem.sentence, kind=problem.kind)
    if facts.backlog and facts.backlog.retention_unread:
        log.warning(
            "the topic's retention cannot be read, so nothing warns before it deletes messages: allow "
            "DescribeConfigs on it",
            why=facts.backlog.retention_unread,
        )
    refuse(run.conf, dag=run.dag_id)
    if found:
        raise AirflowFailException(verdict)
    log.info(verdict)
    return verdict


def remove_old() -> dict[str, Any]:
    """Make the partitions of the next month, and remove what is older than the retention.

    :raises Unavailable: if the ledger does not answer; the next run goes on.
    :raises ConfError: if the run has a conf; then nothing is removed.
    """
    run = get_current_context()["dag_run"]
    refuse(run.conf, dag=run.dag_id)
    settings = load_settings()
    with interruptible(), opened_database() as database:
        ensure_months(database)
        removed = remove_old_rows(database, settings.retention_days)
    log.info("old rows removed", **removed._asdict())
    return removed._asdict()


def is_news(before: dict[str, list[str]], now: dict[str, list[str]]) -> bool:
    """True if there is a problem that was not there before, or one with a new subject. Pure."""
    return any(kind not in before or set(about) - set(before[kind]) for kind, about in now.items())


def _before(ti: Any) -> dict[str, list[str]]:
    """What the run before this one found; empty if there was none, or this one was started by hand and has no date."""
    value = ti.xcom_pull(task_ids=ti.task_id, key=KNOWN, include_prior_dates=True)
    return value if isinstance(value, dict) else {}
