"""What Airflow knows: of runs, hosts, secrets, the job's settings, and of the last look at the job's health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from airflow.api_fastapi.auth.tokens import get_signing_key
from airflow.configuration import ensure_secrets_loaded
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.variable import Variable
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import func, select, tuple_

from ownership.domain.clock import HOUR_MS, from_ms
from ownership.domain.errors import SettingsError, Unavailable
from ownership.domain.installation import Tries
from ownership.domain.settings import VARIABLE
from ownership.page.actions import HEALTH_DAG, TRANSFER_DAG, UNDO_DAG
from ownership.page.views.links import RunLink, run_href

REPORTING = ((TRANSFER_DAG, "pull_transfer_events"), (HEALTH_DAG, "check"))
"""The tasks that report their worker to the ledger, before they can fail for what the worker is not to blame for."""
SUCCEEDED, FAILED = ("success", "skipped"), ("failed", "up_for_retry")
"""States of a try that has ended."""


def settings_text() -> str | None:
    """The text of the settings' Variable, None if it is set nowhere.

    `Variable.get` takes a failed read for an unset Variable, and rights that are not set let everyone see everything.

    :raises SettingsError: if it cannot be decrypted.
    :raises Unavailable: if it cannot be read.
    """
    for backend in ensure_secrets_loaded():
        try:
            text = backend.get_variable(key=VARIABLE)
        except Exception as e:  # a backend may raise any class
            raise Unavailable(f"Variable '{VARIABLE}'", type(e).__name__) from e
        if text is not None:
            return str(text)
    if _is_stored(VARIABLE):
        raise SettingsError(f"Variable '{VARIABLE}' cannot be decrypted: see [core] fernet_key.")
    return None


def _is_stored(key: str) -> bool:
    with create_session() as session:
        return session.scalar(select(Variable.id).where(Variable.key == key)) is not None


def runs_of(
    run_ids: Iterable[str | None], dag_ids: Collection[str] = (TRANSFER_DAG, UNDO_DAG)
) -> dict[str, RunLink]:
    """The runs that Airflow still has, by id."""
    wanted = sorted({r for r in run_ids if r})
    if not wanted:
        return {}
    columns: Any = (DagRun.run_id, DagRun.dag_id, DagRun.state)
    with create_session() as session:
        rows = session.execute(
            select(*columns).where(DagRun.run_id.in_(wanted), DagRun.dag_id.in_(dag_ids))
        ).all()
    # Only an operator can give runs of both DAGs the same id; then the main DAG's is shown.
    rows = sorted(rows, key=lambda r: r.dag_id == TRANSFER_DAG)
    return {
        r.run_id: RunLink(
            r.run_id, r.dag_id, str(getattr(r.state, "value", r.state)), run_href(r.dag_id, r.run_id)
        )
        for r in rows
    }


def is_paused(dag_id: str) -> bool:
    """True if runs of the DAG would wait."""
    with create_session() as session:
        return bool(session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id)))


def run_conf(dag_id: str, run_id: str) -> dict[str, Any] | None:
    """The conf of a run; None if Airflow has no such run."""
    with create_session() as session:
        row = session.execute(
            select(DagRun.conf).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        ).first()
    return (row[0] or {}) if row else None


class LastLook(NamedTuple):
    """The last look of `ownership_health` that ended."""

    at: datetime
    problems: Mapping[str, Sequence[str]] | None
    """Subjects by kind; None if the look itself did not end well."""
    verdict: str


def last_look() -> LastLook | None:
    """What `ownership_health` found last; None before its first run."""
    ended = (DagRun.dag_id == HEALTH_DAG, DagRun.state.in_(("success", "failed")))
    with create_session() as session:
        run = session.execute(
            select(DagRun.run_id, DagRun.end_date).where(*ended).order_by(DagRun.run_after.desc()).limit(1)
        ).first()
        if run is None:
            return None
        found = session.execute(
            select(XComModel.key, XComModel.value).where(
                XComModel.dag_id == HEALTH_DAG,
                XComModel.run_id == run.run_id,
                XComModel.task_id == "check",
                XComModel.key.in_(("known", "verdict")),
            )
        ).all()
    values = {row.key: row.value for row in found}
    return LastLook(run.end_date, values.get("known"), str(values.get("verdict", "")))


def secret_key() -> str:
    """What this API server signs its own cookies and forms with."""
    return str(get_signing_key("api", "secret_key"))


def tries_by_worker(since_ms: int) -> dict[str, Tries]:
    """The tries that ended since then, by the host of the worker, of the tasks that report it to the ledger."""
    counts: Counter[tuple[str, bool]] = Counter()
    with create_session() as session:
        for table in (TaskInstance, TaskInstanceHistory):
            t: Any = table
            rows = session.execute(
                select(t.hostname, t.state, func.count())
                .join(DagRun, (DagRun.dag_id == t.dag_id) & (DagRun.run_id == t.run_id))
                .where(
                    DagRun.run_after > from_ms(since_ms - HOUR_MS),
                    tuple_(t.dag_id, t.task_id).in_(REPORTING),
                    t.end_date > from_ms(since_ms),
                    t.state.in_((*SUCCEEDED, *FAILED)),
                    t.hostname != "",
                )
                .group_by(t.hostname, t.state)
            )
            for hostname, state, n in rows:
                counts[hostname, state in SUCCEEDED] += n
    return {h: Tries(counts[h, True], counts[h, False]) for h in {h for h, _ in counts}}
