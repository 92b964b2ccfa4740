"""What the buttons start: which DAG, with which conf, and what will happen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ownership.domain.states import OPEN_STATES, BatchOutcome, EventState
from ownership.ledger.events import EventRow
from ownership.page.views.formats import STATE_NAMES

TRANSFER_DAG, UNDO_DAG = "user_ownership_transfer", "ownership_undo"
RECONCILE_DAG, HEALTH_DAG = "ownership_reconcile", "ownership_health"


class Action(NamedTuple):
    """Something that a user can ask of an event."""

    name: str
    label: str
    dag_id: str
    title: str
    """The question of its confirmation."""
    what: str
    """What will happen, in sentences."""
    reason: str = ""
    """Whether a reason is asked for: empty, `optional` or `required`."""
    grave: bool = False
    """True if batches change owner by it, or an event ends."""

    def refused(self, state: EventState) -> str:
        """What is said where it does not apply to a transfer in this state."""
        name = self.label.rstrip("…").lower()
        return f"This transfer is {STATE_NAMES[state]} now: {name} does not apply."


REHEARSE_UNDO = Action(
    "rehearse_undo",
    "Dry-run undo",
    UNDO_DAG,
    "See what an undo would do?",
    "A dry run plans the undo and changes nothing. It shows which batches would go back, and which would not "
    "because they were changed since. Its plan can be applied afterwards, exactly as it was shown.",
)
UNDO = Action(
    "undo",
    "Undo…",
    UNDO_DAG,
    "Take this transfer back?",
    "Each batch gets back the owners that it had before, in Cassandra and in the search index, where it still has "
    "those that this transfer gave it. A batch that was changed since stays as it is, and is reported. "
    "The undo is a transfer of its own and can be undone itself.",
    reason="optional",
    grave=True,
)
REDRIVE = Action(
    "redrive",
    "Try again",
    TRANSFER_DAG,
    "Try this transfer again?",
    "A failed transfer is tried at once, unless an earlier open one of its users is in the way. A skipped one is "
    "queued as a new transfer with the same content.",
    grave=True,
)
APPROVE = Action(
    "approve",
    "Approve…",
    TRANSFER_DAG,
    "Approve this plan?",
    "The transfer goes on with exactly the plan below. If rows have changed since, it waits again with a new one.",
    grave=True,
)
DECLINE = Action(
    "decline",
    "Decline…",
    TRANSFER_DAG,
    "Decline this transfer?",
    "The transfer ends as declined, with your name and reason; nothing has changed and nothing will. What waited "
    "behind it goes on.",
    reason="required",
    grave=True,
)
EXECUTE = Action(
    "execute",
    "Apply this plan…",
    TRANSFER_DAG,
    "Apply this plan?",
    "Exactly the batches of this dry run change, as it shows them. If rows have changed since, nothing is done.",
    reason="optional",
    grave=True,
)
ABANDON = Action(
    "abandon",
    "Abandon…",
    TRANSFER_DAG,
    "Abandon this transfer?",
    "The transfer ends as abandoned, with your reason. What it has moved until then stays moved.",
    reason="required",
    grave=True,
)
"""Only of the API: it gives up what waits or fails for good, which the page does not invite to."""
ACTIONS: Mapping[str, Action] = {a.name: a for a in (REHEARSE_UNDO, UNDO, REDRIVE, APPROVE, DECLINE, EXECUTE)}


class ConfirmedAction(NamedTuple):
    """An action on an event that the user has confirmed, and the id of the run to start."""

    action: Action
    mid: str
    digest: str | None
    run_id: str

    def conf(self, reason: str = "") -> dict[str, Any]:
        """The conf of the run. The user who starts the run is its requester."""
        why = {"reason": reason} if reason else {}
        match self.action.name:
            case "rehearse_undo" | "undo":
                return {"mids": [self.mid], "dry_run": self.action is REHEARSE_UNDO, **why}
            case "redrive":
                return {"redrive": {"mids": [self.mid]}}
            case "approve":
                return {"approve": {"mid": self.mid, "digest": self.digest}}
            case "abandon":
                return {"abandon": {"mids": [self.mid], **why}}
            case "decline":
                return {"decline": {"mid": self.mid, **why}}
            case _:
                return {"execute_plan": self.mid, "digest": self.digest, **why}

    def outcome_mid(self, state: EventState) -> str:
        """Mid of the event that shows the outcome: a new one, or the same."""
        if self.action in (REHEARSE_UNDO, UNDO):
            return f"undo:{self.run_id}:0"
        if self.action is EXECUTE:
            return f"execute:{self.run_id}"
        if self.action is REDRIVE and state == EventState.SKIPPED:
            return f"redrive:{self.run_id}:0"
        return self.mid


def offered(event: EventRow) -> list[Action]:
    """What a user can ask of an event as it is now."""
    if event.state in (EventState.COMPLETED, EventState.ABANDONED):
        # An abandoned event has no counts; what it moved until then is in its images.
        moved = event.counts.get(BatchOutcome.MOVED) or event.state == EventState.ABANDONED
        return [REHEARSE_UNDO, UNDO] if moved else []
    if event.state in (EventState.FAILED, EventState.SKIPPED):
        return [REDRIVE]
    if event.state == EventState.AWAITING_APPROVAL and event.digest:
        return [APPROVE, DECLINE]
    if event.state == EventState.REHEARSED and event.digest:
        return [EXECUTE]
    return []


def applies(action: Action, event: EventRow) -> bool:
    """True if `action` can be asked of an event as it is now."""
    return event.state in OPEN_STATES if action is ABANDON else action in offered(event)
