"""The phases of one slice while a stage works on them, and the fence around every write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Phase, Work
from ownership.domain.effects import Effect, Moving, Undoing, undoing
from ownership.domain.errors import TakenOver
from ownership.domain.event import folded
from ownership.domain.plan import EVERYTHING, BatchId, Hop, Row
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome, ChangeOutcome
from ownership.ledger.changes import ROWS, Planned
from ownership.ledger.events import EventRow
from ownership.stages.parts import Parts

KEEP_EVERY_MS = 1000


class Claim:
    """This run's hold on some events: checked before each wave of writes, renewed in time."""

    def __init__(self, parts: Parts, events: Iterable[ClaimedEvent], run_id: str) -> None:
        self.events = list(events)
        self._parts = parts
        self._run_id = run_id
        self._lives_ms = parts.settings.claim_seconds * 1000
        self._looked_at = 0

    def check(self) -> list[ClaimedEvent]:
        """Forget the events that another run took over, and return them.

        Renews the claim when a third of its life is over: the rows say how long it lives.
        """
        if not self.events:
            return []
        self._looked_at = now_ms()
        rows = self._parts.queue.held(self.events)
        lost = [h for h in self.events if h.mid not in rows]
        self.events = [h for h in self.events if h.mid in rows]
        if rows and min(r.lease_expires_ms for r in rows.values()) - now_ms() < self._lives_ms * 2 // 3:
            self.renew(self._lives_ms)
        return lost

    def keep(self) -> None:
        """Check now and then, while something is waited for that needs no fence."""
        if now_ms() - self._looked_at > KEEP_EVERY_MS:
            self.check()

    def renew(self, lives_ms: int) -> None:
        """Let the claim live for `lives_ms` from now."""
        self._parts.queue.renew(self.events, run_id=self._run_id, lease_expires_ms=now_ms() + lives_ms)


class Working:
    """Phases that are still held and open, with everything needed to judge a row."""

    def __init__(self, parts: Parts, work: Work) -> None:
        """Checks the claim first: whatever was taken over or is final is not worked on.

        :raises TakenOver: if nothing is left although there was something to do.
        """
        self.parts = parts
        self.run_id = work.run_id
        self.phases = list(work.phases)
        self._claim = Claim(parts, [h for p in work.phases for h in p.held], work.run_id)
        self._effects: dict[int, Effect] = {}
        self.fence()
        self.events: dict[str, EventRow] = parts.events.read([h.mid for h in self._claim.events])
        self._effects = {id(p): effect(parts, p, self.events) for p in self.phases}
        self._index()
        self._drop({h.mid for h in self._claim.events if self.events[h.mid].final})

    def _index(self) -> None:
        self._of_user: dict[str, Phase] = {}
        self._of_batch: dict[BatchId, list[Phase]] = defaultdict(list)
        for p in self.phases:
            if e := self._effects.get(id(p)):
                self._of_user |= dict.fromkeys(e.sources, p)
                for batch in e.ids:
                    self._of_batch[batch].append(p)
        self.sources = frozenset(self._of_user)
        self._of_event = {h.mid: p for p in self.phases for h in p.held}
        self._tokens = {h.mid: h.fencing_token for p in self.phases for h in p.held}

    def fence(self) -> None:
        """The check before every wave of writes: phases that were taken over are dropped.

        :raises TakenOver: if none is left.
        """
        before = bool(self.phases)
        self._drop({h.mid for h in self._claim.check()})
        if before and not self.phases:
            raise TakenOver("every event of this slice is held by another run now")

    def drop(self, phases: Iterable[Phase]) -> None:
        """Go on without these phases: their events have ended, or wait for somebody."""
        self._drop({h.mid for p in phases for h in p.held})

    def _drop(self, mids: AbstractSet[str]) -> None:
        if not mids:
            return
        self.phases = [p for p in self.phases if not mids & {h.mid for h in p.held}]
        kept = {h.mid for p in self.phases for h in p.held}
        self._claim.events = [h for h in self._claim.events if h.mid in kept]
        self._index()

    @property
    def held(self) -> list[ClaimedEvent]:
        """The events of all phases."""
        return [h for p in self.phases for h in p.held]

    def concerned_mids(self, phases: Iterable[Phase]) -> set[str]:
        """The events under which the plans and images of phases stand."""
        return {m for p in phases for h in p.held for m in (h.mid, *self.events[h.mid].planned_with)}

    def effect_of(self, phase: Phase) -> Effect:
        """What a phase does."""
        return self._effects[id(phase)]

    @property
    def ids(self) -> set[BatchId]:
        """Batches that the phases concern without a search."""
        return set(self._of_batch)

    def phases_of(self, batch: BatchId, users: Iterable[str]) -> list[Phase]:
        """The phases that a batch concerns, by itself or because it names `users` (folded)."""
        found = {id(p): p for u in users if (p := self._of_user.get(u))}
        found |= {id(p): p for p in self._of_batch.get(batch, ())}
        return list(found.values())

    def concerned(self, row: Row) -> list[Phase]:
        """The phases that a row concerns."""
        return self.phases_of(row.id, map(folded, row.named))

    def after(self, row: Row) -> Row:
        """What the row should be."""
        for p in self.concerned(row):
            row = self._effects[id(p)].after(row)
        return row

    def right(self, row: Row | None) -> bool:
        """True if nothing about the row is left to be changed."""
        return row is None or self.after(row) == row

    def steps(self, before: Row, after: Row) -> list[Hop]:
        """The change told event by event, phase after phase."""
        found: list[Hop] = []
        row = before
        for p in self.concerned(before):
            then = self._effects[id(p)].after(row)
            if then != row:
                found += self._effects[id(p)].steps(row, then)
            row = then
        if row.owners != after.owners and found:  # it was edited while it was judged
            return [Hop(found[-1].mid, before, after)]
        return found

    def token(self, mid: str) -> int:
        """Claim token of an event."""
        return self._tokens[mid]

    def planned(self, batch: BatchId, row: Row | None, named: Iterable[str]) -> list[Planned]:
        """Plan rows for a batch, under the events that say so of themselves.

        `named`: users (folded) that the batch's document names, for rows that name nobody any more.
        """
        named = frozenset(named)
        users = {*map(folded, row.named if row else ()), *named}
        return [
            Planned(mid, batch)
            for p in self.phases_of(batch, users)
            for mid in self._effects[id(p)].planned_by(batch, row, named)
        ]

    def takes_back(self, mid: str) -> bool:
        """True if the event is an undo: what it moved are its own changes only."""
        return isinstance(self._effect_of(mid), Undoing)

    def unmoved(self, planned: Planned, row: Row | None) -> BatchOutcome:
        """What became of a planned batch that was not moved, by its row as it is."""
        return self._effect_of(planned.mid).unmoved(planned.mid, planned.id, row)

    def _effect_of(self, mid: str) -> Effect:
        # A composed move may be planned under another event of the phase.
        return self._effects[id(self._of_event.get(mid, self.phases[0]))]


