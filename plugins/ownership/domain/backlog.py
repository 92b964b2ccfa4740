"""What waits at one moment: messages of the topic that no run has accepted, and events of the queue. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ownership.domain.queue import QueuedEvent


class HeldBack(NamedTuple):
    """Messages that an open transaction keeps from every reader of committed messages."""

    partition: int
    messages: int
    """Offsets from the beginning of the oldest open transaction to the end of the partition."""
    since_ms: int | None
    """The broker's timestamp of its first message, epoch ms."""


class RetentionLimits(NamedTuple):
    """When the topic deletes messages; None where it does not."""

    ms: int | None = None
    bytes: int | None = None
    """Of each partition."""


class BacklogFacts(NamedTuple):
    """What the ledger has not read of the topic."""

    messages: int = 0
    """Those that are held back, too."""
    since_ms: int | None = None
    """The broker's timestamp of the oldest of them, epoch ms."""
    deleted: int = 0
    """Messages that the topic deleted before the ledger had them."""
    held_back: tuple[HeldBack, ...] = ()
    retention: RetentionLimits = RetentionLimits()
    retention_share: float = 0.0
    """How far the oldest message is on its way to be deleted: at 1 the topic may delete it."""
    retention_unread: str = ""
    """Why the topic's retention cannot be read."""


def retention_share(*, age_ms: int, size: int, limits: RetentionLimits) -> float:
    """How much of its retention a partition's oldest message has used up; 0 where nothing is deleted.

    `size` is about the bytes of that message and of those after it: the broker may keep them in fewer, compressed.
    """
    by_age = age_ms / max(limits.ms, 1) if limits.ms is not None else 0.0
    by_size = size / max(limits.bytes, 1) if limits.bytes is not None else 0.0
    return max(by_age, by_size, 0.0)


class QueueFacts(NamedTuple):
    """The queue in numbers."""

    open: int = 0
    """Events that are not final."""
    held: int = 0
    """Of these, events that a run holds."""
    blocked: int = 0
    """Events that no run holds and that wait for one of the same users that goes first."""
    awaiting: int = 0
    """Events that wait for an approval."""
    oldest_ms: int | None = None
    """When the oldest of the events that wait for no approval was accepted, epoch ms; None if there is none."""
    overdue: tuple[QueuedEvent, ...] = ()
    """Events that should have been proven by now, in the queue's order."""
    blocks: Mapping[str, int] = {}
    """By mid of the first event of a chain, how many events wait for it."""


def queue_facts(queued: Iterable[QueuedEvent], *, now_ms: int, deadline_ms: int) -> QueueFacts:
    """Walk the queue.

    An event is overdue `deadline_ms` after it was accepted. One that waits for an approval is not, nor is one that
    waits for such an event: people have a time limit of their own (`approval.timeout.hours`).
    """
    root_of: dict[str, QueuedEvent] = {}
    held = blocked = awaiting = total = 0
    blocks: Counter[str] = Counter()
    overdue: list[QueuedEvent] = []
    oldest: int | None = None
    for row in sorted(queued, key=lambda e: e.turn):
        total += 1
        users = row.transfer.users
        root = min((root_of[u] for u in users if u in root_of), key=lambda r: r.turn, default=row)
        root_of |= dict.fromkeys(users, root)
        if row.is_held(now_ms):
            held += 1
        elif root is not row:
            blocked += 1
            blocks[root.mid] += 1
        awaiting += row.awaits_a_person(now_ms)
        if not row.awaits_a_person(now_ms) and not root.awaits_a_person(now_ms):
            oldest = row.accepted_ms if oldest is None else min(oldest, row.accepted_ms)
            if now_ms - row.accepted_ms > deadline_ms:
                overdue.append(row)
    return QueueFacts(total, held, blocked, awaiting, oldest, tuple(overdue), dict(blocks))
