"""Which of a slice's events go together in a phase, and which wait for a later one. It writes nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import NamedTuple, TypeAlias

from ownership.domain.contracts import Phase
from ownership.domain.effects import undo_effect
from ownership.domain.event import Transfer
from ownership.domain.lanes import WHOLE, Kind, Moves, follow, idempotent, lanes, passed_on, phases, sources
from ownership.domain.plan import Hop, Scope
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import EventState
from ownership.ledger.events import EventRow
from ownership.stages.claimed_work import hops_to_undo
from ownership.stages.parts import Parts

EVENTS_PER_PHASE = 1000
"""A phase is committed in one transaction; longer lanes go in several."""

Waiting: TypeAlias = list[tuple[ClaimedEvent, str]]
"""Events for the next phases, each with the mid of the event for which it waits."""


class Chosen(NamedTuple):
    """What a run does with a slice's valid events."""

    phases: list[Phase]
    waiting: Waiting
    late: list[ClaimedEvent]
    """Events of the phases that come after a later event of their users has completed, or was abandoned half-way."""


def choose_phases(
    parts: Parts,
    valid: Sequence[ClaimedEvent],
    undecided: Sequence[ClaimedEvent],
    rows: Mapping[str, EventRow],
    alone: AbstractSet[str],
) -> Chosen:
    """Decide which of the `valid` events go together in a phase.

    Reads later events of the same users that have ended, and the changes that undos take back. `undecided` events hold
    back later ones of their users. `alone`: mids that get a phase to themselves.

    What has ended connects lanes, too: of A->B and C->D, which come after B->C and D->A, each gives to the other's
    old user.
    """
    held = {e.mid: e for e in [*valid, *undecided]}
    blocking = {e.mid for e in undecided}
    ended = parts.events.later_ended([e.transfer for e in valid])
    overtakers = _Overtakers([rows[e.mid] for e in valid], ended)

    def kind(e: Transfer) -> Kind:
        return _kind(rows[e.mid], alone=e.mid in alone, overtaken_by=overtakers.first.get(e.mid))

    @cache
    def reverted(mid: str) -> list[Hop]:
        return hops_to_undo(parts, [rows[mid]])

    def closed(events: Sequence[Transfer], moves: Moves) -> bool:
        row = rows[events[0].mid]
        if not row.options.undo_of:
            return idempotent(follow(moves, overtakers.onward(row)))
        return len(events) == 1 or undo_effect(h for e in events for h in reverted(e.mid)).is_idempotent()

    chosen: list[Phase] = []
    waiting: Waiting = []
    for connected in lanes([*(e.transfer for e in held.values()), *(e.transfer for e in ended)]):
        lane = [e for e in connected if e.mid in held]
        found = phases(lane, lambda e: e.mid in blocking, limit=EVENTS_PER_PHASE, kind=kind, closed=closed)
        for events, moves in found:
            first = rows[events[0].mid]
            own = sources(moves)
            chosen.append(
                Phase(
                    events=tuple(held[e.mid] for e in events),
                    moves=follow(moves, overtakers.onward(first)),
                    later=tuple(o.mid for o in overtakers.of(first) if o.transfer.target in own),
                )
            )
        placed = blocking | {e.mid for events, _ in found for e in events}
        blockers = _blockers(lane, found[0][0][0] if found else lane[0])
        waiting += [(held[e.mid], blockers[e.mid]) for e in lane if e.mid not in placed]
    return Chosen(chosen, waiting, [e for p in chosen for e in p.events if e.mid in overtakers.first])


