"""What a transfer means for one row of `course_batch`. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from ownership.events import Transfer, folded

LIVE_STATUSES = (0, 1)
"""Upcoming and ongoing; 2 is completed (Sunbird-Lern lms-service)."""


class BatchId(NamedTuple):
    """Primary key of a course batch."""

    course_id: str
    batch_id: str


class Row(NamedTuple):
    """The fields of a row that a transfer reads. Null and empty `mentors` are the same."""

    id: BatchId
    created_by: str | None
    mentors: tuple[str, ...]
    status: int | None

    @property
    def live(self) -> bool:
        """True for upcoming and ongoing batches: the only ones that move."""
        return self.status in LIVE_STATUSES

    @property
    def owners(self) -> tuple[str | None, tuple[str, ...]]:
        """The two fields that a transfer may change."""
        return self.created_by, self.mentors

    @property
    def named(self) -> tuple[str, ...]:
        """Creator and mentors."""
        return (self.created_by, *self.mentors) if self.created_by is not None else self.mentors

    def names(self, users: Collection[str]) -> bool:
        """True if a user of `users` (folded) created or mentors the batch."""
        return any(folded(u) in users for u in self.named)


class Hop(NamedTuple):
    """One event's share of a row's change."""

    mid: str
    before: Row
    after: Row


def applied(moves: Mapping[str, str], row: Row, keep: Collection[str] = ()) -> Row:
    """`row` with its owners mapped by folded id, except users in `keep` (folded).

    Mentors keep their order and lose repeats, but only where a mentor is mapped: a list that
    the transfer does not concern is not touched.
    """

    def mapped(user: str) -> str:
        return user if folded(user) in keep else moves.get(folded(user), user)

    mentors = tuple(map(mapped, row.mentors))
    return row._replace(
        created_by=mapped(row.created_by) if row.created_by is not None else None,
        mentors=_without_repeats(mentors) if mentors != row.mentors else row.mentors,
    )


def _without_repeats(users: Sequence[str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for user in users:
        first.setdefault(folded(user), user)
    return tuple(first.values())


def hops(events: Sequence[Transfer], before: Row, after: Row, keep: Collection[str] = ()) -> list[Hop]:
    """The change `before` -> `after` told event by event, so that each event can be undone.

    `events` is the phase in order. Where the steps do not add up to `after` (a later transfer
    was folded in), the whole change is told as the last concerned event's.
    """
    steps: list[Hop] = []
    row = before
    for event in events:
        if event.source in keep:
            continue
        then = applied({event.source: event.to_user}, row)
        if then != row:
            steps.append(Hop(event.mid, row, then))
            row = then
    if row.owners == after.owners:
        return steps
    return [Hop(steps[-1].mid if steps else events[-1].mid, before, after)]


def role(row: Row, users: Collection[str]) -> str:
    """How `users` (folded) own the row: ``created``, ``mentored``, ``created+mentored`` or empty."""
    parts = (
        ("created", row.created_by is not None and folded(row.created_by) in users),
        ("mentored", any(folded(m) in users for m in row.mentors)),
    )
    return "+".join(name for name, holds in parts if holds)
