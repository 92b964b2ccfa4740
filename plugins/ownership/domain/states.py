"""The states of an event, and the outcomes of its batches and their changes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class EventState(StrEnum):
    """The state of an event. A rejected message has no row among the events: its state is always `REJECTED`."""

    RECEIVED = "received"
    PLANNED = "planned"
    AWAITING_APPROVAL = "awaiting_approval"
    APPLIED = "applied"
    FAILED = "failed"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    REJECTED = "rejected"
    ABANDONED = "abandoned"
    REHEARSED = "rehearsed"
    DECLINED = "declined"


OPEN_STATES: Final = (
    EventState.RECEIVED,
    EventState.PLANNED,
    EventState.AWAITING_APPROVAL,
    EventState.APPLIED,
    EventState.FAILED,
)
FINAL_STATES: Final = tuple(s for s in EventState if s not in OPEN_STATES)


class Decision(StrEnum):
    """Whether a transfer may be carried out, once and for all."""

    VALID = "valid"
    INVALID = "invalid"
    GIVER_DELETED = "giver_deleted"
    """It is carried out for an old user who is deleted or blocked: only batches of the event's organisation."""


class BatchOutcome(StrEnum):
    """The outcome of a planned batch."""

    MOVED = "moved"
    ALREADY = "already"
    CHANGED_ELSEWHERE = "changed_elsewhere"
    GONE = "gone"
    NOT_LIVE = "not_live"


class ChangeOutcome(StrEnum):
    """The outcome of one compare-and-set on a row."""

    APPLIED = "applied"
    REFUSED = "refused"
    """The row was not as it had been read."""
    SUPERSEDED = "superseded"
    """It changed nothing: the row was as before when it was judged, or another try of the same change was applied."""
    IN_DOUBT = "in_doubt"
    """Unknown: the row was edited since."""
    LATE = "late"
    """Applied after the claim was lost."""


MADE = frozenset({ChangeOutcome.APPLIED, ChangeOutcome.LATE})
"""Outcomes of changes that a row has seen."""
