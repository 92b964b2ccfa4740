"""The states of an event."""

from __future__ import annotations

RECEIVED, PLANNED, APPLIED, COMPLETED = "received", "planned", "applied", "completed"
FAILED, AWAITING_APPROVAL = "failed", "awaiting_approval"
SKIPPED, REJECTED, ABANDONED = "skipped", "rejected", "abandoned"
REHEARSED, DECLINED = "rehearsed", "declined"

OPEN_STATES = (RECEIVED, PLANNED, AWAITING_APPROVAL, APPLIED, FAILED)
FINAL_STATES = (COMPLETED, SKIPPED, REJECTED, ABANDONED, REHEARSED, DECLINED)
