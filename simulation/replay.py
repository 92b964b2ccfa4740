"""What the rows of a world may be in the end, by a plain replay of its events, one after the other. Pure.

The replay knows nothing of the product but the order of events. Where an edit of the LMS came in between is not known:
each place in the order is tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import NamedTuple

from simulation.setup import ORGANISATION, OUTSIDERS, BatchSpec, Edit

LIVE = (0, 1)
MAX_ORDERS = 20_000
"""Six of seven events that came too late have millions, and take minutes."""


class TooManyOrdersError(Exception):
    """The events may have taken effect in more than `MAX_ORDERS` orders."""


class Event(NamedTuple):
    """An event that took effect."""

    mid: str
    from_user: str
    to_user: str
    undo_of: str = ""
    asset: str = ""
    giver_deleted: bool = False
    abandoned: bool = False
    """It may have moved a batch, or not."""
    planned: frozenset[str] | None = None
    """The batches of the plan that it applies; None for an event that moves whatever its user has."""
    overtaken_by: frozenset[str] = frozenset()
    """Later events that may have taken effect before it: it came too late for them."""
    changed: frozenset[str] | None = None
    """The batches that it changed, by the audit trail; None for all that the replay says. An undo takes nothing else
    back: of a phase that leads a batch away and back again, no event has changed it."""
    is_placed: bool = False
    """True once it came too late and has its place."""
    keeps: frozenset[str] = frozenset()
    """Later events that took effect before it: what they gave stays with its user."""


@dataclass(frozen=True)
class Row:
    """A row during the replay."""

    created_by: str | None
    mentors: tuple[str, ...]
    status: int
    exists: bool = True
    hops: Mapping[str, Hop] = field(default_factory=dict, compare=False)
    """By mid, what the event changed."""

    @property
    def owners(self) -> tuple[str | None, tuple[str, ...]]:
        """Creator and mentors."""
        return self.created_by, self.mentors

    @property
    def state(self) -> object:
        """The row and its hops: all that what follows depends on."""
        return self, frozenset(self.hops.items())


class Hop(NamedTuple):
    """The row before and after an event, and to whom it gave."""

    before: Row
    after: Row
    to_user: str

    def merges(self, user: str) -> bool:
        """True if the user, who was a mentor already, got another mentor's place: of two places one is left."""
        mentors = self.before.mentors
        return self.to_user == user and user in mentors and len(self.after.mentors) < len(mentors)


def finals(batch: BatchSpec, events: Sequence[Event], edits: Sequence[Edit]) -> list[Row]:
    """Every row that the batch may end as.

    :raises TooManyOrdersError: if too many events came too late.
    """
    events = [e for e in events if e.planned is None or batch.batch in e.planned]
    begin = Row(batch.created_by, batch.mentors, batch.status)
    optional = [e for e in events if e.abandoned]
    orders = dict.fromkeys(
        tuple(order)
        for left_out in _subsets([e.mid for e in optional])
        for order in _bounded(_all_orders([e for e in events if e.mid not in left_out]))
    )
    found: dict[Row, None] = {}
    for order in orders:
        found |= dict.fromkeys(_ends(begin, order, edits, batch))
    return list(found)


def _bounded(orders: Iterable[list[Event]]) -> Iterator[list[Event]]:
    for n, order in enumerate(orders):
        if n == MAX_ORDERS:
            raise TooManyOrdersError
        yield order


