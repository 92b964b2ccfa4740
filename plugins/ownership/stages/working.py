"""The phases of one slice while a stage works on them, and the fence around every write."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from ownership.changes import APPLIED, MOVED, Image, Planned, place
from ownership.contracts import Phase, Work
from ownership.errors import TakenOver
from ownership.events import Transfer, folded
from ownership.lanes import sources
from ownership.ledger import EventRow
from ownership.open_list import Held
from ownership.parts import Parts, now_ms
from ownership.plan import BatchId, Hop, Row, applied, hops

ROWS = "rows"
"""In an event's counts: rows whose change ended with this event."""


class Claim:
    """This run's hold on some events: checked before each wave of writes, renewed in time."""

    def __init__(self, parts: Parts, events: Iterable[Held], run_id: str) -> None:
        self.events = list(events)
        self._parts = parts
        self._run_id = run_id
        self._lives_ms = parts.settings.claim_seconds * 1000
        self._renew_at = 0

    def check(self) -> list[Held]:
        """Forget the events that another run took over, and return them.

        Renews the claim when a third of its life is over.
        """
        if not self.events:
            return []
        held = self._parts.open_list.held(self.events)
        still = {h.mid for h in held}
        lost = [h for h in self.events if h.mid not in still]
        self.events = held
        if now_ms() >= self._renew_at:
            self.renew(self._lives_ms)
        return lost

    def renew(self, lives_ms: int) -> None:
        """Let the claim live for `lives_ms` from now."""
        now = now_ms()
        self._parts.open_list.renew(self.events, run_id=self._run_id, until_ms=now + lives_ms)
        self._renew_at = now + min(lives_ms, self._lives_ms) // 3


class Working:
    """Phases that are still held and open, with everything needed to judge a row."""

    def __init__(self, parts: Parts, work: Work) -> None:
        """Checks the claim first: whatever was taken over or is final is not worked on.

        :raises TakenOver: if nothing is left although there was something to do.
        """
        self.parts = parts
        self.run_id = work.run_id
        self.phases = list(work.phases)
        self._claim = Claim(parts, [h for p in work.phases for h in p.held], work.run_id)
        self._index()
        self.fence()
        self.events: dict[str, EventRow] = parts.ledger.read([h.mid for h in self._claim.events])
        self._drop({h.mid for h in self._claim.events if self.events[h.mid].final})
        self.keep = self._given_later()

    def _index(self) -> None:
        self.moves: dict[str, str] = {}
        self.phase_of: dict[str, Phase] = {}
        for p in self.phases:
            self.moves |= p.moves
            self.phase_of |= dict.fromkeys(p.moves, p)
        self.sources = sources(self.moves)
        self._transfers = {id(p): [h.transfer for h in p.held] for p in self.phases}
        self._tokens = {h.mid: h.token for p in self.phases for h in p.held}

    def fence(self) -> None:
        """The check before every wave of writes: phases that were taken over are dropped.

        :raises TakenOver: if none is left.
        """
        before = bool(self.phases)
        self._drop({h.mid for h in self._claim.check()})
        if before and not self.phases:
            raise TakenOver("every event of this slice is held by another run now")

    def _drop(self, mids: AbstractSet[str]) -> None:
        if not mids:
            return
        self.phases = [p for p in self.phases if not mids & {h.mid for h in p.held}]
        kept = {h.mid for p in self.phases for h in p.held}
        self._claim.events = [h for h in self._claim.events if h.mid in kept]
        self._index()

    @property
    def held(self) -> list[Held]:
        """The events of all phases."""
        return [h for p in self.phases for h in p.held]

    @property
    def buckets(self) -> dict[str, int]:
        """Number of audit partitions of every event whose rows concern these phases."""
        found = {mid: e.buckets for mid, e in self.events.items()}
        others = {m for e in self.events.values() for m in e.plan_of} - set(found)
        return found | {m: e.buckets for m, e in self.parts.ledger.read(others).items()}

    def phases_of(self, users: Iterable[str]) -> list[Phase]:
        """The phases whose sources are among `users` (folded)."""
        found = {id(p): p for u in users if u in self.sources and (p := self.phase_of[u])}
        return list(found.values())

    def after(self, row: Row) -> Row:
        """What the row should be."""
        return applied({u: self.moves[u] for u in self.sources}, row, self.keep.get(row.id, frozenset()))

    def right(self, row: Row | None) -> bool:
        """True if nothing about the row is left to be moved."""
        return row is None or not row.live or self.after(row) == row

    def steps(self, before: Row, after: Row) -> list[Hop]:
        """The change told event by event."""
        concerned = self.phases_of(map(folded, before.named))
        events: list[Transfer] = sorted(t for p in concerned for t in self._transfers[id(p)])
        return hops(events, before, after, self.keep.get(before.id, frozenset()))

    def token(self, mid: str) -> int:
        """Claim token of an event."""
        return self._tokens[mid]

    def planned(self, batch: BatchId, row: Row | None, named: Iterable[str]) -> list[Planned]:
        """Plan rows for a batch, one per phase it concerns, each under the event that first moves it.

        `named`: users (folded) that the batch's document names, for rows that name nobody any more.
        """
        buckets = {mid: e.buckets for mid, e in self.events.items()}
        users = {*map(folded, row.named if row else ()), *named} & self.sources
        found = []
        for p in self.phases_of(users):
            events = self._transfers[id(p)]
            mid = next((e.mid for e in events if e.source in users), events[0].mid)
            found.append(Planned(place(mid, batch, buckets.get(mid, 0)), batch))
        return found

    def _given_later(self) -> Mapping[BatchId, frozenset[str]]:
        """Users to whom a later, completed event gave a batch: they keep it."""
        mids = {m for p in self.phases for m in p.later}
        if not mids:
            return {}
        later = self.parts.ledger.read(mids)
        _, images = self.parts.changes.read({m: e.buckets for m, e in later.items()})
        keep: dict[BatchId, set[str]] = defaultdict(set)
        for image in images:
            for at, _ in image.hops if image.outcome == APPLIED else ():
                event = later.get(at.mid)
                if event and event.transfer and event.transfer.target in self.sources:
                    phase = self.phase_of[event.transfer.target]
                    if event.transfer.key > phase.held[-1].transfer.key:
                        keep[image.id].add(event.transfer.target)
        return {batch: frozenset(users) for batch, users in keep.items()}


def batches_of(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Batches by outcome over several events: a batch that a chain moved counts once."""
    total: dict[str, int] = defaultdict(int)
    for some in counts:
        for name, n in some.items():
            if name != MOVED:
                total[MOVED if name == ROWS else name] += n
    return dict(total)


def tally(planned: Sequence[Planned], images: Sequence[Image], mid: str) -> dict[str, int]:
    """Batches by outcome for one event: its own hops, and its plan rows that did not move.

    A batch that a chain moves is `moved` by each of its events; `ROWS` counts it for the last one only.
    """
    counts: dict[str, int] = defaultdict(int)
    applied_images = [i for i in images if i.outcome == APPLIED]
    if moved := {i.id for i in applied_images if any(at.mid == mid for at, _ in i.hops)}:
        counts[MOVED] = len(moved)
    if rows := sum(i.hops[-1][0].mid == mid for i in applied_images):
        counts[ROWS] = rows
    for p in planned:
        if p.place.mid == mid and p.outcome and p.outcome != MOVED:
            counts[p.outcome] += 1
    return dict(counts)
