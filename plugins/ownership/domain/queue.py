"""Which events a run may claim, and why the others wait. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ownership.domain.clock import from_ms
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.lanes import instances, lanes


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
    begun: bool = False
    """True once a run may have changed batches for it: an earlier event of its users that comes late goes after it."""
    passes_to: frozenset[str] = frozenset()
    """Of one that came late, users (folded) beside its own: later transfers that have ended pass on to them what it
    gives."""

    @property
    def key(self) -> OrderKey:
        """Place in the one order of all events."""
        return self.transfer.key

    @property
    def users(self) -> frozenset[str]:
        """Those whose batches it may change, folded."""
        return self.transfer.users | self.passes_to

    @property
    def turn(self) -> tuple[bool, OrderKey]:
        """Place in the queue: what a run has begun goes before what came late."""
        return not self.begun, self.key

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid

    def is_held(self, now_ms: int) -> bool:
        """True if a run holds it and its lease has not expired."""
        return bool(self.holder) and self.lease_expires_ms > now_ms

    def awaits_a_person(self, now_ms: int) -> bool:
        """True until a person has approved it, or the time for that is over."""
        return bool(self.awaits) and self.next_try_ms > now_ms


class ClaimedEvent(NamedTuple):
    """An event as its holder knows it."""

    transfer: Transfer
    fencing_token: int

    @property
    def mid(self) -> str:
        """The event's message id."""
        return self.transfer.mid


class WaitKind(StrEnum):
    """Why an event stays in the queue."""

    HELD = "held"
    """Another run holds it."""
    APPROVAL = "approval"
    """A person must approve it first."""
    RETRY = "retry"
    """It failed, and its next try is not due."""
    BLOCKED = "blocked"
    """An event of its users that goes first stays in the queue."""
    NOT_WANTED = "not_wanted"
    """The run claims its own events only."""
    YOUNG = "young"
    """An earlier event of its users may still arrive."""
    RUN_FULL = "run_full"
    """The run has as many events as it may have."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Why an event stays in the queue, for whom, and until when if that is known."""

    kind: WaitKind
    blocker: str = ""
    """`HELD`: id of the run; `BLOCKED`: mid of the event that goes first."""
    until_ms: int = 0
    """Epoch ms: end of the lease, of the wait for an approval or a retry, or of the grace."""


_WORDS = {
    WaitKind.HELD: "is held by run {blocker}",
    WaitKind.APPROVAL: "awaits approval",
    WaitKind.RETRY: "failed and is tried again at {until:%H:%M:%S} UTC",
    WaitKind.BLOCKED: "waits for {blocker}",
    WaitKind.NOT_WANTED: "is left to another run",
    WaitKind.YOUNG: "is too young",
    WaitKind.RUN_FULL: "waits for a later run: this one has max_events",
}


def in_words(wait: Wait) -> str:
    """The reason as the end of a sentence that begins with the event."""
    return _WORDS[wait.kind].format(blocker=wait.blocker, until=from_ms(wait.until_ms))


