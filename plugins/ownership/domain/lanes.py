"""Which events belong together, and where each user's batches end up. Pure functions.

A *lane* is a set of claimed events connected by shared users; a *phase* is the part of a lane
that may be applied at once; `compose` folds a phase into one map user -> user.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import isqrt
from typing import NamedTuple

from ownership.domain.event import Transfer, folded

EVENTS_PER_START = 200
"""Events whose work costs as much as a slice's start: an instance of each of three tasks, a second of CPU.

Measured on 2 cores (docs/performance.md): 16 events of 12 batches took 2.3 s in one slice and 2.8 s in two, 200 took 4.1
and 4.0; runs of 250 events of 2 batches needed a fifth less CPU in one.
"""


class Kind(NamedTuple):
    """Events of one kind may form a phase together; who must have a phase alone is a kind of its own."""

    undo: bool
    group: str
    part: str = ""
    """Names what the events are about, if not everything: parts of a group have no batch in common."""
    overtaken_by: str = ""
    """Mid of the first event that comes later in order and has ended before them; empty for events on time."""


WHOLE = Kind(undo=False, group="")
"""Transfers of everything, as from the topic."""

Moves = dict[str, str]
"""Where a user's batches end up: folded id -> id as it is to be written. Who is not in it keeps them."""

Closed = Callable[[Sequence[Transfer], Moves], bool]
"""Says whether events with this map may be applied together: applied again, they must change nothing."""


def compose(moves: Mapping[str, str], event: Transfer) -> Moves:
    """`moves`, then `event`: whatever ended at the event's old user goes on to its new user."""
    after = {u: event.to_user if folded(v) == event.source else v for u, v in moves.items()}
    after.setdefault(event.source, event.to_user)
    after.setdefault(event.target, event.to_user)
    return after


def idempotent(moves: Mapping[str, str]) -> bool:
    """True if applying `moves` to its own result changes nothing."""
    return all(folded(moves.get(folded(v), v)) == folded(v) for v in moves.values())


def sources(moves: Mapping[str, str]) -> frozenset[str]:
    """Users (folded) whose batches move away."""
    return frozenset(u for u, v in moves.items() if u != folded(v))


def lanes(events: Iterable[Transfer]) -> list[list[Transfer]]:
    """Union-find over {from, to}: events in key order, one list per group that shares users."""
    parent: dict[str, str] = {}

    def root(user: str) -> str:
        parent.setdefault(user, user)
        while parent[user] != user:
            parent[user] = parent[parent[user]]
            user = parent[user]
        return user

    ordered = sorted(events)
    for e in ordered:
        parent[root(e.source)] = root(e.target)
    groups: dict[str, list[Transfer]] = {}
    for e in ordered:
        groups.setdefault(root(e.source), []).append(e)
    return list(groups.values())


def phase(
    lane: Sequence[Transfer],
    undecided: Callable[[Transfer], bool],
    *,
    limit: int,
    kind: Callable[[Transfer], Kind] = lambda _: WHOLE,
    closed: Closed = lambda _, moves: idempotent(moves),
) -> tuple[list[Transfer], Moves]:
    """The events of a lane that may be applied together, at most `limit`, and their map; undos have none.

    An event joins others of its `kind` if they stay idempotent together, as `closed` says: C->B then A->C must not be
    composed, because the search for the first event would move on A's batches that arrive at C. What does not join,
    or is undecided, is for a later phase and blocks its users.
    """
    chosen: list[Transfer] = []
    moves: Moves = {}
    blocked: set[str] = set()
    for event in sorted(lane):
        then = moves if kind(event).undo else compose(moves, event)
        if (
            len(chosen) < limit
            and not event.users & blocked
            and (not chosen or kind(event) == kind(chosen[0]))
            and not undecided(event)
            and closed([*chosen, event], then)
        ):
            chosen.append(event)
            moves = then
        else:
            blocked |= event.users
    return chosen, moves


def phases(
    lane: Sequence[Transfer],
    undecided: Callable[[Transfer], bool],
    *,
    limit: int,
    kind: Callable[[Transfer], Kind],
    closed: Closed,
) -> list[tuple[list[Transfer], Moves]]:
    """The phases of a lane that may be applied beside each other: one, or one for each part of the first one's group.

    Events of other kinds hold back those of the parts that come later and share a user with them. The parts have
    nothing to do with each other.
    """
    first, _ = phase(lane, undecided, limit=1, kind=kind, closed=closed)
    if not first:
        return []
    chosen = kind(first[0])
    parts: dict[str, list[Transfer]] = {}
    others: set[str] = set()
    held_back: set[str] = set()
    for event in sorted(lane):
        own = kind(event)
        if own.group != chosen.group:
            others |= event.users
            continue
        parts.setdefault(own.part, []).append(event)
        if undecided(event) or event.users & others:
            held_back.add(event.mid)
    found = []
    for part, events in parts.items():
        then, moves = phase(events, lambda e: e.mid in held_back, limit=limit, kind=kind, closed=closed)
        if then and kind(then[0]) == chosen._replace(part=part):
            found.append((then, moves))
    return found


def passed_on(completed: Iterable[Transfer]) -> Moves:
    """Where transfers that have completed lead from each of their old users: folded id -> id as it is written."""
    onward: Moves = {}
    for event in sorted(completed, reverse=True):
        onward[event.source] = onward.get(event.target, event.to_user)
    return onward


def follow(moves: Moves, onward: Moves) -> Moves:
    """A phase's map with later transfers folded in that have completed before, as `passed_on` has them.

    They change where the batches end up, but add no source of their own.
    """
    if not onward:
        return moves
    ends = {u: onward.get(folded(v), v) for u, v in moves.items()}
    # A target whose batches a completed event passed on is no source: it keeps what it got since.
    return {u: v if folded(moves[u]) != u else moves[u] for u, v in ends.items()}


def instances(groups: Sequence[Sequence[Transfer]], *, max_mapped: int, slices: int) -> int:
    """How many mapped instances of a stage a run of these lanes has.

    One a lane up to `max_mapped` lanes; more are packed into `slices`, or fewer if there are few events. A slice more
    divides the work, and its start takes time from all cores (`slices` is one for each): the best number is a root.
    """
    if len(groups) <= max_mapped:
        return len(groups)
    best = isqrt(slices * sum(map(len, groups)) // EVENTS_PER_START)
    return min(len(groups), slices, max(1, best))


def pack(groups: Sequence[Sequence[Transfer]], *, max_mapped: int, slices: int) -> list[list[Transfer]]:
    """The events of each mapped instance: one lane, or several if there are more lanes than instances.

    Packed slices have about equal numbers of events; a lane is never cut.
    """
    count = instances(groups, max_mapped=max_mapped, slices=slices)
    if count == len(groups):
        return [list(g) for g in groups]
    bins: list[list[Transfer]] = [[] for _ in range(count)]
    for group in sorted(groups, key=len, reverse=True):
        min(bins, key=len).extend(group)
    return [sorted(b) for b in bins]


def label(events: Collection[Transfer]) -> str:
    """Name of a mapped instance in the UI: its first pair of users, ids shortened, and how many more."""
    pairs = list(dict.fromkeys((e.from_user, e.to_user) for e in sorted(events)))
    first = " → ".join(map(_short, pairs[0])) if pairs else "nothing"
    more = f" + {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return f"{first}{more} ({len(events)} events)" if len(events) > 1 else first


def _short(user_id: str) -> str:
    return user_id if len(user_id) <= 20 else f"{user_id[:12]}…"
