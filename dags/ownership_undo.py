"""### Undo of ownership transfers.

Takes back what completed transfers changed: each batch gets the owners that it had before, where it still has
those that the transfer gave it. Everything else is reported as a conflict and left alone. The search index
follows, and both stores are proven, as in `user_ownership_transfer`.

**Start it by hand** with conf that says which transfers, in one of three ways:

    {"mids": ["LP.1767225600000.6ba7b810-…"]}
    {"from_user": "02c4e0dc-…", "to_user": "fca2925f-…", "since": "2026-11-23T08:00:00Z", "until": "2026-11-24T00:00:00Z"}
    {"run_id": "manual__2026-11-23T09:00:00+00:00"}

It is a **dry run** unless `"dry_run": false` is given: the log of `settle` then shows what would change, batch by
batch, what would not, and the conf that applies just that.

**How it works.** Each undo is an event of its own, `undo:<run id>:<n>`, in the same queue as all others: it waits
for open events of its users, and can be repeated, and undone. Of a chain A→B→C the hops are undone newest first;
the last one alone can be undone too. The new user's other batches stay theirs. An open event cannot be undone:
abandon it first.

**Conflicts** are batches whose owners somebody changed since. They are `changed_elsewhere` in the event's counts, and
listed in the summary (XCom `return_value` of `settle`).

**Red run?** As in `user_ownership_transfer`: *pull red* is a wrong conf, connection or setting; `lookup`, `update`
and `reindex` are tried again by themselves; what a run leaves open, the main DAG's next run carries out. *settle red*:
PostgreSQL (the ledger) or Cassandra is out of reach. Details: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param

from ownership.edge.flow import ID, OPEN, PULL, carry_out, few_collections, form, open_ahead, section
from ownership.edge.operators import PullUndo

BY_USER, WHY = section("By user and time"), section("Why")
TIME: dict[str, Any] = {"type": ["null", "string"], "format": "date-time", "maxLength": 40, **BY_USER}

PULL_TASK = "pull_undo_events"
few_collections()
open_ahead(PULL_TASK)

with DAG(
    dag_id="ownership_undo",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=4,
    tags=["ownership", "operators"],
    default_args={"owner": "platform", "execution_timeout": timedelta(minutes=30)},
    params=form({
        "mids": Param(
            [], type="array", title="Events", maxItems=1000, items={**ID, "type": "string", "maxLength": 320},
            description="The mids of the transfers, one a line.", **OPEN,
        ),
        "run_id": Param(
            None, title="Run", description="Every transfer that this run carried out.", **{**ID, "maxLength": 250}, **OPEN
        ),
        "from_user": Param(None, title="Old user", description="Who gave.", **ID, **BY_USER),
        "to_user": Param(None, title="New user", description="Who received.", **ID, **BY_USER),
        "since": Param(None, title="Since", description="Transfers announced at this time or later.", **TIME),
        "until": Param(None, title="Until", description="Transfers announced before; until now if empty.", **TIME),
        "dry_run": Param(
            default=True, type="boolean", title="Dry run", **OPEN,
            description="Plan only; untick it to take the transfers back.",
        ),
        "reason": Param(
            None, type=["null", "string"], maxLength=500, title="Reason", **WHY,
            description="Why; kept in the audit trail.",
        ),
        "requested_by": Param(
            None, title="Requested by", description="Who asked for it; whoever starts the run if empty.", **ID, **WHY
        ),
    }),
) as dag:  # fmt: skip
    carry_out(PullUndo(task_id=PULL_TASK, interface=1, **PULL))
