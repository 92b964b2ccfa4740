"""What a stage works on: the phases of its slice that the run still holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from ownership.domain.contracts import Phase, Work
from ownership.domain.effects import Effect, TransferEffect, undo_effect
from ownership.domain.errors import TakenOver
from ownership.domain.phase_book import PhaseBook
from ownership.domain.plan import EVERYTHING, BatchId, Given, Hop
from ownership.domain.states import MADE
from ownership.ledger.events import EventRow
from ownership.stages.claim import Claim, read_events
from ownership.stages.parts import Parts


@dataclass
class ClaimedWork:
    """The claim on some events, their rows in the ledger, and the book of their phases."""

    run_id: str
    claim: Claim
    events: Mapping[str, EventRow]
    """By mid, as they were when the work was loaded."""
    book: PhaseBook
    taken_over: bool = False
    """True once a fence has found that nothing is left."""

    def fence(self) -> None:
        """The check before every wave of writes: phases that another run took over leave the book.

        :raises TakenOver: if none is left.
        """
        had_phases = bool(self.book.phases)
        self._drop(self.claim.check())
        self.taken_over = self.taken_over or (had_phases and not self.book.phases)
        if self.taken_over:
            raise TakenOver("every event of this slice is held by another run now")

    def drop(self, phases: Iterable[Phase]) -> None:
        """Go on without these phases: their events have ended, or await an approval."""
        self._drop({e.mid for p in phases for e in p.events})

    def mids_with_plans(self, phases: Iterable[Phase]) -> set[str]:
        """The events under which the plans and images of phases are kept."""
        return {m for p in phases for e in p.events for m in (e.mid, *self.events[e.mid].planned_with)}

    def _drop(self, mids: AbstractSet[str]) -> None:
        if mids:
            self.book = self.book.without(mids)
            self.claim.restrict_to({e.mid for e in self.book.held})


def load(parts: Parts, work: Work) -> ClaimedWork:
    """Check the claim, and read what the phases need.

    Reads the queue (the claim), the events, and from the audit trail what `load_effect` says. Phases that another
    run took over, or that are committed, are left out.

    :raises TakenOver: if every phase that is not committed was taken over.
    :raises SettingsError: if the ledger has none of the events.
    """
    claim = Claim(parts, work.claimed, work.run_id)
    lost = claim.check()
    events = read_events(parts, work.claimed)
    unfinished = [
        p for p in work.phases if all(e.mid in events and not events[e.mid].final for e in p.events)
    ]
    phases = [p for p in unfinished if not any(e.mid in lost for e in p.events)]
    if unfinished and not phases:
        raise TakenOver("every event of this slice is held by another run now")
    claim.restrict_to({e.mid for p in phases for e in p.events})
    effects = {p.key: load_effect(parts, p, events) for p in phases}
    return ClaimedWork(work.run_id, claim, events, PhaseBook(phases, effects))


def load_effect(parts: Parts, phase: Phase, events: Mapping[str, EventRow]) -> Effect:
    """What a phase does.

    Reads from the audit trail the images that undos take back, the batches of a plan that is applied exactly, and
    what later transfers that ended before moved. Other phases need no read.
    """
    undos = [row for e in phase.events if (row := events.get(e.mid)) and row.options.undo_of]
    if undos:
        return undo_effect(hops_to_undo(parts, undos))
    first = events.get(phase.events[0].mid)
    scope = first.scope if first else EVERYTHING
    if first and first.options.plan_of and first.planned_at:
        # What it changes was compared with the dry run's plan by their digests: it is what that one shows.
        scope = scope._replace(only=frozenset(parts.changes.to_change(first.options.plan_of)))
    moves = TransferEffect([e.transfer for e in phase.events], dict(phase.moves), scope)
    return replace(moves, given=_given_later(parts, phase)) if phase.later else moves


def hops_to_undo(parts: Parts, undos: Sequence[EventRow]) -> list[Hop]:
    """The changes that `undos` take back, in the order in which they are undone: the newest of each first.

    Each is under the mid of its undo, with before and after as they were.
    """
    undone_by = {u.mid: u.options.undo_of for u in undos if u.options.undo_of}
    _, images = parts.changes.read(set(undone_by.values()))
    found: dict[str, list[Hop]] = defaultdict(list)
    for image in reversed(images):
        if image.outcome in MADE:
            for hop in image.hops:
                found[hop.mid].append(hop)
    return [h._replace(mid=u.mid) for u in undos for h in found.get(undone_by.get(u.mid, ""), ())]


def _given_later(parts: Parts, phase: Phase) -> Mapping[BatchId, Given]:
    """What later events that ended before gave to users of the phase: they keep it.

    Events from before the phase that came even later have merged places into theirs, or split them again.
    """
    first, last = phase.events[0].transfer.key, phase.events[-1].transfer.key
    later = {m: e for m, e in parts.events.read(phase.later).items() if e.transfer.key > last}
    images = parts.changes.of_batches(parts.changes.changed(later))
    events = parts.events.read({h.mid for i in images for h in i.hops})
    given: dict[BatchId, Given] = defaultdict(Given)
    for image in images:
        for hop in image.hops if image.outcome in MADE else ():
            transfer, is_later = events[hop.mid].transfer, hop.mid in later
            if is_later or transfer.key < first:
                given[image.id] = given[image.id].after(hop, transfer, is_later=is_later)
    return given
