"""The phases of a run as one book: what each of them means for a row. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from ownership.domain.contracts import Phase
from ownership.domain.effects import Effect, UndoEffect
from ownership.domain.event import folded
from ownership.domain.plan import BatchId, Hop, Row
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome


class PhaseBook:
    """Phases with their effects. It never changes: `without` returns another one."""

    def __init__(self, phases: Iterable[Phase], effects: Mapping[str, Effect]) -> None:
        """`effects`: what each phase does, by the phase's key."""
        self._phases = {p.key: p for p in phases}
        self.held: tuple[ClaimedEvent, ...] = tuple(e for p in self.phases for e in p.events)
        self._effects = {p.key: effects[p.key] for p in self.phases}
        self._effect_of_event = {e.mid: self._effects[p.key] for p in self.phases for e in p.events}
        self.fencing_tokens = {e.mid: e.fencing_token for e in self.held}
        """Those under which the run holds the events, by mid."""
        self._key_of_user: dict[tuple[str, str | None], str] = {}
        """By user and batch id, None for every batch: phases of one user may be about one batch each."""
        self._keys_of_batch: dict[BatchId, list[str]] = defaultdict(list)
        for key, effect in self._effects.items():
            self._key_of_user |= {(user, effect.batch_id): key for user in effect.sources}
            for batch in effect.ids:
                self._keys_of_batch[batch].append(key)
        self.sources = frozenset(user for user, _ in self._key_of_user)
        """Users (folded) of whom no batch may be left."""

    @property
    def phases(self) -> Collection[Phase]:
        """The phases, in order."""
        return self._phases.values()

    def without(self, mids: Collection[str]) -> PhaseBook:
        """The book without the phases of these events."""
        kept = [p for p in self.phases if not any(e.mid in mids for e in p.events)]
        return self if len(kept) == len(self._phases) else PhaseBook(kept, self._effects)

    def divided(self, alone: Callable[[Phase], bool]) -> list[PhaseBook]:
        """Books of one phase each for those that are to be `alone`, and one of the others, if there are any."""
        others = [p for p in self.phases if not alone(p)]
        groups = [others] if others else []
        groups += [[p] for p in self.phases if alone(p)]
        return [PhaseBook(g, self._effects) for g in groups]

    @property
    def ids(self) -> Collection[BatchId]:
        """Batches that the phases concern without a search."""
        return self._keys_of_batch.keys()

    def apply(self, row: Row) -> Row:
        """What the row should be."""
        for key in self._keys(row.id, map(folded, row.named)):
            row = self._effects[key].apply(row)
        return row

    def is_up_to_date(self, row: Row | None) -> bool:
        """True if nothing about the row is left to be changed; a row that is gone is up to date."""
        return row is None or self.apply(row) == row

    def hops(self, before: Row, after: Row) -> list[Hop]:
        """The change of a row, event by event."""
        found: list[Hop] = []
        row = before
        for key in self._keys(before.id, map(folded, before.named)):
            then = self._effects[key].apply(row)
            if then != row:
                found += self._effects[key].hops(row, then)
            row = then
        if row.owners != after.owners and found:  # the row was edited after `before` was read
            return [Hop(found[-1].mid, before, after)]
        return found

    def phases_of(self, row: Row) -> list[Phase]:
        """The phases that a row concerns."""
        return [self._phases[key] for key in self._keys(row.id, map(folded, row.named))]

    def planned_by(self, batch: BatchId, row: Row | None, document_users: Collection[str]) -> list[str]:
        """Mids of the events under which a batch is planned.

        `document_users`: users (folded) that the batch's document names, for a row that no longer names them.
        """
        users = {*map(folded, row.named if row else ()), *document_users}
        return [
            mid
            for key in self._keys(batch, users)
            for mid in self._effects[key].planned_by(batch, row, document_users)
        ]

    def is_undo(self, mid: str) -> bool:
        """True if the event is an undo: it moved a batch only by a change of its own."""
        return isinstance(self._effect_of(mid), UndoEffect)

    def unmoved_outcome(self, mid: str, batch: BatchId, row: Row | None) -> BatchOutcome:
        """The outcome of a planned batch that was not moved, by its row as it is now."""
        return self._effect_of(mid).unmoved_outcome(mid, batch, row)

    def _effect_of(self, mid: str) -> Effect:
        # A composed transfer may be planned under another event of its phase, which is not in the book.
        return self._effect_of_event.get(mid) or next(iter(self._effects.values()))

    def _keys(self, batch: BatchId, users: Iterable[str]) -> list[str]:
        """Keys of the phases that a batch concerns, by itself or because it names `users` (folded)."""
        about = [(u, batch_id) for u in users for batch_id in (None, batch.batch_id)]
        keys = dict.fromkeys(key for a in about if (key := self._key_of_user.get(a)))
        return list(keys | dict.fromkeys(self._keys_of_batch.get(batch, ())))
