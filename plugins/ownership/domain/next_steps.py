"""The conf that an operator pastes next, by an event's state. Pure."""

from __future__ import annotations

import json
from typing import Any

from ownership.domain.states import EventState


def next_conf(state: EventState, mid: str, digest: str | None = None) -> str | None:
    """Ready-to-paste conf of `user_ownership_transfer` (for a completed event: of `ownership_undo`)."""
    conf: dict[str, Any] | None = None
    if state in (EventState.FAILED, EventState.SKIPPED):
        conf = {"redrive": {"mids": [mid]}}
    elif state == EventState.AWAITING_APPROVAL:
        conf = {"approve": {"mid": mid, "digest": digest}}
    elif state == EventState.REHEARSED:
        conf = {"execute_plan": mid, "digest": digest}
    elif state == EventState.COMPLETED:
        conf = {"mids": [mid], "dry_run": True}
    return json.dumps(conf) if conf else None


def dead_letter_conf(partition: int, offset: int) -> str:
    """Ready-to-paste conf that puts a dead letter back, by its place; the operator fills in the merge patch."""
    dead_letters = {"partition": partition, "from_offset": offset, "to_offset": offset, "merge_patch": {}}
    return json.dumps({"redrive": {"dead_letters": dead_letters}})