def effect(parts: Parts, phase: Phase, events: Mapping[str, EventRow]) -> Effect:
    """What a phase does, from its map or, for undos, from the audit trail of what they take back."""
    undos = [h for h in phase.held if (e := events.get(h.mid)) and e.options.undo_of]
    if undos:
        return undoing(taken_hops(parts, [events[h.mid] for h in undos]))
    transfers = [h.transfer for h in phase.held]
    first = events.get(phase.held[0].mid)
    scope = first.options.scope if first else EVERYTHING
    if first and first.options.plan_of and first.planned_at:
        # A plan that is applied exactly: its batches are known since it was checked against its digest.
        scope = scope._replace(only=frozenset(parts.changes.batches([first.mid])))
    moves = Moving(transfers, dict(phase.moves), scope)
    return replace(moves, keep=_given_later(parts, phase, moves.sources)) if phase.later else moves


def taken_hops(parts: Parts, undos: Sequence[EventRow]) -> list[Hop]:
    """The changes that `undos` take back, in the order in which they are undone: newest first of each.

    Each is under the mid of its undo, with before and after as they were.
    """
    of = {u.mid: u.options.undo_of for u in undos if u.options.undo_of}
    _, images = parts.changes.read(set(of.values()))
    found: dict[str, list[Hop]] = defaultdict(list)
    for image in reversed(images):
        if image.outcome in (ChangeOutcome.APPLIED, ChangeOutcome.LATE):
            for hop in image.hops:
                found[hop.mid].append(hop)
    return [h._replace(mid=u.mid) for u in undos for h in found.get(of.get(u.mid, ""), ())]


def _given_later(
    parts: Parts, phase: Phase, own_sources: AbstractSet[str]
) -> Mapping[BatchId, frozenset[str]]:
    """Users to whom a later, completed event gave a batch: they keep it."""
    later = parts.events.read(phase.later)
    _, images = parts.changes.read(later)
    keep: dict[BatchId, set[str]] = defaultdict(set)
    for image in images:
        for hop in image.hops if image.outcome == ChangeOutcome.APPLIED else ():
            event = later.get(hop.mid)
            if (
                event
                and event.transfer.target in own_sources
                and event.transfer.key > phase.held[-1].transfer.key
            ):
                keep[image.id].add(event.transfer.target)
    return {batch: frozenset(users) for batch, users in keep.items()}


def batches_of(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Batches by outcome over several events: a batch that a chain moved counts once."""
    total: dict[str, int] = defaultdict(int)
    for some in counts:
        for name, n in some.items():
            if name != BatchOutcome.MOVED:
                total[BatchOutcome.MOVED if name == ROWS else name] += n
    return dict(total)
