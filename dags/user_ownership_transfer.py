"""### Ownership transfer.

Moves a person's course batches to somebody else, in Cassandra and in the search index, and proves it.

**What it does.** A Kafka event names an old and a new user. Both are checked with User-Org. Every live batch
(status 0 or 1) that the old user created or mentors gets the new user in `course_batch`, by compare-and-set on
the values that were read; the document in the search index follows the row. An event is `completed` only when
both stores were read again and agree, and a search for the old user finds nothing that is left to do.

**When it runs, and what a run pulls**

| run | pulls |
| --- | --- |
| asset event (the watcher saw work) | what the consumer group has not committed |
| manual, with conf | the events of the conf; they queue like any other |
| manual, without conf | the backlog, and failed events at once |
| hourly / backfill | its hour's messages that the ledger lacks; its hour's completed events are proven again |

Every run also takes whatever is waiting in the queue, up to `max_events`.

**Start it by hand** with conf, for example

    {"from_user": "02c4e0dc-…", "to_user": "fca2925f-…", "organisation_id": "0126796199493140480"}

or with `{"events": [...]}`: whole events as on the topic, or objects of these three fields.
`{"redrive": {"mids": [...]}}` tries failed events now and skipped ones as new events;
`{"abandon": {"mids": [...], "reason": "…"}}` ends open events for good and frees what they block.

**A retry** repeats nothing: what is done is in the ledger, and every write is conditional. A task may be cleared,
a run repeated, a window backfilled at any time: `airflow backfill create --dag-id user_ownership_transfer
--from-date … --to-date … --reprocess-behavior failed`.

**Red run?** Open `settle`, XCom `return_value`: `failures` has the reason of each event. Failed events stay in the
queue and are tried again by themselves; until then they block later events of the same users. A stage that is *up for
retry* waits for a part that is down: `lookup` for User-Org or LMS, `update` for Cassandra, `reindex` for
Elasticsearch; its log says. *pull red*: a connection or setting is wrong, the message says which. *settle red*:
Cassandra is out of reach. Runbooks: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetOrTimeSchedule,
    AssetWatcher,
    CronDataIntervalTimetable,
    Param,
    task,
    task_group,
)

from ownership.retries import RETRIES, TransferRetries
from ownership.sensors import PULLED, PullTransferEvents
from ownership.triggers import BacklogTrigger

EVENTS = Asset(
    name="user.ownership.transfer",
    uri="x-ownership://user.ownership.transfer",
    watchers=[AssetWatcher(name="ownership_backlog", trigger=BacklogTrigger())],
)
LABEL = "{{ (task.op_kwargs.get('work') or {}).get('label', ti.map_index) }}"
ID = {"type": ["null", "string"], "maxLength": 256, "section": "Transfer"}
STAGE: dict[str, Any] = {
    "map_index_template": LABEL,
    "retries": RETRIES,
    "retry_policy": TransferRetries(),
    "execution_timeout": timedelta(hours=2),
}

with DAG(
    dag_id="user_ownership_transfer",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(
        timetable=CronDataIntervalTimetable("0 * * * *", timezone="UTC"), assets=[EVENTS]
    ),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=16,  # above a backfill's default 10, or asset runs would wait for it to end
    tags=["ownership", "sunbird"],
    default_args={"owner": "platform"},
    params={
        "from_user": Param(None, title="Old user", description="Id of the user who gives.", **ID),
        "to_user": Param(None, title="New user", description="Id of the user who receives.", **ID),
        "organisation_id": Param(None, title="Organisation", description="Both users must belong to it.", **ID),
        "abandon": Param(
            None, type=["null", "object"], section="Repair", title="Abandon",
            description='Ends open events for good: {"mids": ["…"], "reason": "…"}.',
        ),
        "redrive": Param(
            None, type=["null", "object"], section="Repair", title="Redrive",
            description='Tries failed events now and skipped ones as new events: {"mids": ["…"]}.',
        ),
        "events": Param(
            [], type="array", maxItems=1000, section="Several", title="Events",
            description="Whole events as on the topic, or objects with from_user, to_user, organisation_id.",
        ),
    },
) as dag:  # fmt: skip
    pull = PullTransferEvents(
        task_id="pull_transfer_events",
        poke_interval=5,
        timeout=3600,
        retries=2,
        retry_policy=TransferRetries(),
    )

    @task(**STAGE)
    def lookup_users(work: dict[str, Any]) -> dict[str, Any]:
        """Verdicts by User-Org, phases, discovery through the LMS, plan."""
        from ownership import tasks

        return tasks.lookup(work)

    @task(**STAGE)
    def update_course_batches(work: dict[str, Any]) -> dict[str, Any]:
        """Rows in Cassandra, by compare-and-set."""
        from ownership import tasks

        return tasks.update(work)

    @task(**STAGE)
    def reindex_course_batches(work: dict[str, Any]) -> dict[str, Any]:
        """Documents in Elasticsearch, the proof, the commit."""
        from ownership import tasks

        return tasks.reindex(work)

    @task_group
    def transfer(work: dict[str, Any]) -> Any:
        """One slice of lanes through the three stages."""
        return reindex_course_batches(work=update_course_batches(work=lookup_users(work=work)))

    # all_done: claims are released whatever became of the stages.
    @task(trigger_rule="all_done", retries=5, retry_policy=TransferRetries())
    def settle(*, ti: Any = None) -> dict[str, Any]:
        """Claims released, states counted, the run's summary."""
        from ownership import tasks

        pulled = {k: ti.xcom_pull(task_ids="pull_transfer_events", key=k) for k in ("return_value", PULLED)}
        return tasks.settle(pulled["return_value"], pulled[PULLED])

    # Only a leaf decides a run's state, and settle must not fail: so this fails in its place.
    @task(retries=0)
    def verdict(summary: dict[str, Any]) -> None:
        """Red when an event failed."""
        from ownership import tasks

        tasks.verdict(summary)

    settled = settle()
    transfer.expand(work=pull.output) >> settled
    pull >> settled
    verdict(settled)
