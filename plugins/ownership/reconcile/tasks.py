"""The tasks of `ownership_reconcile`, as Airflow runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from ownership.domain.conf import ConfError
from ownership.domain.contracts import returned
from ownership.domain.reconciliation import failures, text
from ownership.edge import metrics
from ownership.edge.hooks import opened_parts
from ownership.edge.interruption import interruptible
from ownership.edge.versions import missing
from ownership.reconcile import run
from ownership.reconcile.run import Progress, ReconcileConf, Share
from ownership.stages.parts import Parts

if not TYPE_CHECKING:
    __getattr__ = missing

log = structlog.get_logger(__name__)


def plan() -> list[dict[str, Any]]:
    """The shares of the mapped looks.

    :raises ConfError: if the conf is wrong.
    :raises SettingsError: if a table or the index is missing.
    """
    run_id, conf = _run()
    with opened_parts() as parts:
        shares = run.plan(parts, run_id, conf)
    log.info("reconciliation planned", run_id=run_id, repair=conf.repair, slices=len(shares))
    return [s.model_dump(mode="json") for s in shares]


def ranges(share: Mapping[str, Any]) -> dict[str, int]:
    """Compare every row of a share's ranges with its document, and the other way round."""
    return _look(lambda parts: run.look_at_ranges(parts, Share.model_validate(share)))


def ledger() -> dict[str, int]:
    """Moves that were never proven."""
    run_id, conf = _run()
    return _look(lambda parts: run.look_at_ledger(parts, run_id, conf))


def report() -> dict[str, Any]:
    """Keep, log and count the run's report. Where nothing failed, the verdict is skipped."""
    ti = get_current_context()["ti"]
    try:
        run_id, conf = _run()
        with opened_parts() as parts:
            found = run.put_together(parts, run_id, conf)
    except ConfError as e:
        return {"failures": {"plan_ranges": str(e)}}
    if found is None:
        return {"failures": {"plan_ranges": "did not end: its log says why"}}
    summary, trend = found
    metrics.reconciled(summary.rows, summary.documents, summary.counts)
    metrics.reconciliation_ended(summary.left, summary.in_flight, summary.repaired)
    for line in text(summary, trend):
        log.info(line)
    result = {
        **summary.model_dump(mode="json"),
        "complete": summary.complete,
        "trend": [p.model_dump(mode="json") for p in trend],
    }
    if why := failures(summary):
        log.warning("rows and index differ", run_id=run_id, **why)
        return {**result, "failures": why}
    ti.xcom_push(key="return_value", value=result)
    raise DownstreamTasksSkipped(tasks=["verdict"])


def verdict(summary: Mapping[str, Any] | None) -> None:
    """Fail the run.

    :raises AirflowFailException: always, saying what is left.
    """
    raise AirflowFailException("; ".join(map(str, returned(summary, "report").get("failures", {}).values())))


def _run() -> tuple[str, ReconcileConf]:
    context = get_current_context()
    return context["ti"].run_id, ReconcileConf.of(context["dag_run"].conf)


def _look(look: Callable[[Parts], Progress]) -> dict[str, int]:
    with interruptible(), opened_parts() as parts:
        progress = look(parts)._asdict()
    log.info("reconciliation looked", **progress)
    return progress