@dataclass
class Choice:
    """What a claim may take, and why it may not take the rest."""

    take: list[QueuedEvent] = field(default_factory=list)
    waits: dict[str, Wait] = field(default_factory=dict)
    """By mid, for every event that stays in the queue."""
    unusable: list[QueuedEvent] = field(default_factory=list)
    """Events that the run itself holds and cannot take."""

    @property
    def young_until_ms(self) -> int:
        """When the last event that is only too young is old enough, epoch ms; 0 if there is none."""
        return max((w.until_ms for w in self.waits.values() if w.kind is WaitKind.YOUNG), default=0)

    def cause(self, mid: str) -> Wait | None:
        """Why an event waits: of a blocked one, why the event at the head of its line does. None if that does not."""
        wait = self.waits.get(mid)
        while wait and wait.kind is WaitKind.BLOCKED:
            wait = self.waits.get(wait.blocker)
        return wait


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
    """Walk the queue and decide what `run_id` may claim, at most `limit` events.

    An event that waits blocks those of its users whose turn comes later. An event that was begun also blocks earlier
    ones while it is claimed: they came late, and are to find what it has done.

    `judged_ms` is the clock taken before the watermarks were read: an event that is older than the grace by it
    cannot be preceded by a message that this run has not read. A `patient` run leaves failed events alone until
    their next try is due. `mine` was claimed in an earlier pass of the run; `only` are the mids that are wanted, if
    not all.
    """
    choice = Choice()
    waiting: dict[str, str] = {}
    """By user, the mid of the last event that waits."""
    begun: dict[str, OrderKey] = {}

    def wait_of(event: QueuedEvent, blocker: str | None) -> Wait | None:
        if wait := _own_wait(event, run_id, now_ms, patient=patient):
            return wait
        if blocker:
            return Wait(WaitKind.BLOCKED, blocker)
        if only is not None and event.mid not in only:
            return Wait(WaitKind.NOT_WANTED)
        if judged_ms - event.accepted_ms < grace_ms:
            return Wait(WaitKind.YOUNG, until_ms=event.accepted_ms + grace_ms)
        return Wait(WaitKind.RUN_FULL) if len(choice.take) >= limit else None

    for event in sorted(queued, key=lambda e: e.turn):
        users = sorted(event.users)
        overtaker = next((begun[u].mid for u in users if u in begun and begun[u] > event.key), None)
        if event.begun:
            begun |= dict.fromkeys(users, event.key)
        if event.key in mine:
            continue
        if wait := wait_of(event, next((waiting[u] for u in users if u in waiting), overtaker)):
            choice.waits[event.mid] = wait
            waiting |= dict.fromkeys(users, event.mid)
            if event.holder == run_id:
                choice.unusable.append(event)
        else:
            choice.take.append(event)
    return choice


def before_their_turn(
    beginning: Iterable[QueuedEvent], others: Iterable[QueuedEvent], *, run_id: str
) -> dict[str, str]:
    """By mid, those of `beginning` before which an event of `others` goes, with its mid.

    That is the first earlier one which `run_id` does not hold; else one that was begun, by whatever run.
    """
    first: dict[str, OrderKey] = {}
    begun: dict[str, OrderKey] = {}
    for other in sorted(others, key=lambda e: e.key, reverse=True):
        if other.holder != run_id:
            first |= dict.fromkeys(other.users, other.key)
        if other.begun:
            begun |= dict.fromkeys(other.users, other.key)
    found = {}
    for e in beginning:
        earlier = min((first[u] for u in e.users if u in first and first[u] < e.key), default=None)
        blocker = earlier or min((begun[u] for u in e.users if u in begun), default=None)
        if blocker:
            found[e.mid] = blocker.mid
    return found


def _own_wait(event: QueuedEvent, run_id: str, now_ms: int, *, patient: bool) -> Wait | None:
    """Why the run may not take the event now, whatever else is in the queue."""
    if event.holder and event.holder != run_id and event.is_held(now_ms):
        return Wait(WaitKind.HELD, event.holder, event.lease_expires_ms)
    if event.awaits_a_person(now_ms):
        return Wait(WaitKind.APPROVAL, until_ms=event.next_try_ms)
    if patient and event.next_try_ms > now_ms and event.holder != run_id:
        return Wait(WaitKind.RETRY, until_ms=event.next_try_ms)
    return None


def is_at_work(lease_expires_ms: int, *, now_ms: int, lease_ms: int) -> bool:
    """True if a run works on what it holds with this lease.

    A lease that is longer than a claim's (`lease_ms`) is kept for a retry that is not due yet.
    """
    return now_ms < lease_expires_ms <= now_ms + lease_ms


def instances_at_work(
    queued: Iterable[QueuedEvent], *, now_ms: int, lease_ms: int, max_mapped: int, slices: int
) -> int:
    """How many mapped instances the runs have that work now, by what they have claimed; see `lanes.instances`.

    A run that holds what it brought and could not claim it yet has no instances.
    """
    held: dict[str, list[Transfer]] = defaultdict(list)
    for event in queued:
        at_work = is_at_work(event.lease_expires_ms, now_ms=now_ms, lease_ms=lease_ms)
        if event.holder and event.fencing_token and at_work:
            held[event.holder].append(event.transfer)
    return sum(instances(lanes(events), max_mapped=max_mapped, slices=slices) for events in held.values())
