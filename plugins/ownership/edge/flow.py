"""What the DAGs share: the flow behind a pull (slices through three stages, settle, verdict), and form fields.

Imported when a DAG file is parsed, so it imports nothing of the job itself.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import AssetAlias, Param, get_parsing_context, task, task_group

from ownership.edge.approvals import ALIAS
from ownership.edge.assets import FINISHED, INDEX, TABLE
from ownership.edge.notifications import RunNotifier
from ownership.edge.operators import PULLED, PullTransferEvents, Stage
from ownership.edge.retries import RETRIED, RETRIES
from ownership.edge.versions import missing

if not TYPE_CHECKING:
    __getattr__ = missing

ID: dict[str, Any] = {
    "type": ["null", "string"],
    "maxLength": 256,
    "pattern": r"^[^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f][^\x00-\x1f\x7f]*$",
}
"""An id in a form: printable, not blank. The job takes blanks around it off, and checks it again with a message."""


def section(title: str) -> dict[str, Any]:
    """The section of a form that a `Param` stands in, as one of its keywords."""
    return {"section": title}


OPEN = section("Run Parameters")
"""The one section of a form that is open at first; Airflow's UI goes by this name."""


def form(fields: Mapping[str, Param]) -> Mapping[str, Param]:
    """The form of a DAG; empty in the process of a task, where Airflow would check it twice (30 ms) and nothing reads it."""
    return {} if get_parsing_context().task_id else fields


PULL: dict[str, Any] = {
    "poke_interval": timedelta(milliseconds=500),
    "timeout": timedelta(seconds=30),
    "retries": 2,
    **RETRIED,
    "execution_timeout": timedelta(hours=1),
    "outlets": [AssetAlias(ALIAS)],
}
"""A pull. Pokes are short and few: they wait for a grace, or for another run to end its work; a run that waits holds
a slot, so it does not wait for long."""
STAGE: dict[str, Any] = {
    "map_index_template": "{{ task.slice_label(ti) }}",
    "retries": RETRIES,
    **RETRIED,
    "execution_timeout": timedelta(hours=2),
}
LOOKUP, UPDATE, REINDEX = "lookup_users", "update_course_batches", "reindex_course_batches"
NOTIFY = RunNotifier()


@task_group
def transfer(work: dict[str, Any], pull_task: str) -> None:  # noqa: ARG001  # the group is mapped over `work`
    """One lane, or a slice of several, through the three stages."""
    lookup = Stage(
        task_id=LOOKUP,
        run="lookup",
        given_by=pull_task,
        doc_md="Verdicts by User-Org, phases, discovery through the LMS, plan.",
        **STAGE,
    )
    update = Stage(
        task_id=UPDATE,
        run="update",
        given_by=lookup.task_id,
        doc_md="Rows in Cassandra, by compare-and-set.",
        **STAGE,
    )
    reindex = Stage(
        task_id=REINDEX,
        run="reindex",
        given_by=update.task_id,
        doc_md="Documents in Elasticsearch, the proof, the commit; then the later phases of the lanes, each through "
        "all stages.",
        **STAGE,
    )
    lookup >> update >> reindex


# all_done: claims are released whatever became of the stages.
@task(
    trigger_rule="all_done",
    multiple_outputs=False,
    retries=5,
    **RETRIED,
    outlets=[AssetAlias(ALIAS), AssetAlias(FINISHED)],
    inlets=[TABLE, INDEX],  # so that Airflow shows them, even if no DAG is scheduled on them
    on_success_callback=NOTIFY,
    on_failure_callback=NOTIFY,
)
def settle(pull_task: str, *, ti: Any = None) -> dict[str, Any]:
    """Claims released, states counted, the run's summary."""
    from ownership.edge import tasks

    return tasks.settle(
        ti.xcom_pull(task_ids=pull_task, key="return_value"),
        ti.xcom_pull(task_ids=pull_task, key=PULLED),
        pull_task,
    )


# Only a leaf decides a run's state, and settle must not fail: so this fails in its place.
@task(retries=0)
def verdict(summary: dict[str, Any]) -> None:
    """Red when an event failed."""
    from ownership.edge import tasks

    tasks.verdict(summary)


def few_collections() -> None:
    """In the process of a task, let the garbage collector skip what is there already, and run less often.

    Otherwise it walks through what a task reads again and again, and rows hold no cycles. Measured: a third of the CPU of
    three stages with 5,000 batches, half of a reconciliation's. A DAG file begins with it.
    """
    if get_parsing_context().task_id:
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)


def open_ahead(pull_task: str) -> None:
    """In the process of a pull or a stage, connect while Airflow goes on with what comes before the task's own code.

    A DAG file begins with it: to make the DAG takes 15 ms more. A lookup seldom reads rows: it connects to Cassandra
    when it does.
    """
    group = f"{transfer.function.__name__}."
    update, lookup, reindex = (f"{group}{stage}" for stage in (UPDATE, LOOKUP, REINDEX))
    if (task_id := get_parsing_context().task_id) in (pull_task, lookup, update, reindex):
        from ownership.edge import hooks

        hooks.open_ahead(
            rows=task_id != lookup, index=task_id in (lookup, reindex), services=task_id == lookup
        )


def carry_out(pull: PullTransferEvents) -> Any:
    """Wire the stages behind `pull`. Returns the task whose result is the run's summary."""
    settled = settle(pull.task_id)
    transfer.partial(pull_task=pull.task_id).expand(work=pull.output) >> settled
    pull >> settled
    verdict(settled)  # type: ignore[arg-type]  # an XComArg, which Airflow resolves
    return settled
