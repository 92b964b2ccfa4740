"""The question that the approval DAG asks in Airflow's UI.

Airflow's own ApprovalOperator is not used: its "reject" skips what follows, and inside a mapped task group it
does not even do that. Here both answers go on to the task that writes them into the ledger.

An asset event starts the DAG. A run that was deleted, or that ended before its question was answered, asks no longer:
then another run asks again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Asset, Param

from ownership.edge.versions import missing

if TYPE_CHECKING:
    from airflow.sdk import Context

if not TYPE_CHECKING:
    __getattr__ = missing

DAG_ID = "ownership_approval"
APPROVE, DECLINE = "Approve", "Decline"
ALIAS = "ownership-approval-wanted"
WANTED = Asset(name="ownership.approval.wanted", uri="x-ownership://ownership.approval.wanted")
"""Emitted by a run that left a transfer waiting for its approval, or found one that no run asks about."""


def asks(ti: Any) -> Callable[[str], bool]:
    """Says of a run of the DAG whether it can take an answer still. `ti` is the task instance that wants to know."""
    return lambda run_id: ti.get_dr_count(dag_id=DAG_ID, run_ids=[run_id], states=["queued", "running"]) > 0


class AskApproval(HITLOperator):
    """Waits for an answer without a worker, a trigger or a pool slot.

    `question` has mid, digest, subject, body and `seconds`, after which the task waits no longer.
    """

    template_fields = ("question", *HITLOperator.template_fields)

    def __init__(self, *, question: Any, **kwargs: Any) -> None:
        super().__init__(
            subject="Approve an ownership transfer",
            options=[APPROVE, DECLINE],
            params={
                # May be null: the UI takes no answer while a text that must be there is empty.
                "reason": Param(
                    None,
                    type=["null", "string"],
                    maxLength=500,
                    description="Why; kept in the audit trail of a refusal.",
                )
            },
            # The question says how long; without a value here Airflow would take `execution_timeout` for it.
            response_timeout=timedelta(hours=1),
            **kwargs,
        )
        self.question = question

    def execute(self, context: Context) -> Any:
        """Ask."""
        self.subject, self.body = self.question["subject"], self.question["body"]
        self.response_timeout = timedelta(seconds=max(1, self.question["seconds"]))
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """The answer: what was chosen, by whom and why. Nothing is chosen if no answer came in time."""
        if event.get("error_type") == "timeout":
            return {"chosen": None, "by": None, "reason": None}
        answer = super().execute_complete(context, event)
        by = answer["responded_by_user"] or {}
        return {
            "chosen": answer["chosen_options"][0],
            "by": by.get("name") or by.get("id"),
            "reason": answer["params_input"].get("reason"),
        }
