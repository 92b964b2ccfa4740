"""### Reconciliation of rows and index.

Reads every row of `course_batch` and every document of the search index, and reports where they disagree. Nothing is
written unless `repair` is ticked; then documents follow their rows, never the other way round.

**When it runs.** Every Sunday at 02:17 UTC, and by hand, for example after the index was restored:

    {"repair": true}
    {"repair": true, "rows_per_second": 500}

**What it finds**

| kind | means | `repair` |
| --- | --- | --- |
| `stale_owner` | the document names another creator than the row | writes the row's |
| `stale_mentors` | the document names other mentors than the row | writes the row's |
| `missing_document` | the row has no document: no search, and no transfer, finds the batch | creates it from the row |
| `orphan_document` | the document has no row | leaves it: it is the LMS's to remove |
| `unproven` | a transfer of the last `days` moved the row, and nobody proved it | leaves it |
| `unmoved` | a live row that names a creator who gave everything away, written before that transfer completed | leaves it |

A difference is believed only when it is still there a moment later, and when no open transfer explains it: such are
counted as `in_flight`, and are not repaired.

**Result.** The log of `report`, and its XCom `return_value`: counts, samples, and the trend of the last runs. The run
is red when more than `reconcile.alert.differences` batches are left.

**Red run?** *verdict red* says what is left: look at the samples in the log of `report`, then run it again with
`repair`. *reconcile_range* or *unproven up for retry*: Cassandra, Elasticsearch or PostgreSQL (the ledger) is out of
reach; their log says which. *plan_ranges red*: a setting, a connection or the conf. A task that is tried again, or a run
that is cleared, goes on with the parts that are not done; a whole new look is a new run. Details: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, Param, task

from ownership.edge.flow import NOTIFY, OPEN, few_collections, section
from ownership.edge.retries import RETRIED, RETRIES

LABEL = "{{ (task.op_kwargs.get('share') or {}).get('label', ti.map_index) }}"
STEP: dict[str, Any] = {"retries": RETRIES, **RETRIED}
LOOK: dict[str, Any] = {**STEP, "map_index_template": LABEL, "execution_timeout": timedelta(hours=24)}
BOUNDS = section("Bounds")

few_collections()

with DAG(
    dag_id="ownership_reconcile",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("17 2 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,  # the limit on rows a second is a run's
    tags=["ownership", "operators"],
    default_args={"owner": "platform", "execution_timeout": timedelta(minutes=30)},
    params={
        "repair": Param(
            default=False, type="boolean", title="Repair", **OPEN,
            description="Write the row's owners into documents that differ, and create those that are missing.",
        ),
        "rows_per_second": Param(
            None, type=["null", "integer"], minimum=0, maximum=1_000_000, title="Rows a second", **BOUNDS,
            description="Most rows, and documents, read a second in all; 0 is no limit. Empty: the setting.",
        ),
        "ranges": Param(
            None, type=["null", "integer"], minimum=1, maximum=4096, title="Ranges", **BOUNDS,
            description="Ranges of the token ring, each done or not done. Empty: the setting.",
        ),
        "days": Param(
            None, type=["null", "integer"], minimum=0, maximum=400, title="Days", **BOUNDS,
            description="How far back transfers are looked at. Empty: the setting.",
        ),
    },
) as dag:  # fmt: skip

    @task(retries=2, **RETRIED)
    def plan_ranges() -> list[dict[str, Any]]:
        """Ranges of the token ring, dealt out to slices."""
        from ownership.reconcile import tasks

        return tasks.plan()

    @task(**LOOK)  # type: ignore[untyped-decorator]  # by its keywords alone its type is not known
    def reconcile_range(share: dict[str, Any]) -> dict[str, int]:
        """The ranges of one slice: rows against documents, documents against rows, and the repair."""
        from ownership.reconcile import tasks

        return tasks.ranges(share)

    @task(**STEP, execution_timeout=timedelta(hours=6))
    def unproven() -> dict[str, int]:
        """Moves of the last days that nobody proved."""
        from ownership.reconcile import tasks

        return tasks.ledger()

    # all_done: also of a run whose looks failed there is a report.
    @task(
        trigger_rule="all_done",
        retries=5,
        **RETRIED,
        on_success_callback=NOTIFY,
        on_failure_callback=NOTIFY,
    )
    def report() -> dict[str, Any]:
        """Counts, samples and the trend."""
        from ownership.reconcile import tasks

        return tasks.report()

    # Only a leaf decides a run's state, and the report must be written in any case: so this fails in its place.
    @task(retries=0)
    def verdict(told: dict[str, Any]) -> None:
        """Red when more is left than `reconcile.alert.differences`, or when parts did not end."""
        from ownership.reconcile import tasks

        tasks.verdict(told)

    planned: Any = plan_ranges()  # Any: a task's output takes the place of its value
    told: Any = report()
    reconcile_range.expand(share=planned) >> told
    planned >> unproven() >> told
    verdict(told)