class _Overtakers:
    """The later events that have ended before some that came late."""

    def __init__(self, valid: Iterable[EventRow], ended: Sequence[EventRow]) -> None:
        self._ended = sorted(ended, key=lambda row: row.transfer.key)
        self._onward: dict[tuple[str, Scope], Moves] = {}
        self.first: dict[str, EventRow] = {}
        """By mid of an event that came late, the first later one of its users that has ended."""
        of_user: dict[str, list[EventRow]] = defaultdict(list)
        for row in self._ended:
            for user in row.transfer.users:
                of_user[user].append(row)
        for row in valid:
            later = (o for u in row.transfer.users for o in of_user[u] if _is_later(o, row))
            if first := min(later, key=lambda o: o.transfer.key, default=None):
                self.first[row.mid] = first

    def of(self, row: EventRow) -> list[EventRow]:
        """The first that has overtaken the event, and those after it."""
        if row.mid not in self.first:
            return []
        since = self.first[row.mid].transfer.key
        return [o for o in self._ended if o.transfer.key >= since and _is_later(o, row)]

    def onward(self, row: EventRow) -> Moves:
        """Where they pass on what the event, and others that the same one has overtaken, give to their old users."""
        if row.mid not in self.first:
            return {}
        key = self.first[row.mid].mid, row.scope
        if key not in self._onward:
            self._onward[key] = passed_on(_that_pass_on(self.of(row), row.scope))
        return self._onward[key]


def _is_later(other: EventRow, row: EventRow) -> bool:
    """True if the other event comes after this one, and may be about the same batch."""
    return other.transfer.key > row.transfer.key and other.scope.meets(row.scope)


def _kind(row: EventRow, *, alone: bool, overtaken_by: EventRow | None) -> Kind:
    """With which other events an event may form a phase.

    Late ones only with such as the same event has overtaken: with b->a, a->b, b->a, of which the second has ended,
    the third moves what the first one alone leaves with b.
    """
    kind = _kind_on_time(row, alone=alone)
    return kind._replace(overtaken_by=overtaken_by.mid) if overtaken_by else kind


def _kind_on_time(row: EventRow, *, alone: bool) -> Kind:
    options, is_undo = row.options, row.options.undo_of is not None
    if not (alone or options.plan_of or row.approved_digest):
        if options.composable:
            return Kind(undo=False, group=_group(row.scope), part=row.scope.batch_id or "")
        if is_undo:
            return Kind(undo=True, group="dry run" if options.dry_run else "")
    if options.dry_run:
        # It changes nothing, so other dry runs have nothing to do with it.
        return Kind(undo=False, group="dry run", part=row.mid)
    return Kind(undo=is_undo, group=row.mid)


def _group(scope: Scope) -> str:
    """Names what events of one phase have in common beside their users."""
    about = "of one asset each" if scope.batch_id else ""
    return f"{about}\0{scope.organisation}" if about or scope.organisation is not None else WHOLE.group


def _blockers(lane: Sequence[Transfer], otherwise: Transfer) -> dict[str, str]:
    """By mid, the mid of the nearest earlier event that shares a user with it, else of `otherwise`."""
    last: dict[str, int] = {}
    blockers = {}
    for n, e in enumerate(lane):
        before = [last[u] for u in e.users if u in last]
        blockers[e.mid] = (lane[max(before)] if before else otherwise).mid
        last |= dict.fromkeys(e.users, n)
    return blockers


def _that_pass_on(later: Sequence[EventRow], scope: Scope) -> list[Transfer]:
    """Those of the later events that pass on what a phase of this scope gives to their old users.

    One that was restricted otherwise, undone or abandoned passes nothing on but what it moved itself.
    """
    undone = _undone(later)
    return [
        e.transfer
        for e in later
        if e.state == EventState.COMPLETED
        and e.mid not in undone
        and (e.whole or (e.options.composable and e.scope == scope))
    ]


def _undone(events: Iterable[EventRow]) -> set[str]:
    """Mids of the events that others of them have taken back, and that were not brought back since."""
    undone: set[str] = set()
    for row in sorted(events, key=lambda e: e.transfer.key, reverse=True):
        if row.options.undo_of and row.mid not in undone:
            undone.add(row.options.undo_of)
    return undone
