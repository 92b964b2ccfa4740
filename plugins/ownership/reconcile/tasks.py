"""The tasks of `ownership_reconcile`, as Airflow runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import structlog
from airflow.sdk import get_current_context
from airflow.sdk.exceptions import AirflowFailException, DownstreamTasksSkipped

from ownership.domain.conf import ConfError
from ownership.domain.reconciliation import failures, text
from ownership.edge import metrics
from ownership.edge.hooks import opened_parts
from ownership.edge.interruption import interruptible
from ownership.reconcile import run
from ownership.reconcile.run import Order, Share
from ownership.stages.parts import Parts

log = structlog.get_logger(__name__)


def plan() -> list[dict[str, Any]]:
    """The shares of the mapped looks.

    :raises ConfError: if the conf is wrong.
    :raises SettingsError: if a table or the index is missing.
    """
    run_id, order = _run()
    with opened_parts() as parts:
        shares = run.plan(parts, run_id, order)
    log.info("reconciliation planned", run_id=run_id, repair=order.repair, slices=len(shares))
    return [s.model_dump(mode="json") for s in shares]


def ranges(share: Mapping[str, Any]) -> dict[str, int]:
    """Every row of a share's ranges against its document, and the other way round."""
    return _look(lambda parts: run.look_at_ranges(parts, Share.model_validate(share)))


def ledger() -> dict[str, int]:
    """Moves that nobody proved."""
    run_id, order = _run()
    return _look(lambda parts: run.look_at_ledger(parts, run_id, order))


def report() -> dict[str, Any]:
    """The run's report, told, counted and kept; the verdict is skipped where there is nothing to be red for."""
    ti = get_current_context()["ti"]
    try:
        run_id, order = _run()
        with opened_parts() as parts:
            found = run.put_together(parts, run_id, order)
    except ConfError as e:
        return {"failures": {"plan_ranges": str(e)}}
    if found is None:
        return {"failures": {"plan_ranges": "did not end: its log says why"}}
    told, trend = found
    metrics.reconciled(told.rows, told.documents, told.counts)
    metrics.reconciliation_ended(told.left, told.in_flight, told.repaired)
    for line in text(told, trend):
        log.info(line)
    result = {
        **told.model_dump(mode="json"),
        "complete": told.complete,
        "trend": [p.model_dump(mode="json") for p in trend],
    }
    if why := failures(told):
        log.warning("rows and index differ", run_id=run_id, **why)
        return {**result, "failures": why}
    ti.xcom_push(key="return_value", value=result)
    raise DownstreamTasksSkipped(tasks=["verdict"])


def verdict(told: Mapping[str, Any]) -> None:
    """Fail the run.

    :raises AirflowFailException: always, saying what is left.
    """
    raise AirflowFailException("; ".join(map(str, told.get("failures", {}).values())))


def _run() -> tuple[str, Order]:
    context = get_current_context()
    return context["ti"].run_id, Order.of(_given(context["dag_run"].conf))


def _given(conf: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in (conf or {}).items() if v is not None}


def _look(look: Callable[[Parts], dict[str, int]]) -> dict[str, int]:
    with interruptible(), opened_parts() as parts:
        told = look(parts)
    log.info("reconciliation looked", **{k.replace(" ", "_"): n for k, n in told.items()})
    return told