def _all_orders(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Every order in which the events may have taken effect, with what an undo tells apart.

    Events without a user in common are carried out side by side. Both may change places of one batch; the undo of one
    finds the batch as its own event left it, or not.
    """
    for order in _orders(events):
        yield order
        if any(e.undo_of for e in order):
            for n, (first, second) in enumerate(pairwise(order)):
                if not {first.from_user, first.to_user} & {second.from_user, second.to_user}:
                    yield [*order[:n], second, first, *order[n + 2 :]]


def _orders(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Every order in which the events may have taken effect.

    One that came too late acts on what its user holds by then, with what later ones gave or without. What it moves goes
    to whom its target has passed everything on, and has not got it back.
    """
    n = next((n for n, e in enumerate(events) if e.overtaken_by), None)
    if n is None:
        yield list(events)
        return
    late = events[n]
    last = max((m for m, e in enumerate(events) if e.mid in late.overtaken_by), default=n)
    while last + 1 < len(events) and events[last + 1].is_placed:  # the other may go before it
        last += 1
    for place in range(n, max(n, last) + 1):
        before = events[n + 1 : place + 1]
        later = [e for e in before if not e.is_placed]
        moved = late._replace(to_user=_target(late, later), overtaken_by=frozenset(), is_placed=True)
        for keeps in {frozenset(), frozenset(e.mid for e in later)}:
            yield from _orders([*events[:n], *before, moved._replace(keeps=keeps), *events[place + 1 :]])


def _target(late: Event, later: Sequence[Event]) -> str:
    """To whom a late event gives, after `later` ones have ended."""
    undone: set[str] = set()
    for event in reversed(later):
        if event.undo_of and event.mid not in undone:
            undone.add(event.undo_of)
    target = late.to_user
    for event in later:
        if event.from_user == target and event.mid not in undone and _passes_on(event, late):
            target = event.to_user
    return late.to_user if late.undo_of else target


def _passes_on(event: Event, late: Event) -> bool:
    """True if the event moved everything that its user had, or just what the late one is about; a plan moves its own."""
    restricted = (event.asset, event.giver_deleted)
    of_plan = event.planned is not None
    return not (event.undo_of or of_plan) and restricted in (("", False), (late.asset, late.giver_deleted))


def _subsets(names: Sequence[str]) -> Iterator[set[str]]:
    for choice in product((False, True), repeat=len(names)):
        yield {n for n, out in zip(names, choice, strict=True) if out}


def _ends(begin: Row, order: Sequence[Event], edits: Sequence[Edit], batch: BatchSpec) -> Collection[Row]:
    """Every row that the events may end in, in this order, with the edits in theirs, anywhere between.

    What was reached is kept by the number of edits until then, and each state once: the ways to it are too many.
    """
    reached: list[dict[object, Row]] = [{begin.state: begin}, *({} for _ in edits)]
    for event in (*order, None):
        for n, edit in enumerate(edits):
            reached[n + 1] |= {r.state: r for row in reached[n].values() for r in [_edited(row, n, edit)]}
        if event:
            after = ([_after(row, event, batch) for row in rows.values()] for rows in reached)
            reached = [{r.state: r for r in rows} for rows in after]
    return reached[-1].values()


def _edited(row: Row, n: int, edit: Edit) -> Row:
    if not row.exists:
        return row
    if edit is Edit.OWNER:
        return replace(row, created_by=OUTSIDERS[0])
    if edit is Edit.MENTOR:
        return replace(row, mentors=(*row.mentors, f"z{n + 1}"))
    if edit is Edit.COMPLETE:
        return replace(row, status=2)
    return replace(row, exists=False) if edit is Edit.DELETE else row


def _after(row: Row, event: Event, batch: BatchSpec) -> Row:
    """The row after one event."""
    if not row.exists:
        return row
    then = _undone(row, event) if event.undo_of else _moved(row, event, batch)
    if then.owners == row.owners:
        return row
    if event.changed is not None and batch.batch not in event.changed:
        return then
    return replace(then, hops={**row.hops, event.mid: Hop(row, then, event.to_user)})


def _moved(row: Row, event: Event, batch: BatchSpec) -> Row:
    if row.status not in LIVE or event.asset not in ("", batch.batch):
        return row
    if event.giver_deleted and batch.created_for and ORGANISATION not in batch.created_for:
        return row
    old, given = event.from_user, [row.hops[mid] for mid in event.keeps if mid in row.hops]
    keeps_row = any(hop.before.created_by != old == hop.after.created_by for hop in given)
    keeps_place = any(old in hop.after.mentors and old not in hop.before.mentors for hop in given)
    creator = event.to_user if row.created_by == old and not keeps_row else row.created_by
    mentors = row.mentors
    if old in mentors and not keeps_place:
        places = (event.to_user, old) if any(hop.merges(old) for hop in given) else (event.to_user,)
        mentors = tuple(dict.fromkeys(u for m in mentors for u in (places if m == old else (m,))))
    return replace(row, created_by=creator, mentors=mentors)


def _undone(row: Row, event: Event) -> Row:
    if event.undo_of not in row.hops:
        return row
    before, after, _ = row.hops[event.undo_of]
    changed: dict[str, object] = {}
    for name in ("created_by", "mentors"):
        if getattr(before, name) != getattr(after, name):
            if getattr(row, name) != getattr(after, name):
                return row
            changed[name] = getattr(before, name)
    return replace(row, **changed)  # type: ignore[arg-type]  # by name


def told(rows: Iterable[Row]) -> str:
    """The rows in a few words."""
    return " or ".join(
        f"{r.created_by}/{','.join(r.mentors)}({r.status})" if r.exists else "gone" for r in rows
    )
