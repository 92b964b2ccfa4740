"""The sensor that pulls, Airflow's side of `stages.pull`; and what every stage behind it is to Airflow."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseSensorOperator
from airflow.sdk.exceptions import AirflowSensorTimeout, DownstreamTasksSkipped

from ownership.edge.versions import INTERFACE, check_interface, missing

if TYPE_CHECKING:
    from airflow.sdk import Context

    from ownership.domain.contracts import Pulled
    from ownership.stages.parts import Parts
    from ownership.stages.pull import Collected, RunRequest

PULLED = "pulled"
"""XCom key of the counts, beside the slices that are mapped over."""
MAX_MAPPED = 1024
"""Most mapped instances of a task: Airflow's own limit, and that of setting `max_mapped`."""

UNNAMED = "an operator"
"""Who started a run, where Airflow does not say."""

if not TYPE_CHECKING:
    __getattr__ = missing


class PullTransferEvents(BaseSensorOperator):
    """Accepts events into the ledger, claims those that may be worked on, returns their slices.

    What it pulls follows from the run's type (the DAG's manual has the table). It pokes again while events are only
    too young, and while another run works on what the run's own events wait for: after `poke_interval`, or earlier if
    the events are old enough then. What a poke claimed stays the run's; when `timeout` has passed, the run goes on
    with what it has. With nothing to do it skips everything after it, and the run is green.
    """

    _parts: Parts
    _collected: Collected
    _max_interval: float

    def __init__(self, *, interface: int = INTERFACE, **kwargs: Any) -> None:
        """`interface` is what the DAG file expects of the plugin."""
        super().__init__(**kwargs)
        self.interface = interface

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Start the run, poke, hand over. What was claimed is free again if the task is told to end meanwhile."""
        from ownership.edge.hooks import opened_intake, opened_parts
        from ownership.edge.interruption import Interrupted, interruptible
        from ownership.stages.pull import hand_over, start_run

        check_interface(self.interface)
        request = self._request(context)
        self._max_interval = self.poke_interval
        with interruptible(), opened_parts() as parts:
            try:
                with opened_intake(parts, by_hand=request.by_hand) as intake:
                    self._parts, self._collected = parts, start_run(parts, intake, request)
                    self._poke_in_time(context)
                    pulled = hand_over(parts, self._collected)
                _ask_again(context, parts)
            except Interrupted:
                parts.queue.release_all(request.run_id)
                raise
        self._report(context, pulled)
        if pulled.refused and not pulled.slices:  # the tasks behind the stages fail the run
            context["ti"].xcom_push(key="return_value", value=[])
            raise DownstreamTasksSkipped(tasks=self._stages(context))
        if not pulled.slices:
            raise DownstreamTasksSkipped(tasks=[*self._after(mapped=False), *self._stages(context)])
        return [s.model_dump(mode="json") for s in pulled.slices]

    def poke(self, context: Context) -> bool:  # noqa: ARG002  # Airflow's signature
        """One pass. True if there is nothing more that is worth waiting for."""
        from ownership.domain.clock import now_ms
        from ownership.stages.pull import collect

        self._collected = collect(self._parts, self._collected)
        if until_ms := self._collected.young_until_ms:
            self.poke_interval = min(max(until_ms - now_ms(), 0) / 1000, self._max_interval)
        else:
            self.poke_interval = self._max_interval
        return self._collected.complete

    def _poke_in_time(self, context: Context) -> None:
        """Airflow's loop of pokes, to its end or until the time-out."""
        try:
            super().execute(context)
        except AirflowSensorTimeout:
            self.log.info("not waited for longer; the run goes on with what it has")

    def _after(self, *, mapped: bool) -> list[str]:
        """The names of the tasks behind this one: the stages, which are mapped, or the others."""
        names = sorted(self.get_flat_relative_ids(upstream=False))
        return [n for n in names if bool(self.dag.get_task(n).get_closest_mapped_task_group()) is mapped]

    def _stages(self, context: Context) -> list[str | tuple[str, int]]:
        """The stages to skip. In a run that was cleared, the mapped instances of before are there still."""
        names = self._after(mapped=True)
        instances = range(0 if context["ti"].try_number == 1 else MAX_MAPPED)
        return [*names, *itertools.product(names, instances)]

    def _request(self, context: Context) -> RunRequest:
        from ownership.domain.clock import to_ms
        from ownership.domain.conf import manual_events, orders
        from ownership.stages.intake import Window
        from ownership.stages.pull import RunRequest

        run = context["dag_run"]
        conf = run.conf or {}
        run_type = str(getattr(run.run_type, "value", run.run_type))
        at_ms = to_ms(run.run_after)
        user = run.triggering_user_name
        window = None
        if run_type in ("scheduled", "backfill") and run.data_interval_start and run.data_interval_end:
            window = Window(to_ms(run.data_interval_start), to_ms(run.data_interval_end))
        return RunRequest(
            run_id=run.run_id,
            window=window,
            requests=manual_events(conf, run_id=run.run_id, at_ms=at_ms, by=user or None),
            at_ms=at_ms,
            orders=orders(conf),
            patient=run_type == "asset_triggered",
            started_by=user or UNNAMED,
        )

    def _report(self, context: Context, pulled: Pulled) -> None:
        """The counts as metrics, XCom and log; notes and waits as log lines."""
        from ownership.edge import metrics

        metrics.pulled(pulled)
        context["ti"].xcom_push(key=PULLED, value=pulled.model_dump(mode="json", exclude={"slices"}))
        self.log.info(
            "run %s: %s new events, %s known, %s rejected, %s follow-ups; %s claimed in %s slices",
            context["dag_run"].run_id, pulled.received, pulled.known, pulled.rejected, pulled.follow_ups,
            pulled.claimed, len(pulled.slices),
        )  # fmt: skip
        for mid, note in (pulled.notes | pulled.refused).items():
            self.log.warning("%s %s", mid, note)
        for mid, wait in pulled.waits.items():
            level = logging.WARNING if mid in pulled.own else logging.INFO
            self.log.log(level, "event %s is not in this run: it %s", mid, wait)


