"""### Ownership transfer.

Moves a person's course batches to somebody else, in Cassandra and in the search index, and proves it.

**What it does.** A Kafka event names an old and a new user. Both are checked with User-Org. Every live batch
(status 0 or 1) that the old user created or mentors gets the new user in `course_batch`, by compare-and-set on
the values that were read; the document in the search index follows the row. An event is `completed` only when
both stores were read again and agree, and a search for the old user finds nothing that is left to do.

**When it runs, and what a run pulls**

| run | pulls |
| --- | --- |
| asset event (the watcher saw work) | the messages that the ledger has not read |
| manual, with conf | the events of the conf; they queue like any other, and need no Kafka |
| manual, without conf | the backlog, and failed events at once |
| hourly / backfill | its hour's messages that the ledger lacks; its hour's completed events are proven again |

Every run also claims what waits in the queue, up to `max_events`. A lane (an event, or events that share users) has a
mapped instance of each stage, named after its users; a burst is packed into a few. What a lane cannot apply at once
follows phase by phase in `reindex_course_batches`, each after the proof of the one before; its log says *next phase*.
While another run works on what an event of the conf waits for, the pull waits, 30 s at most; then a later run claims
that event.

**Start it by hand** with conf, for example

    {"from_user": "02c4e0dc-…", "to_user": "fca2925f-…", "organisation_id": "0126796199493140480"}

and, if you like, `roles`, `statuses`, `course_ids` (what of it moves), `reason`, `requested_by`. Several at once:
`{"events": [...]}`, whole events as on the topic, or objects of these fields.

| conf | does |
| --- | --- |
| `"dry_run": true` beside a transfer | plans it and changes nothing; the log of `settle` shows the plan and its digest |
| `{"execute_plan": "<mid>", "digest": "…"}` | applies exactly that plan, or refuses if rows have changed since |
| `{"approve": {"mid": "…", "digest": "…"}}` | lets a transfer above `approval.batches` go on; `decline` with a reason ends it |
| `{"redrive": {"mids": [...]}}` | tries failed events now, skipped ones as new events; also by state and time, and dead letters |
| `{"abandon": {"mids": [...], "reason": "…"}}` | ends open events for good and frees what they block |

Taking a transfer back is a DAG of its own: `ownership_undo`.

**A retry** repeats nothing: what is done is in the ledger, and every write is conditional. A task may be cleared,
a run repeated, a window backfilled at any time: `airflow backfill create --dag-id user_ownership_transfer
--from-date … --to-date … --reprocess-behavior failed`.

**Red run?** Open `settle`, XCom `return_value`: `failures` has the reason of each event, `next_conf` what to paste.
Failed events stay in the queue and are tried again by themselves; until then they block later events of the same
users. A stage that is *up for retry* waits for a part that is down: `lookup` for User-Org or LMS, `update` for
Cassandra, `reindex` for Elasticsearch (in a later phase of a lane for any of these), each of them for PostgreSQL (the
ledger); its log says which. *pull red*: a connection, a setting, the conf or the ledger's schema is wrong; the message
says which. *settle red*: PostgreSQL or Cassandra is out of reach. Runbooks: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, AssetWatcher, CronDataIntervalTimetable, Param

from ownership.edge.flow import ID, OPEN, PULL, carry_out, few_collections, form, open_ahead, section
from ownership.edge.operators import PullTransferEvents
from ownership.edge.triggers import BacklogTrigger

EVENTS = Asset(
    name="user.ownership.transfer",
    uri="x-ownership://user.ownership.transfer",
    watchers=[
        AssetWatcher(
            name="ownership_backlog",
            trigger=BacklogTrigger(),  # type: ignore[no-untyped-call]  # Airflow's constructor has no types
        )
    ],
)
MID: dict[str, Any] = {**ID, "maxLength": 320}
OBJECT: dict[str, Any] = {"type": ["null", "object"]}
WHO, WHAT, WHY = OPEN, section("What moves"), section("Why")
SEVERAL, PLAN, REPAIR = section("Several transfers"), section("Plan and approval"), section("Repair")

PULL_TASK = "pull_transfer_events"
few_collections()
open_ahead(PULL_TASK)

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
    default_args={"owner": "platform", "execution_timeout": timedelta(minutes=30)},
    params=form({
        "from_user": Param(None, title="Old user", description="Id of the user who gives.", **ID, **WHO),
        "to_user": Param(None, title="New user", description="Id of the user who receives.", **ID, **WHO),
        "organisation_id": Param(
            None, title="Organisation", description="Both users must belong to it.", **ID, **WHO
        ),
        "dry_run": Param(
            default=False, type="boolean", title="Dry run", **WHO,
            description="Plan only: the conf's transfers change nothing; the log of `settle` shows the plans.",
        ),
        "roles": Param(
            ["created", "mentored"], type="array", title="Roles", minItems=1, maxItems=2, **WHAT,
            items={"enum": ["created", "mentored"]}, examples=["created", "mentored"],
            description="Batches that the old user created, that they mentor, or both.",
        ),
        "statuses": Param(
            [0, 1], type="array", title="Statuses", minItems=1, maxItems=2, **WHAT,
            items={"enum": [0, 1, "0", "1"]}, examples=[0, 1], values_display={0: "upcoming", 1: "ongoing"},
            description="Only batches of these statuses: 0 upcoming, 1 ongoing.",
        ),
        "course_ids": Param(
            [], type="array", title="Courses", maxItems=1000, items={**ID, "type": "string"},
            description="Only batches of these courses, one id a line; all if empty.", **WHAT,
        ),
        "reason": Param(
            None, type=["null", "string"], maxLength=500, title="Reason", **WHY,
            description="Why it is asked for; kept in the audit trail.",
        ),
        "requested_by": Param(
            None, title="Requested by", **ID, **WHY,
            description="Who asked for it; whoever starts the run if empty.",
        ),
        "events": Param(
            [], type="array", maxItems=1000, title="Events", **SEVERAL,
            description="Whole events as on the topic, or objects with from_user, to_user, organisation_id.",
        ),
        "execute_plan": Param(
            None, title="Execute plan", description="The mid of a dry run, whose plan is applied.", **MID, **PLAN
        ),
        "digest": Param(
            None, type=["null", "string"], pattern="^[0-9a-f]{20}$", title="Digest", **PLAN,
            description="The digest of that plan: nothing is done if rows have changed since.",
        ),
        "approve": Param(
            None, title="Approve", **OBJECT, **PLAN,
            description='Lets a transfer that waits go on: {"mid": "…", "digest": "…"}.',
        ),
        "decline": Param(
            None, title="Decline", **OBJECT, **PLAN,
            description='Ends a transfer that waits: {"mid": "…", "reason": "…"}.',
        ),
        "redrive": Param(
            None, title="Redrive", **OBJECT, **REPAIR,
            description='Tries again: {"mids": ["…"]}, {"states": ["failed", "skipped"], "since": "…", "until": "…"} '
            'or {"dead_letters": {"partition": 0, "from_offset": 3, "to_offset": 5, "merge_patch": {…}}}.',
        ),
        "abandon": Param(
            None, title="Abandon", **OBJECT, **REPAIR,
            description='Ends open events for good: {"mids": ["…"], "reason": "…"}.',
        ),
    }),
) as dag:  # fmt: skip
    carry_out(PullTransferEvents(task_id=PULL_TASK, interface=1, **PULL))
