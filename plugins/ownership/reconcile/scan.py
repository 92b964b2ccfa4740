"""Every row of a range of the ring against its document, and every document that belongs there against its row.

A first look is quick and believes nothing: the index as it was read before, the rows page by page. What does not
look alike is read again a moment later, the document first and then the row, as everywhere in the job: transfers
and the LMS write meanwhile. Only what differs then, and no transfer under way explains, is a difference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from more_itertools import chunked

from ownership.domain.compare import (
    MISSING,
    ORPHAN,
    UNMOVED,
    differences,
    is_of_another_course,
    names_any,
    owners_hash,
)
from ownership.domain.event import folded
from ownership.domain.plan import LIVE_STATUSES, BatchId, Document, Row
from ownership.domain.reconciliation import (
    DIFFERENT,
    DOCUMENTS,
    IN_FLIGHT,
    LEFT,
    REPAIRED,
    ROWS,
    Tally,
    sample,
)
from ownership.ledger.events import EventRow
from ownership.platform.course_batches import RawRow
from ownership.platform.lms import stored
from ownership.platform.pools import ahead
from ownership.platform.ring import TokenRange
from ownership.reconcile.pace import Pace
from ownership.reconcile.proofs import Gave, found_by
from ownership.reconcile.spill import Spill
from ownership.stages.parts import Parts
from ownership.stages.second_proof import follow_rows

ROWS_A_PAGE = 5000
MAX_SUSPECTS = 2000
"""Batches that wait for their second look."""
PATIENCE_S = 1.0
"""From the first look at a batch to the second: longer than the index's refresh, and than the LMS needs for both
stores."""


@dataclass
class Scan:
    """What the looks of one task share."""

    parts: Parts
    pace: Pace
    repair: bool = False
    gave: Mapping[str, Gave] = field(default_factory=dict)
    """Users who gave everything away, folded."""
    patience_s: float = PATIENCE_S
    sleep: Callable[[float], object] = time.sleep

    def read_index(self, of: int, wanted: Collection[int]) -> Spill:
        """The documents of the `wanted` ranges, of `of`, as they are now. The caller closes it."""
        spill = Spill(of, wanted)
        try:
            for page in self.parts.index.documents():
                if page:  # a part of the index may hold no document: there is nothing to wait for
                    self.pace.take(len(page))
                    spill.add(page)
        except BaseException:
            spill.close()
            raise
        return spill

    def compare(self, tokens: TokenRange, documents: dict[str, tuple[str, int]]) -> Tally:
        """Compare the rows of a range with the `documents` that belong there, which are used up."""
        tally = Tally()
        tally.counts[DOCUMENTS] = len(documents)
        waiting = _Waiting()
        halves = (self.parts.rows.pages(half, rows=ROWS_A_PAGE) for half in tokens.halves)
        for page in ahead(*halves):
            self.pace.take(len(page))
            tally.counts[ROWS] += len(page)
            waiting.add(
                [
                    BatchId(row.courseid, row.batchid)
                    for row in page
                    if self._unlike(row, documents) or self._gave(row.createdby, row.status)
                ]
            )
            if len(waiting.ids) >= MAX_SUSPECTS:
                self._settle(waiting, tally, self._rows_again)
        self._settle(waiting, tally, self._rows_again)
        waiting.add([BatchId(course, batch) for batch, (course, _) in documents.items()])
        self._settle(waiting, tally, self._documents_again)
        return tally

    # --- first looks

    @staticmethod
    def _unlike(row: RawRow, documents: dict[str, tuple[str, int]]) -> bool:
        """True if the row has no document, or one that does not look like it; the document is used up."""
        seen = documents.get(row.batchid)
        if seen is None or seen[0] != row.courseid:
            return True
        del documents[row.batchid]
        return seen[1] != owners_hash(row.createdby, row.mentors)

    def _gave(self, creator: str | None, status: int | None) -> Gave | None:
        """The transfer that should have moved a row, by who created it and by nothing else."""
        if not self.gave or creator is None or status not in LIVE_STATUSES:
            return None
        return self.gave.get(folded(creator))

    # --- second looks

    def _settle(
        self, waiting: _Waiting, tally: Tally, again: Callable[[Sequence[BatchId], Tally], None]
    ) -> None:
        if not waiting.ids:
            return
        if (wait := waiting.since + self.patience_s - time.monotonic()) > 0:
            self.sleep(wait)
        for ids in chunked(waiting.ids, MAX_SUSPECTS):
            again(ids, tally)
        waiting.ids = []

    def _rows_again(self, ids: Sequence[BatchId], tally: Tally) -> None:
        # Before and after: a transfer that ended in between was in the list before, one that began is after.
        open_mids = self._open()
        found = self._read(ids)
        left = [f for f in found if f.kinds]
        written = self.parts.rows.creators_written_ms(
            [f.row.id for f in found if self._gave(f.row.created_by, f.row.status)]
        )
        overlooked = {
            f.row.id
            for f in found
            if (gave := self._gave(f.row.created_by, f.row.status))
            and gave.scope.covers(f.row)
            and written.get(f.row.id, gave.completed_ms) < gave.completed_ms
        }
        left += [f for f in found if f.row.id in overlooked and not f.kinds]
        if not left:
            return
        events = _Events(self.parts, open_mids | self._open())
        flying = {f.row.id: mid for f in left if (mid := events.explain(f))}
        for f in left:
            if mid := flying.get(f.row.id):
                tally.found(IN_FLIGHT, sample(IN_FLIGHT, f.row, f.document, f"by {mid}"))
        believed = [f for f in left if f.row.id not in flying]
        mended = self._mend([f for f in believed if f.kinds]) if self.repair else _Mended()
        for f in believed:
            if f.row.id in mended.gone:
                continue
            tally.counts[DIFFERENT] += 1
            for kind in f.kinds:
                note = "repaired" if f.row.id in mended.right else _note(f)
                tally.found(kind, sample(kind, f.row, f.document, note))
            if f.row.id in overlooked:
                gave = self._gave(f.row.created_by, f.row.status)
                note = f"written before {gave.mid} was completed" if gave else ""
                tally.found(UNMOVED, sample(UNMOVED, f.row, f.document, note))
            if f.row.id in mended.right:
                tally.counts[REPAIRED] += 1
            if f.row.id not in mended.right or f.row.id in overlooked:
                tally.counts[LEFT] += 1

    def _documents_again(self, ids: Sequence[BatchId], tally: Tally) -> None:
        documents = self.parts.index.get({i.batch_id for i in ids})
        rows = self.parts.rows.read(ids)
        for i in ids:
            document = documents.get(i.batch_id)
            if i in rows or document is None:
                continue
            course = document.course_id if stored(document.course_id) else ""
            if course != i.course_id:  # by now it is another course's
                continue
            tally.found(ORPHAN, sample(ORPHAN, None, document, "" if i.course_id else "names no course"))
            tally.counts[DIFFERENT] += 1
            tally.counts[LEFT] += 1

    def _read(self, ids: Iterable[BatchId]) -> list[_Found]:
        """The document first, then the row: a document that is written after it was read refuses a repair."""
        wanted = list(ids)
        documents = self.parts.index.get({i.batch_id for i in wanted})
        rows = self.parts.rows.read(wanted)
        return [
            _Found(row, documents.get(i.batch_id), differences(row, documents.get(i.batch_id)))
            for i in wanted
            if (row := rows.get(i)) is not None
        ]

    def _mend(self, found: Sequence[_Found]) -> _Mended:
        """Documents follow their rows, and are read again."""
        mended = _Mended()
        ours = [f for f in found if not (f.document and is_of_another_course(f.row, f.document))]
        if not ours:
            return mended
        follow_rows(self.parts, {f.row.id for f in ours})
        now = {f.row.id: f for f in self._read(f.row.id for f in ours)}
        for f in ours:
            again = now.get(f.row.id)
            if again is None:  # deleted meanwhile; a document that was made for it goes with it
                mended.gone.add(f.row.id)
                if MISSING in f.kinds:
                    self.parts.index.delete_created(f.row.id.batch_id)
            elif not again.kinds:
                mended.right.add(f.row.id)
        return mended

    def _open(self) -> set[str]:
        return {e.mid for e in self.parts.queue.read()}


class _Found(NamedTuple):
    """A row, its document, and how they differ."""

    row: Row
    document: Document | None
    kinds: tuple[str, ...]


@dataclass
class _Mended:
    right: set[BatchId] = field(default_factory=set)
    gone: set[BatchId] = field(default_factory=set)


@dataclass
class _Waiting:
    """Batches that wait for their second look, and when the last of them was looked at first."""

    ids: list[BatchId] = field(default_factory=list)
    since: float = 0.0

    def add(self, ids: Sequence[BatchId]) -> None:
        if ids:
            self.ids += ids
            self.since = time.monotonic()


class _Events:
    """Open events, of which one may explain a difference."""

    def __init__(self, parts: Parts, mids: Iterable[str]) -> None:
        self._parts = parts
        self._events = list(parts.events.read(sorted(mids)).values())

    def explain(self, found: _Found) -> str | None:
        """The open event that will bring the batch in line: it has planned it, or will find it."""
        for event in self._events:
            transfer = event.transfer
            if transfer is None or not names_any(transfer.users, found.row, found.document):
                continue
            if found_by(event, found.row, found.document) or self._planned(event, found.row.id):
                return event.mid
        return None

    def _planned(self, event: EventRow, batch: BatchId) -> bool:
        if event.options.dry_run or not event.planned_at:
            return False
        return self._parts.changes.has_planned(event.mid, batch)


def _note(found: _Found) -> str:
    if found.document is None or not is_of_another_course(found.row, found.document):
        return ""
    return f"the document under this id is of course {found.document.course_id}"
