"""### Health of ownership transfers.

Says in a sentence what is wrong, and removes from the ledger what is older than `ledger.retention.days`.

**When it runs.** Every ten minutes, and by hand at any time, without conf.

**What it finds**

| kind | means |
| --- | --- |
| `part` | Kafka, PostgreSQL (the ledger), Cassandra, Elasticsearch, LMS or User-Org does not answer, or is not set up |
| `airflow` | Airflow's triggerer, scheduler, DAG processor or database does not run |
| `host` | a worker, triggerer or API server has another clock, other Connections, secrets or plugin than the others |
| `lost` | the topic deleted messages before a run accepted them |
| `transaction` | messages stand behind an open transaction, which every reader of committed messages stops at |
| `retention` | messages that no run has accepted are past half of the topic's retention, after which Kafka deletes them |
| `overdue` | an event is not proven `deadline.minutes` after it was accepted; the sentence has its reason and what it blocks |
| `watcher` | messages have waited for longer than that, and no triggerer looks at the topic: its watcher does not run |
| `backlog` | messages have waited for longer than that, and no run has pulled them |
| `differences` | the last reconciliation left more than `reconcile.alert.differences` |

What waits for an approval is not overdue.

**What it removes.** `remove_old` removes whole months from the ledger, in short transactions. A month with an event that
is not final stays.

**Red run?** *check red*: its log, and the run's error, have the sentences. The addresses of `notify.*` get each problem
once, when it appears. The next run is green when it is gone. The same look from a shell: `python -m ownership.health`.
*remove_old red*: PostgreSQL is out of reach; the next run removes the rest. Details: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, CronTriggerTimetable, task

from ownership.edge.notifications import NewsNotifier

with DAG(
    dag_id="ownership_health",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("*/10 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["ownership", "operators"],
    default_args={"owner": "platform", "execution_timeout": timedelta(minutes=8)},
) as dag:
    # No retries: the next run is the retry, and an unreachable part is what this task reports.
    @task(retries=0, on_failure_callback=NewsNotifier())
    def check() -> str:
        """Every part, the backlog, the queue, the last reconciliation."""
        from ownership.health import tasks

        return tasks.check()

    @task(retries=0)
    def remove_old() -> dict[str, Any]:
        """What is older than `ledger.retention.days` leaves the ledger; the next month gets its partitions."""
        from ownership.health import tasks

        return tasks.remove_old()

    check()
    remove_old()
