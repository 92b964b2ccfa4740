"""Who may be claimed, and why the others wait. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from ownership.domain.event import OrderKey, Transfer


class QueuedEvent(NamedTuple):
    """An event in the queue. Times in epoch ms; fencing token 0 means that it was never claimed."""

    transfer: Transfer
    accepted_ms: int
    fencing_token: int = 0
    holder: str | None = None
    lease_expires_ms: int = 0
    next_try_ms: int = 0
    awaits: str | None = None
    """What a person must give before it goes on (an approval); `next_try_ms` is until when it waits."""

    @property
    def key(self) -> OrderKey:
        """Place in the queue."""
        return self.transfer.key

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid


class ClaimedEvent(NamedTuple):
    """An event as its holder knows it."""

    transfer: Transfer
    fencing_token: int

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid


@dataclass
class Choice:
    """What a claim may take, and why it may not take the rest."""

    take: list[QueuedEvent] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    """Reason by mid of every event that stays in the queue."""
    blockers: dict[str, str] = field(default_factory=dict)
    """By mid of an event that waits for an earlier one of its users: the mid of that one."""
    left: list[QueuedEvent] = field(default_factory=list)
    """Events that the run itself holds and cannot take."""
    young_until_ms: int = 0
    """When the last event that is only too young will be old enough; 0 if there is none."""


def choose(
    queued: Iterable[QueuedEvent],
    *,
    run_id: str,
    now_ms: int,
    judged_ms: int,
    grace_ms: int,
    limit: int,
    patient: bool = True,
    mine: Collection[OrderKey] = (),
    only: Collection[str] | None = None,
) -> Choice:
    """Walk the queue in key order and decide what `run_id` may claim.

    `judged_ms` is the clock taken before the watermarks were read: an event that is older than the grace by it
    cannot be preceded by a message that this run has not read. A `patient` run leaves failed events alone until
    their next try is due. `mine` was claimed in an earlier pass of the run; `only` are the mids that are wanted, if
    not all.
    """
    choice = Choice()
    busy: dict[str, str] = {}
    for event in sorted(queued):
        if event.key in mine:
            continue
        mid, users = event.mid, event.transfer.users
        reason = _busy(event, run_id, now_ms, patient=patient)
        if not reason and (blocker := next((busy[u] for u in sorted(users) if u in busy), None)):
            reason = f"waits for {blocker}"
            choice.blockers[mid] = blocker
        if not reason and only is not None and mid not in only:
            reason = "is left to another run"
        if not reason and judged_ms - event.accepted_ms < grace_ms:
            reason = "is too young"
            choice.young_until_ms = max(choice.young_until_ms, event.accepted_ms + grace_ms)
        if not reason and len(choice.take) >= limit:
            reason = "waits for a later run: this one has max_events"
        if reason:
            choice.waits[mid] = reason
            busy.update(dict.fromkeys(users, mid))
            if event.holder == run_id:
                choice.left.append(event)
        else:
            choice.take.append(event)
    return choice


def _busy(event: QueuedEvent, run_id: str, now_ms: int, *, patient: bool) -> str:
    """Why no other run may take the event now, empty if one may."""
    if event.holder and event.holder != run_id and event.lease_expires_ms > now_ms:
        return f"is held by run {event.holder}"
    if event.awaits and event.next_try_ms > now_ms:
        return f"awaits {event.awaits}"
    if patient and event.next_try_ms > now_ms and event.holder != run_id:
        return f"failed and is tried again in {(event.next_try_ms - now_ms) / 1000:.0f} s"
    return ""


def at_work(queued: Iterable[QueuedEvent], *, now_ms: int, lease_ms: int) -> set[str]:
    """Runs that hold events and work on them.

    A lease that is longer than a claim's (`lease_ms`) is kept for a retry that is not due yet.
    """
    return {e.holder for e in queued if e.holder and now_ms < e.lease_expires_ms <= now_ms + lease_ms}