def _ask_again(context: Context, parts: Parts) -> None:
    """Start the approval DAG for transfers that no run asks about: theirs was deleted, or never started."""
    from airflow.sdk import AssetAlias

    from ownership.edge.approvals import ALIAS, WANTED, asks
    from ownership.stages.approval_questions import awaits_a_question

    if awaits_a_question(parts, asks(context["ti"])):
        context["outlet_events"][AssetAlias(ALIAS)].add(WANTED)


class PullUndo(PullTransferEvents):
    """Queues an undo for each event that the conf names, and claims these and nothing else."""

    def _request(self, context: Context) -> RunRequest:
        from ownership.domain.clock import to_ms
        from ownership.domain.conf import undo_order
        from ownership.stages.pull import RunRequest

        run = context["dag_run"]
        return RunRequest(
            run_id=run.run_id,
            at_ms=to_ms(run.run_after),
            orders=undo_order(run.conf or {}),
            patient=False,
            started_by=run.triggering_user_name or UNNAMED,
            own_only=True,
        )


class Stage(BaseOperator):
    """A stage of one slice. It fetches what the task before it has returned for the slice, and returns its own result.

    As the argument of a task function the same would take three more calls to Airflow's API server, each before the
    stage begins: two that count instances, and one that stores the argument a second time.
    """

    _given: dict[str, Any] | None = None

    def __init__(self, *, run: str, given_by: str, **kwargs: Any) -> None:
        """`run` is a function of `edge.tasks`; `given_by` is the task before: an instance of it, or the pull."""
        super().__init__(**kwargs)
        self.run_name, self.given_by = run, given_by

    def execute(self, context: Context) -> dict[str, Any]:
        """Run the stage."""
        from ownership.domain.contracts import returned
        from ownership.edge import tasks

        stage: Callable[[Any], dict[str, Any]] = getattr(tasks, self.run_name)
        return stage(returned(self._fetch(context["ti"]), self.given_by))

    def slice_label(self, ti: Any) -> str:
        """The name of an instance in Airflow's UI: its slice's, or its number."""
        return str((self._fetch(ti) or {}).get("label", ti.map_index))

    def _fetch(self, ti: Any) -> dict[str, Any] | None:
        if self._given is None:
            mapped = self.dag.get_task(self.given_by).get_closest_mapped_task_group()
            found = ti.xcom_pull(task_ids=self.given_by, map_indexes=ti.map_index if mapped else None)
            self._given = found if mapped or not found else found[ti.map_index]
        return self._given
