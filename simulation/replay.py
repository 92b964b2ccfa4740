"""What the rows of a world may be in the end, by a plain replay of its events, one after the other. Pure.

The replay knows nothing of the product but the order of events. Where an edit of the LMS came in between is not known:
each place in the order is tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import NamedTuple

from simulation.setup import ORGANISATION, OUTSIDERS, BatchSpec, Edit

LIVE = (0, 1)


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


@dataclass(frozen=True)
class Row:
    """A row during the replay."""

    created_by: str | None
    mentors: tuple[str, ...]
    status: int
    exists: bool = True
    hops: Mapping[str, tuple[Row, Row]] = field(default_factory=dict, compare=False)
    """By mid, the row before and after the event."""

    @property
    def owners(self) -> tuple[str | None, tuple[str, ...]]:
        """Creator and mentors."""
        return self.created_by, self.mentors


def finals(batch: BatchSpec, events: Sequence[Event], edits: Sequence[Edit]) -> list[Row]:
    """Every row that the batch may end as."""
    events = [e for e in events if e.planned is None or batch.batch in e.planned]
    begin = Row(batch.created_by, batch.mentors, batch.status)
    optional = [e for e in events if e.abandoned]
    found: list[Row] = []
    for left_out in _subsets([e.mid for e in optional]):
        done = [e for e in events if e.mid not in left_out]
        for order in _all_orders(done):
            for steps in _merged(order, list(enumerate(edits))):
                row = begin
                for step in steps:
                    row = _after(row, step, batch) if isinstance(step, Event) else _edited(row, *step)
                if row not in found:
                    found.append(row)
    return found


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

    One that came too late acts on what its user holds by then. What it moves goes to whom its target has passed
    everything on.
    """
    n = next((n for n, e in enumerate(events) if e.overtaken_by), None)
    if n is None:
        yield list(events)
        return
    late, last = (
        events[n],
        max((m for m, e in enumerate(events) if e.mid in events[n].overtaken_by), default=n),
    )
    target = late.to_user
    for place in range(n, max(n, last) + 1):
        before = events[n + 1 : place + 1]
        if before and not late.undo_of and before[-1].from_user == target and _passes_on(before[-1], late):
            target = before[-1].to_user
        moved = late._replace(to_user=target, overtaken_by=frozenset())
        yield from _orders([*events[:n], *before, moved, *events[place + 1 :]])


def _passes_on(event: Event, late: Event) -> bool:
    """True if the event moved everything that its user had, or just what the late one is about."""
    restricted = (event.asset, event.giver_deleted)
    return not event.undo_of and restricted in (("", False), (late.asset, late.giver_deleted))


def _subsets(names: Sequence[str]) -> Iterator[set[str]]:
    for choice in product((False, True), repeat=len(names)):
        yield {n for n, out in zip(names, choice, strict=True) if out}


def _merged(
    events: Sequence[Event], edits: Sequence[tuple[int, Edit]]
) -> Iterator[list[Event | tuple[int, Edit]]]:
    """Every way to put the edits, in their order, between the events."""
    if not edits:
        yield list(events)
        return
    first, rest = edits[0], edits[1:]
    for n in range(len(events) + 1):
        for tail in _merged(events[n:], rest):
            yield [*events[:n], first, *tail]


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
    return replace(then, hops={**row.hops, event.mid: (row, then)})


def _moved(row: Row, event: Event, batch: BatchSpec) -> Row:
    if row.status not in LIVE or event.asset not in ("", batch.batch):
        return row
    if event.giver_deleted and batch.created_for and ORGANISATION not in batch.created_for:
        return row
    creator = event.to_user if row.created_by == event.from_user else row.created_by
    mentors = row.mentors
    if event.from_user in mentors:
        mentors = tuple(dict.fromkeys(event.to_user if m == event.from_user else m for m in mentors))
    return replace(row, created_by=creator, mentors=mentors)


def _undone(row: Row, event: Event) -> Row:
    if event.undo_of not in row.hops:
        return row
    before, after = row.hops[event.undo_of]
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
