"""Every row of a range of the ring against its document, and every document that belongs there against its row.

The first look is quick and proves nothing: it compares the index as it was read before with the rows, page by page.
Batches that differ are read again a moment later, the document first and then the row, as everywhere in the job, because
transfers and the LMS write meanwhile. A difference is only what differs then, and what no open transfer explains.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from more_itertools import chunked

from ownership.domain.compare import (
    MISSING,
    ORPHAN,
    UNMOVED,
    differences,
    is_of_another_course,
    least_alike,
    names_any,
    owners_hash,
)
from ownership.domain.event import folded
from ownership.domain.plan import LIVE_STATUSES, BatchId, Document, Row
from ownership.domain.reconciliation import DIFFERENT, DOCUMENTS, IN_FLIGHT, LEFT, REPAIRED, ROWS, Tally
from ownership.ledger.events import EventRow
from ownership.platform.course_batches import RawRow
from ownership.platform.pools import prefetch
from ownership.platform.ring import TokenRange
from ownership.platform.search_documents import row_key
from ownership.reconcile.pace import Pace
from ownership.reconcile.spill import Spill
from ownership.reconcile.transfers import Gave, found_by
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

    @contextmanager
    def read_index(self, of: int, wanted: Collection[int]) -> Iterator[Spill]:
        """The documents of the `wanted` ranges, of `of`, as they are now."""
        with Spill(of, wanted) as spill:
            for page in self.parts.index.documents():
                if page:  # a part of the index may hold no document: there is nothing to wait for
                    self.pace.take(len(page))
                    spill.add(page)
            yield spill

    def compare(self, tokens: TokenRange, documents: dict[str, tuple[str, int]]) -> Tally:
        """Compare the rows of a range with its `documents`, which are removed as their rows are found."""
        tally = Tally()
        tally.counts[DOCUMENTS] = len(documents)
        waiting = _Waiting()
        halves = (self.parts.rows.pages(half, rows=ROWS_A_PAGE) for half in tokens.halves)
        for page in prefetch(*halves):
            self.pace.take(len(page))
            tally.counts[ROWS] += len(page)
            waiting.add(
                [
                    BatchId(row.courseid, row.batchid)
                    for row in page
                    if (self._differs(row, documents) or self._transfer_of(row.createdby, row.status))
                    and row.batchid  # a course that has nothing but static columns is a row without a batch
                ]
            )
            if len(waiting.ids) >= MAX_SUSPECTS:
                self._look_again(waiting, tally, self._confirm_rows)
        self._look_again(waiting, tally, self._confirm_rows)
        waiting.add([BatchId(course, batch) for batch, (course, _) in documents.items()])
        self._look_again(waiting, tally, self._confirm_documents)
        return tally

    # --- first looks

    @staticmethod
    def _differs(row: RawRow, documents: dict[str, tuple[str, int]]) -> bool:
        """True if the row has no document, or one with other owners. The document is removed from `documents`."""
        document = documents.get(row.batchid)
        if document is None or document[0] != row.courseid:
            return True
        del documents[row.batchid]
        return document[1] != owners_hash(row.createdby, row.mentors)

    def _transfer_of(self, creator: str | None, status: int | None) -> Gave | None:
        """The completed transfer that should have moved a row, judged by the row's creator and status alone."""
        if not self.gave or creator is None or status not in LIVE_STATUSES:
            return None
        return self.gave.get(folded(creator))

    # --- second looks

    def _look_again(
        self, waiting: _Waiting, tally: Tally, confirm: Callable[[Sequence[BatchId], Tally], None]
    ) -> None:
        if not waiting.ids:
            return
        if (wait := waiting.since + self.patience_s - time.monotonic()) > 0:
            time.sleep(wait)
        for ids in chunked(waiting.ids, MAX_SUSPECTS):
            confirm(ids, tally)
        waiting.ids = []

    def _confirm_rows(self, ids: Sequence[BatchId], tally: Tally) -> None:
        """Count the rows that differ still and that no open transfer explains, repaired or not."""
        # The queue is read before and after: a transfer that ended in between was in it before, one that began is after.
        open_mids = self._open()
        suspects = [s for s in self._with_transfers(self._read(ids)) if s.kinds or s.left_by]
        if not suspects:
            return
        events = self.parts.events.read(sorted(open_mids | self._open())).values()
        unexplained = []
        for s in suspects:
            if mid := self._explained_by(events, s):
                tally.found(IN_FLIGHT, s.row, s.document, f"by {mid}")
            else:
                unexplained.append(s)
        repaired, deleted = self._repair([s for s in unexplained if s.kinds])
        for s in unexplained:
            if s.row.id not in deleted:
                _count(s, tally, repaired=s.row.id in repaired)

    def _explained_by(self, events: Iterable[EventRow], suspect: _Suspect) -> str | None:
        """Mid of the open event that will bring the batch in line: it has planned it, or will find it."""
        row, document = suspect.row, suspect.document
        for event in events:
            if not names_any(event.transfer.users, row, document):
                continue
            if found_by(event, row, document):
                return event.mid
            has_plan = event.planned_at is not None and not event.options.dry_run
            if has_plan and self.parts.changes.has_planned(event.mid, row.id):
                return event.mid
        return None

    def _with_transfers(self, suspects: Sequence[_Suspect]) -> Iterator[_Suspect]:
        """The same, each with the transfer that left its row, if one did."""
        transfers = {s.row.id: self._transfer_of(s.row.created_by, s.row.status) for s in suspects}
        written_ms = self.parts.rows.creators_written_ms([batch for batch, gave in transfers.items() if gave])
        for s in suspects:
            gave = transfers[s.row.id]
            if (
                gave
                and gave.scope.covers(s.row)
                and written_ms.get(s.row.id, gave.completed_ms) < gave.completed_ms
            ):
                yield s._replace(left_by=gave)
            else:
                yield s

    def _confirm_documents(self, ids: Sequence[BatchId], tally: Tally) -> None:
        """Count the documents that still have no row."""
        self.parts.index.refresh()
        documents = self.parts.index.get({i.batch_id for i in ids})
        rows = self.parts.rows.read(ids)
        for i in ids:
            if i in rows:
                continue
            document = next(
                (d for d in documents.get(i.batch_id, ()) if row_key(d.course_id) == i.course_id), None
            )
            if document is None:  # it is gone, or belongs to another course by now
                continue
            tally.found(ORPHAN, None, document, "" if i.course_id else "names no course")
            tally.left()

    def _read(self, ids: Iterable[BatchId]) -> list[_Suspect]:
        """The documents first, then the rows: a document that is written after it was read refuses a repair."""
        wanted = list(ids)
        self.parts.index.refresh()
        documents = self.parts.index.get({i.batch_id for i in wanted}, everywhere=True)
        rows = self.parts.rows.read(wanted)
        suspects = []
        for i in wanted:
            if (row := rows.get(i)) is not None:
                document = least_alike(row, documents.get(i.batch_id, ()))
                suspects.append(_Suspect(row, document, differences(row, document)))
        return suspects

    def _repair(self, suspects: Sequence[_Suspect]) -> tuple[set[BatchId], set[BatchId]]:
        """If the run repairs, write documents from their rows. Returns whose are in line now, and whose row is gone."""
        ours = [s for s in suspects if not (s.document and is_of_another_course(s.row, s.document))]
        if not self.repair or not ours:
            return set(), set()
        follow_rows(self.parts, {s.row.id for s in ours})
        now = {s.row.id: s for s in self._read(s.row.id for s in ours)}
        deleted = {s.row.id for s in ours} - now.keys()
        for s in ours:
            if s.row.id in deleted and MISSING in s.kinds:  # the document that was made for the row
                self.parts.index.delete_created(s.row.id.batch_id)
        return {i for i, s in now.items() if not s.kinds}, deleted

    def _open(self) -> set[str]:
        return {e.mid for e in self.parts.queue.read()}


