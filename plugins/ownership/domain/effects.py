"""What the events of a phase do to a row: pass it on, or revert earlier changes. Pure.

An effect is idempotent: applied to its own result it changes nothing, so every step of a phase may be
repeated.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import ClassVar, TypeAlias

from ownership.domain.event import Transfer, folded
from ownership.domain.lanes import Moves, sources
from ownership.domain.plan import (
    EVERYTHING,
    NOTHING_GIVEN,
    BatchId,
    Given,
    Hop,
    Row,
    Scope,
    changed_fields,
    hops,
    map_owners,
    revert,
)
from ownership.domain.states import BatchOutcome

MAX_HOPS = 16
"""Changes of one row that are reverted together; more wait for a later phase."""
_OTHER = "\x00"
"""Stands for every user that no change knows; no id has a control character."""


@dataclass(frozen=True)
class TransferEffect:
    """Transfers, composed into one map user -> user."""

    ids: ClassVar[Collection[BatchId]] = ()
    """Batches that are known without a search: none, they are found by their owners."""

    events: Sequence[Transfer]
    moves: Moves
    scope: Scope = EVERYTHING
    given: Mapping[BatchId, Given] = field(default_factory=dict)
    """What later transfers gave: their new users keep it."""

    @cached_property
    def _away(self) -> Moves:
        return {u: self.moves[u] for u in self.sources}

    @cached_property
    def sources(self) -> frozenset[str]:
        """Users (folded) whose batches are searched for and move away: none may be left."""
        return sources(self.moves)

    @property
    def batch_id(self) -> str | None:
        """The one batch that the search is about, the asset of the events; None if it is about every batch."""
        return self.scope.batch_id

    def apply(self, row: Row) -> Row:
        """The row with its owners mapped, if it is in scope."""
        if not self.scope.covers(row):
            return row
        return map_owners(self._away, row, self.given.get(row.id, NOTHING_GIVEN), self.scope)

    def hops(self, before: Row, after: Row) -> list[Hop]:
        """The change `before` -> `after`, event by event."""
        return hops(self.events, before, after, self.given.get(before.id, NOTHING_GIVEN), self.scope)

    def planned_by(self, batch: BatchId, row: Row | None, named: Collection[str]) -> list[str]:
        """Mid of the event that first moves the batch, for a batch that names a source, in row or document.

        `named`: users (folded) that its document names.
        """
        users = {*map(folded, row.named if row else ()), *named} & self.sources
        if not users or not self.scope.reaches(batch):
            return []
        if self.scope != EVERYTHING and row is not None and row.live and row.names(self.sources):
            # A restricted transfer has nothing to say about a batch that it does not change.
            users = users if self.apply(row) != row else set()
        first = next((e.mid for e in self.events if e.source in users), self.events[0].mid)
        return [first] if users else []

    def unmoved_outcome(self, mid: str, batch: BatchId, row: Row | None) -> BatchOutcome:  # noqa: ARG002  # the same for each
        """Gone, no longer live, with the new user already, or with another user."""
        if row is None:
            return BatchOutcome.GONE
        if not row.live:
            return BatchOutcome.NOT_LIVE
        if row.names({folded(v) for v in self._away.values()}):
            return BatchOutcome.ALREADY
        return BatchOutcome.CHANGED_ELSEWHERE


@dataclass(frozen=True)
class UndoEffect:
    """An undo: the changes of each batch that it reverts, in the order in which it reverts them."""

    sources: ClassVar[frozenset[str]] = frozenset()
    """None: the users who received the batches may own others, which stay."""
    batch_id: ClassVar[str | None] = None
    """None: an undo searches for nothing."""

    hops_of: Mapping[BatchId, Sequence[Hop]]
    """The original changes (before, after), each under the mid of the event that reverts it."""

    @property
    def ids(self) -> Collection[BatchId]:
        """The batches that were changed."""
        return self.hops_of.keys()

    def apply(self, row: Row) -> Row:
        """The row with each change reverted, where the row still is as the change left it."""
        for hop in self.hops_of.get(row.id, ()):
            row = revert(hop, row)
        return row

    def hops(self, before: Row, after: Row) -> list[Hop]:  # noqa: ARG002  # they add up to it
        """The change `before` -> `after`, event by event."""
        found: list[Hop] = []
        row = before
        for hop in self.hops_of.get(before.id, ()):
            then = revert(hop, row)
            if then == row:
                continue
            if found and found[-1].mid == hop.mid:  # two changes of one event are one share
                row = found.pop().before
            found.append(Hop(hop.mid, row, then))
            row = then
        return found

    def planned_by(self, batch: BatchId, row: Row | None, named: Collection[str]) -> list[str]:  # noqa: ARG002  # a transfer needs them
        """Mids of the events that revert a change of the batch."""
        return list(dict.fromkeys(hop.mid for hop in self.hops_of.get(batch, ())))

    def unmoved_outcome(self, mid: str, batch: BatchId, row: Row | None) -> BatchOutcome:
        """Gone, back as it was before the change, or changed by another writer since."""
        if row is None:
            return BatchOutcome.GONE
        walk = self.hops_of.get(batch, ())
        own = {f: n for n, h in enumerate(walk) if h.mid == mid for f in changed_fields(h)}
        back = all(_is_back(f, walk[n:], row) for f, n in own.items())
        return BatchOutcome.ALREADY if own and back else BatchOutcome.CHANGED_ELSEWHERE

    def is_idempotent(self) -> bool:
        """True if it changes nothing in its own result, whatever the row is.

        Tried with every value that one of its changes knows, and with one that none of them knows. Many batches went
        the same way: each way is tried once.
        """
        walks = (walk for walk in self.hops_of.values() if len(walk) > 1)
        ways = {tuple((h.before.owners, h.after.owners) for h in walk): walk for walk in walks}
        return all(map(self._is_idempotent, ways.values()))

    def _is_idempotent(self, walk: Sequence[Hop]) -> bool:
        if len(walk) > MAX_HOPS:
            return False
        seen = [row for h in walk for row in (h.before, h.after)]
        creators, lists = {r.created_by for r in seen}, {r.mentors for r in seen}
        for creator, mentors in product({*creators, _OTHER}, {*lists, (_OTHER,)}):
            then = self.apply(seen[0]._replace(created_by=creator, mentors=mentors))
            if self.apply(then) != then:
                return False
        return True


Effect: TypeAlias = TransferEffect | UndoEffect


def _is_back(field_: str, walk: Sequence[Hop], row: Row) -> bool:
    """True if the field is as it was before the first of `walk`, or as a later one took it back."""
    return any(getattr(row, field_) == getattr(h.before, field_) for h in walk if field_ in changed_fields(h))


def undo_effect(changes: Iterable[Hop]) -> UndoEffect:
    """The effect that reverts `changes`, in this order."""
    by_batch: dict[BatchId, list[Hop]] = {}
    for hop in changes:
        by_batch.setdefault(hop.before.id, []).append(hop)
    return UndoEffect(by_batch)
