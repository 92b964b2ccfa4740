"""What a transfer means for one row of `course_batch`. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ownership.domain.event import Transfer, folded

LIVE_STATUSES: Final = (0, 1)
"""Upcoming and ongoing; 2 is completed (Sunbird-Lern lms-service)."""
CREATED: Final = "created"
MENTORED: Final = "mentored"
ROLES: Final = (CREATED, MENTORED)
"""How a user owns a batch."""


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
    created_for: tuple[str, ...] = ()
    """Organisations that the batch is for. Only a row that was read from the table says them."""

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


class Document(NamedTuple):
    """A document: its owner fields, and the sequence number they were read at."""

    batch_id: str
    created_by: str | None
    mentors: tuple[str, ...]
    seq_no: int
    primary_term: int
    course_id: str | None = None
    """None where the document names none."""
    own_id: str | None = None
    """Its ``_id``, where it lies under another than its batch's."""
    source: Mapping[str, Any] = {}
    """All of it, as it was read."""
    routing: str | None = None
    """What chose its shard, where that was not its ``_id``."""

    @property
    def document_id(self) -> str:
        """Its ``_id``."""
        return self.own_id or self.batch_id

    @property
    def owners(self) -> tuple[str | None, tuple[str, ...]]:
        """The two fields that a transfer may change."""
        return self.created_by, self.mentors


class Hop(NamedTuple):
    """One event's share of a row's change."""

    mid: str
    before: Row
    after: Row


class Given(NamedTuple):
    """What later transfers gave of one batch, and to whom (folded): what came before them leaves that alone."""

    created: frozenset[str] = frozenset()
    """Users who became its creator."""
    mentored: frozenset[str] = frozenset()
    """Users who became its mentor."""
    shared: frozenset[str] = frozenset()
    """Users whose one place stands for another, too: their own, or what an earlier transfer has merged into it."""

    def after(self, hop: Hop, transfer: Transfer, *, is_later: bool) -> Given:
        """With what a change of `transfer` gave its new user, role by role.

        One that is not later gives nothing to keep: it fills a given place, or empties it, of what is not.
        """
        source, target = frozenset([transfer.source]), frozenset([transfer.target])
        before, after = (frozenset(map(folded, row.mentors)) for row in (hop.before, hop.after))
        became_mentor = target if hop.before.mentors != hop.after.mentors else frozenset()
        merged = became_mentor & before if source <= before else frozenset()
        if not is_later:
            left = source & before & self.shared
            shared = self.shared - left | merged & self.mentored
            return self._replace(mentored=self.mentored | left, shared=shared)
        created = (
            hop.before.created_by != hop.after.created_by and folded(hop.after.created_by or "") in target
        )
        return Given(
            self.created | (target if created else frozenset()),
            self.mentored | (became_mentor & after - before),
            self.shared | (merged & after - self.mentored),
        )


NOTHING_GIVEN = Given()


class Scope(NamedTuple):
    """Which rows a transfer may change, and what of them."""

    roles: frozenset[str] = frozenset(ROLES)
    statuses: frozenset[int] = frozenset(LIVE_STATUSES)
    courses: frozenset[str] = frozenset()
    """All courses if empty."""
    only: frozenset[BatchId] | None = None
    """What a plan changes that is to be applied exactly; None for every batch that is found."""
    batch_id: str | None = None
    """The one batch that the event names as its asset; None for all."""
    organisation: str | None = None
    """Only batches of this organisation (folded), and those that name none; None for all."""

    def reaches(self, batch: BatchId) -> bool:
        """True if the scope has nothing against the batch, whatever its row says."""
        return (
            (not self.courses or batch.course_id in self.courses)
            and (self.only is None or batch in self.only)
            and self.batch_id in (None, batch.batch_id)
        )

    def covers(self, row: Row) -> bool:
        """True if the row may change."""
        return row.status in self.statuses and self.reaches(row.id) and self._is_of_organisation(row)

    def meets(self, other: Scope) -> bool:
        """True unless both are about one batch, and not the same."""
        return None in (self.batch_id, other.batch_id) or self.batch_id == other.batch_id

    def _is_of_organisation(self, row: Row) -> bool:
        named = [folded(o.strip()) for o in row.created_for if o.strip()]
        return self.organisation is None or not named or self.organisation in named