class _Suspect(NamedTuple):
    """A row, its document, and how they differ."""

    row: Row
    document: Document | None
    kinds: tuple[str, ...]
    left_by: Gave | None = None
    """The completed transfer that should have moved the row."""


@dataclass
class _Waiting:
    """Batches that wait for their second look, and the time of the last one's first look."""

    ids: list[BatchId] = field(default_factory=list)
    since: float = 0.0

    def add(self, ids: Sequence[BatchId]) -> None:
        if ids:
            self.ids += ids
            self.since = time.monotonic()


def _count(suspect: _Suspect, tally: Tally, *, repaired: bool) -> None:
    row, document = suspect.row, suspect.document
    tally.counts[DIFFERENT] += 1
    for kind in suspect.kinds:
        tally.found(kind, row, document, "repaired" if repaired else _note(suspect))
    if gave := suspect.left_by:
        tally.found(UNMOVED, row, document, f"written before {gave.mid} was completed")
    if repaired:
        tally.counts[REPAIRED] += 1
    if not repaired or suspect.left_by:
        tally.counts[LEFT] += 1


def _note(suspect: _Suspect) -> str:
    if suspect.document is None or not is_of_another_course(suspect.row, suspect.document):
        return ""
    return f"the document under this id is of course {suspect.document.course_id}"
