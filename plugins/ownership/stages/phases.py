"""Which of a slice's events go together in a phase, and which wait for a later one. It writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from typing import NamedTuple, TypeAlias

from ownership.domain.contracts import Phase
from ownership.domain.effects import undo_effect
from ownership.domain.event import Transfer
from ownership.domain.lanes import WHOLE, Kind, Moves, fold, lanes, phases, sources
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
    """
    held = {e.mid: e for e in [*valid, *undecided]}
    blocking = {e.mid for e in undecided}

    @cache
    def reverted(mid: str) -> list[Hop]:
        return hops_to_undo(parts, [rows[mid]])

    def are_idempotent(undos: Sequence[Transfer]) -> bool:
        return len(undos) == 1 or undo_effect(h for e in undos for h in reverted(e.mid)).is_idempotent()

    chosen: list[tuple[list[Transfer], Moves]] = []
    waiting: Waiting = []
    for lane in lanes(e.transfer for e in held.values()):
        found = phases(
            lane,
            lambda e: e.mid in blocking,
            limit=EVENTS_PER_PHASE,
            kind=lambda e: _kind(rows[e.mid], alone=e.mid in alone),
            closed=are_idempotent,
        )
        chosen += found
        placed = blocking | {e.mid for events, _ in found for e in events}
        blockers = _blockers(lane)
        waiting += [(held[e.mid], blockers[e.mid]) for e in lane if e.mid not in placed]
    made, late = _made(parts, chosen, rows, held)
    return Chosen(made, waiting, late)


def _kind(row: EventRow, *, alone: bool) -> Kind:
    """With which other events an event may form a phase."""
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


def _blockers(lane: Sequence[Transfer]) -> dict[str, str]:
    """By mid, the mid of the nearest earlier event that shares a user with it, else of the lane's first event."""
    last: dict[str, int] = {}
    blockers = {}
    for n, e in enumerate(lane):
        blockers[e.mid] = lane[max((last[u] for u in e.users if u in last), default=0)].mid
        last |= dict.fromkeys(e.users, n)
    return blockers


def _made(
    parts: Parts,
    chosen: Sequence[tuple[Sequence[Transfer], Moves]],
    rows: Mapping[str, EventRow],
    held: Mapping[str, ClaimedEvent],
) -> tuple[list[Phase], list[ClaimedEvent]]:
    """The phases, with what later events that have ended change about them; and `Chosen.late`."""
    made: list[Phase] = []
    late: list[ClaimedEvent] = []
    ended = parts.events.later_ended([e for events, _ in chosen for e in events])
    for events, moves in chosen:
        scope = rows[events[0].mid].scope
        later = [e for e in ended if e.transfer.key > events[0].key and e.scope.meets(scope)]
        own = sources(moves)
        passed_on = fold(events, _that_pass_on(later, scope))
        made.append(
            Phase(
                events=tuple(held[e.mid] for e in events),
                moves={u: passed_on.get(u, v) for u, v in moves.items()},
                later=tuple(e.mid for e in later if e.transfer.target in own),
            )
        )
        late += [
            held[e.mid]
            for e in events
            if any(other.transfer.key > e.key and other.transfer.users & e.users for other in later)
        ]
    return made, late


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
