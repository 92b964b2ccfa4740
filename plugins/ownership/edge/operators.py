"""The sensor that pulls: Airflow's side of `stages.pull`."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.exceptions import DownstreamTasksSkipped

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ownership.domain.contracts import Pulled
    from ownership.stages.parts import Parts
    from ownership.stages.pull import Intake, Order

PULLED = "pulled"
"""XCom key of the counts, beside the slices that are mapped over."""
MAX_PASSES = 20
MAX_SLICES = 256
"""Upper bound of setting `max_mapped`."""


class PullTransferEvents(BaseSensorOperator):
    """Accepts events into the ledger, claims those that may be worked on, returns their slices.

    What it pulls follows from the run's type (the DAG's manual has the table). Events that are only
    too young are waited for, a grace (default 1 s) at most per pass. With nothing to do it skips
    everything after it, and the run is green.
    """

    def poke(self, context: Context) -> PokeReturnValue:
        """One pull; what it claimed is free again if the task is told to end meanwhile."""
        from ownership.edge import metrics
        from ownership.edge.hooks import load_settings, opened_intake, opened_parts
        from ownership.edge.interruption import Interrupted, interruptible

        settings = load_settings()
        order = self._order(context)
        with interruptible(), opened_parts(settings) as parts:
            try:
                with opened_intake(parts, by_hand=order.by_hand) as intake:
                    pulled = self._passes(parts, intake, order)
            except Interrupted:
                parts.queue.release_all(order.run_id)
                raise
        metrics.pulled(pulled)
        self._tell(context, pulled)
        if not pulled.slices:
            raise DownstreamTasksSkipped(tasks=self._everything_after(context))
        return PokeReturnValue(is_done=True, xcom_value=[s.model_dump(mode="json") for s in pulled.slices])

    def _passes(self, parts: Parts, intake: Intake, order: Order) -> Pulled:
        """Passes until nothing is only too young."""
        from ownership.stages.pull import pull

        pulled = None
        for _ in range(MAX_PASSES):
            claimed = pulled.claimed if pulled else 0
            pulled, young_until_ms = pull(parts, intake, order, pulled)
            # One more pass for the tail of a burst; more only for a run that has nothing yet.
            if not young_until_ms or (claimed and pulled.claimed):
                break
            time.sleep(
                min(max(young_until_ms / 1000 - time.time(), 0), parts.settings.grace_ms / 1000) + 0.01
            )
        assert pulled is not None  # noqa: S101  # at least one pass
        return pulled

    def _everything_after(self, context: Context) -> list[str | tuple[str, int]]:
        """What to skip. In a run that was cleared, the mapped instances of before are there still."""
        tasks: list[str | tuple[str, int]] = sorted(self.get_flat_relative_ids(upstream=False))
        if context["ti"].try_number > 1:
            tasks += [(task, index) for task in list(tasks) for index in range(MAX_SLICES)]  # type: ignore[misc]
        return tasks

    def _order(self, context: Context) -> Order:
        from ownership.domain.conf import manual_events, orders
        from ownership.stages.pull import Order, Window

        run = context["dag_run"]
        conf = run.conf or {}
        run_type = str(getattr(run.run_type, "value", run.run_type))
        at_ms = _ms(run.run_after)
        by = run.triggering_user_name or ""
        window = None
        if run_type in ("scheduled", "backfill") and run.data_interval_start and run.data_interval_end:
            window = Window(_ms(run.data_interval_start), _ms(run.data_interval_end))
        return Order(
            run_id=run.run_id,
            window=window,
            requests=manual_events(conf, run_id=run.run_id, at_ms=at_ms, by=by or None),
            at_ms=at_ms,
            orders=orders(conf),
            patient=run_type == "asset_triggered",
            by=by or "somebody",
        )

    def _tell(self, context: Context, pulled: Pulled) -> None:
        told = pulled.model_dump(mode="json", exclude={"slices"})
        context["ti"].xcom_push(key=PULLED, value=told)
        self.log.info(
            "run %s: %s new events, %s known, %s rejected, %s follow-ups; %s claimed in %s slices",
            context["dag_run"].run_id, pulled.received, pulled.known, pulled.rejected, pulled.follow_ups,
            pulled.claimed, len(pulled.slices),
        )  # fmt: skip
        for mid, what in pulled.told.items():
            self.log.warning("%s %s", mid, what)
        for mid, why in pulled.waits.items():
            self.log.log(30 if mid in pulled.own else 20, "event %s is not in this run: it %s", mid, why)


class PullUndo(PullTransferEvents):
    """Queues an undo for each event that the conf names, and claims these and nothing else."""

    def _order(self, context: Context) -> Order:
        from ownership.domain.conf import undo_order
        from ownership.stages.pull import Order

        run = context["dag_run"]
        return Order(
            run_id=run.run_id,
            at_ms=_ms(run.run_after),
            orders=undo_order(run.conf or {}),
            patient=False,
            by=run.triggering_user_name or "somebody",
            own_only=True,
        )


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
