"""What the queue shows at one moment: held, blocked, waiting for somebody, overdue. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ownership.domain.queue import QueuedEvent


class QueueFacts(NamedTuple):
    """The queue in numbers."""

    open: int = 0
    """Events that are not final."""
    held: int = 0
    """Of these, events that a run holds."""
    blocked: int = 0
    """Events that no run holds and that wait for an earlier one of the same users."""
    awaiting: int = 0
    """Events that wait for an approval."""
    oldest_ms: int | None = None
    """When the oldest that waits for nobody's approval was accepted, epoch ms; None if there is none."""
    overdue: tuple[QueuedEvent, ...] = ()
    """Events that should have been proven by now, in the queue's order."""
    blocks: Mapping[str, int] = {}
    """By mid of an event that waits for no other, how many wait for it."""


def queue_facts(queued: Iterable[QueuedEvent], *, now_ms: int, deadline_ms: int) -> QueueFacts:
    """Walk the queue in key order.

    An event is overdue `deadline_ms` after it was accepted. One that waits for an approval is not, nor is one that
    waits for such an event: people have a time limit of their own (`approval.timeout.hours`).
    """
    root_of: dict[str, QueuedEvent] = {}
    held = blocked = awaiting = total = 0
    blocks: Counter[str] = Counter()
    overdue: list[QueuedEvent] = []
    oldest: int | None = None
    for row in sorted(queued):
        total += 1
        users = row.transfer.users
        root = min((root_of[u] for u in users if u in root_of), key=lambda r: r.key, default=row)
        root_of |= dict.fromkeys(users, root)
        if row.holder and row.lease_expires_ms > now_ms:
            held += 1
        elif root is not row:
            blocked += 1
            blocks[root.transfer.mid] += 1
        awaiting += _awaits(row, now_ms)
        if not _awaits(row, now_ms) and not _awaits(root, now_ms):
            oldest = row.accepted_ms if oldest is None else min(oldest, row.accepted_ms)
            if now_ms - row.accepted_ms > deadline_ms:
                overdue.append(row)
    return QueueFacts(total, held, blocked, awaiting, oldest, tuple(overdue), dict(blocks))


def _awaits(row: QueuedEvent, now_ms: int) -> bool:
    return bool(row.awaits) and row.next_try_ms > now_ms