EVERYTHING = Scope()
"""A transfer from the topic: every live batch, in both roles."""


def map_owners(
    moves: Mapping[str, str], row: Row, given: Given = NOTHING_GIVEN, scope: Scope = EVERYTHING
) -> Row:
    """`row` with its owners mapped by folded id, within `scope`, except for what later transfers have `given`.

    Mentors keep their order and lose repeats, but only where a mentor is mapped: a list that
    the transfer does not concern is not touched.
    """

    def mentors_for(user: str) -> tuple[str, ...]:
        key = folded(user)
        own = moves.get(key, user)
        if key in given.shared and folded(own) != key:
            return (own, user)
        return (user,) if key in given.mentored else (own,)

    creator, mentors = row.created_by, row.mentors
    if CREATED in scope.roles and creator is not None and folded(creator) not in given.created:
        creator = moves.get(folded(creator), creator)
    if MENTORED in scope.roles:
        mentors = tuple(m for user in row.mentors for m in mentors_for(user))
    if mentors != row.mentors:
        mentors = _without_repeats(mentors)
    return row if (creator, mentors) == row.owners else row._replace(created_by=creator, mentors=mentors)


def _without_repeats(users: Sequence[str]) -> tuple[str, ...]:
    first: dict[str, str] = {}
    for user in users:
        first.setdefault(folded(user), user)
    return tuple(first.values())


def hops(
    events: Sequence[Transfer],
    before: Row,
    after: Row,
    given: Given = NOTHING_GIVEN,
    scope: Scope = EVERYTHING,
) -> list[Hop]:
    """The change `before` -> `after`, event by event, so that each event can be undone.

    `events` is the phase in order. Where the hops do not add up to `after` (a later transfer
    was folded in), the whole change is one hop of the last event that has a share.
    """
    if len(events) == 1:
        return [Hop(events[0].mid, before, after)] if before.owners != after.owners else []
    found: list[Hop] = []
    row = before
    for event in events:
        then = map_owners({event.source: event.to_user}, row, given, scope)
        if then != row:
            found.append(Hop(event.mid, row, then))
            row = then
    if row.owners == after.owners:
        return found
    return [Hop(found[-1].mid if found else events[-1].mid, before, after)]


def revert(hop: Hop, row: Row) -> Row:
    """`row` with the change of `hop` reverted, if the fields that the hop changed still are as it left them.

    Other fields do not matter: a mentor who was added since does not keep the creator from being restored.
    """
    fields = changed_fields(hop)
    if any(getattr(row, f) != getattr(hop.after, f) for f in fields):
        return row
    return row._replace(**{f: getattr(hop.before, f) for f in fields})


def changed_fields(hop: Hop) -> tuple[str, ...]:
    """The fields of a row that a hop changes."""
    return tuple(f for f in ("created_by", "mentors") if getattr(hop.before, f) != getattr(hop.after, f))


def role(row: Row, users: Collection[str]) -> str:
    """How `users` (folded) own the row: ``created``, ``mentored``, ``created+mentored`` or empty."""
    parts = (
        (CREATED, row.created_by is not None and folded(row.created_by) in users),
        (MENTORED, any(folded(m) in users for m in row.mentors)),
    )
    return "+".join(name for name, holds in parts if holds)


def changed_role(hop: Hop) -> str:
    """What a hop changes: ``created``, ``mentored`` or both."""
    fields = changed_fields(hop)
    return "+".join(name for name, f in ((CREATED, "created_by"), (MENTORED, "mentors")) if f in fields)
