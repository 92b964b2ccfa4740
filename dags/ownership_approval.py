"""### Approval of large ownership transfers.

Asks in Airflow's UI (**Required actions**) about each transfer that `user_ownership_transfer` planned and left
waiting, because it is larger than the setting `approval.batches`. Nothing waits in a worker meanwhile.

**When it runs.** A run starts by itself when a transfer begins to wait, and asks once about each. If that run is deleted,
or ends without an answer, the next run of `user_ownership_transfer` starts another one, which asks again. It can be started
by hand as well: it asks about every transfer that waits and that no other run asks about.

**Answers.** *Approve* lets the transfer go on with exactly the plan that is shown; the main DAG's next run carries it
out. *Decline* ends it as `declined`, with who and why (field *reason*). No answer within `approval.timeout.hours`: the
transfer is `declined`.

The same can be said by conf of `user_ownership_transfer`, which a run shows ready to paste:

    {"approve": {"mid": "LP.1767225600000.6ba7b810-…", "digest": "0f2d…"}}
    {"decline": {"mid": "LP.1767225600000.6ba7b810-…", "reason": "not this one"}}

The question here stays open then; its answer changes nothing more.

**Red run?** *wanted red* or *decide red* with `unavailable`: PostgreSQL (the ledger) or Cassandra is out of reach;
clear the task later.
*decide red* with *is not that of the plan*: rows changed while it waited, and there is a new question with the new
plan. *ask* fails only if Airflow's API does. Details: `docs/operations.md`.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task, task_group

from ownership.edge.approvals import WANTED, AskApproval
from ownership.edge.retries import RETRIED

LABEL = "{{ (task.op_kwargs.get('question') or {}).get('label', ti.map_index) }}"
STEP: dict[str, Any] = {"retries": 5, **RETRIED}

with DAG(
    dag_id="ownership_approval",
    doc_md=__doc__,
    schedule=[WANTED],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=32,
    tags=["ownership", "operators"],
    default_args={"owner": "platform", "execution_timeout": timedelta(minutes=30)},
) as dag:

    @task(**STEP)  # type: ignore[untyped-decorator]  # by its keywords alone its type is not known
    def wanted() -> list[dict[str, Any]]:
        """Transfers that wait for an approval and were not asked about yet."""
        from ownership.edge import tasks

        return tasks.approvals_wanted()

    @task(map_index_template=LABEL, **STEP)
    def decide(question: dict[str, Any], answer: dict[str, Any]) -> str:
        """Write the answer into the ledger."""
        from ownership.edge import tasks

        return tasks.decide(question, answer)

    @task_group
    def approval(question: dict[str, Any]) -> Any:
        """One transfer: ask, then write the answer down."""
        ask = AskApproval(task_id="ask", question=question)
        answer: Any = ask.output  # Any: a task's output takes the place of its value
        return decide(question=question, answer=answer)

    approval.expand(question=wanted())
