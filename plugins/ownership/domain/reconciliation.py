"""The results of a reconciliation: of one part, of a whole run, and of the runs before. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import Field

from ownership.domain.compare import LABELS
from ownership.domain.contracts import Contract
from ownership.domain.plan import Document, Row
from ownership.domain.text import one_line

ROWS, DOCUMENTS = "rows", "documents"
"""Counts beside the kinds: what was read."""
DIFFERENT, LEFT, IN_FLIGHT, REPAIRED = "different", "left", "in_flight", "repaired"
"""The same: batches that a part found to differ, and that still differ at its end; batches whose difference a transfer
under way explains; documents repaired and read again."""
SAMPLES_A_PART = 5
"""Samples of each kind that a part keeps."""
SAMPLES = 10
"""Samples of each kind in a report."""
TREND = 12
"""Runs in the trend of a report."""
MAX_TEXT = 200
"""Characters of an id or of owners in a sample."""


class Sample(Contract):
    """One batch as an example of its kind, with owners as they were seen."""

    kind: str
    course_id: str
    batch_id: str
    row: str = ""
    document: str = ""
    note: str = ""


class PartDone(Contract):
    """The result of one part of a run. Times in epoch ms."""

    counts: dict[str, int] = Field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    started_ms: int = 0
    ended_ms: int = 0


class Point(Contract):
    """A run in the trend."""

    run_id: str
    at_ms: int
    """When it began."""
    left: int
    repaired: int
    in_flight: int
    complete: bool = True


class Report(Contract):
    """The result of a run."""

    run_id: str
    started_ms: int
    ended_ms: int
    repair: bool
    parts: int
    """All parts: ranges of the ring, and the scan of the ledger."""
    done: int
    """Parts that ended."""
    rows: int = 0
    documents: int = 0
    counts: dict[str, int] = Field(default_factory=dict)
    """Batches by kind; one may be of two kinds."""
    different: int = 0
    """Batches that differ, counted once by each part that found them."""
    in_flight: int = 0
    repaired: int = 0
    left: int = 0
    """Batches that still differ."""
    threshold: int = 0
    rows_per_second: float = 0.0
    """Rows and documents read, by the seconds that the parts took together."""
    samples: tuple[Sample, ...] = ()
    more_samples: int = 0
    """Batches that have no sample."""

    @property
    def complete(self) -> bool:
        """True if every part ended."""
        return self.done == self.parts

    @property
    def point(self) -> Point:
        """The run in a trend."""
        return Point(
            run_id=self.run_id,
            at_ms=self.started_ms,
            left=self.left,
            repaired=self.repaired,
            in_flight=self.in_flight,
            complete=self.complete,
        )


class Tally:
    """Counts and a few samples of each kind, while a part is scanned."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._samples: dict[str, list[Sample]] = {}

    def found(self, kind: str, row: Row | None, document: Document | None, note: str = "") -> None:
        """Count a batch, of which row or document is given; the first of each kind are kept as samples."""
        self.counts[kind] += 1
        kept = self._samples.setdefault(kind, [])
        if len(kept) < SAMPLES_A_PART:
            kept.append(sample(kind, row, document, note))

    def left(self) -> None:
        """Count a batch that differs, and still does at the end."""
        self.counts[DIFFERENT] += 1
        self.counts[LEFT] += 1

    def done(self, started_ms: int, ended_ms: int) -> PartDone:
        """The part's result, for the ledger."""
        return PartDone(
            counts={k: n for k, n in self.counts.items() if n},
            samples=tuple(s for samples in self._samples.values() for s in samples),
            started_ms=started_ms,
            ended_ms=ended_ms,
        )


def sample(kind: str, row: Row | None, document: Document | None, note: str = "") -> Sample:
    """A batch as an example; row or document is given."""
    course = row.id.course_id if row else (document.course_id or "") if document else ""
    batch = row.id.batch_id if row else document.batch_id if document else ""
    return Sample(
        kind=kind,
        course_id=one_line(course, MAX_TEXT),
        batch_id=one_line(batch, MAX_TEXT),
        row=_owners(row.owners) if row else "none",
        document=_owners(document.owners) if document else "none",
        note=one_line(note, MAX_TEXT),
    )


def _owners(owners: tuple[object, tuple[object, ...]]) -> str:
    creator, mentors = owners
    created_by = "nobody" if creator is None else str(creator)
    text = f"{created_by}; mentors {', '.join(map(str, mentors))}" if mentors else created_by
    return one_line(text, MAX_TEXT)


def report_of(
    run_id: str, started_ms: int, parts: Mapping[str, PartDone], *, planned: int, repair: bool, threshold: int
) -> Report:
    """The report of a run from the parts that are done; `planned` is the number of all parts."""
    total: Counter[str] = Counter()
    for part in parts.values():
        total.update(part.counts)
    kinds = {k: total[k] for k in LABELS if total[k]}
    samples = _first_of_each_kind(s for _, part in sorted(parts.items()) for s in part.samples)
    seconds = sum(p.ended_ms - p.started_ms for p in parts.values()) / 1000
    read = total[ROWS] + total[DOCUMENTS]
    return Report(
        run_id=run_id,
        started_ms=started_ms,
        ended_ms=max((p.ended_ms for p in parts.values()), default=started_ms),
        repair=repair,
        parts=planned,
        done=len(parts),
        rows=total[ROWS],
        documents=total[DOCUMENTS],
        counts=kinds,
        different=total[DIFFERENT],
        in_flight=total[IN_FLIGHT],
        repaired=total[REPAIRED],
        left=total[LEFT],
        threshold=threshold,
        rows_per_second=round(read / seconds, 1) if seconds > 0 else 0.0,
        samples=samples,
        more_samples=max(sum(kinds.values()) - len([s for s in samples if s.kind in kinds]), 0),
    )


def _first_of_each_kind(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    kept: Counter[str] = Counter()
    found = []
    for s in samples:
        if kept[s.kind] < SAMPLES:
            kept[s.kind] += 1
            found.append(s)
    return tuple(found)


def failures(report: Report) -> dict[str, str]:
    """Why the run fails, by what is wrong; empty if it succeeds."""
    found = {}
    if not report.complete:
        found["parts"] = (
            f"{report.done} of {report.parts} parts ended: clear the failed tasks, the rest goes on"
        )
    if report.left > report.threshold:
        found["differences"] = (
            f"{report.left} batches differ, more than {report.threshold} (reconcile.alert.differences): "
            f"{by_kind(report)}"
        )
    return found


def by_kind(report: Report) -> str:
    """The counts, for people."""
    counts = [f"{n} {LABELS[k]}" for k, n in report.counts.items()]
    if report.repair or report.repaired:
        counts.append(f"{report.repaired} repaired")
    if report.in_flight:
        counts.append(f"{report.in_flight} in flight, not counted")
    return ", ".join(counts) or "none"


def text(report: Report, trend: Sequence[Point]) -> Iterator[str]:
    """The report, line by line, for a log."""
    yield (
        f"{report.rows} rows and {report.documents} documents read, {report.rows_per_second:g} a second; "
        f"{report.done} of {report.parts} parts; {report.different} batches differ, {report.repaired} repaired, "
        f"{report.left} left, {report.in_flight} in flight"
    )
    yield f"by kind: {by_kind(report)}"
    for s in report.samples:
        note = f" ({s.note})" if s.note else ""
        kind = LABELS.get(s.kind, s.kind.replace("_", " "))
        yield f"  {kind}: {s.course_id or '-'} / {s.batch_id}  row {s.row}  document {s.document}{note}"
    if report.more_samples:
        yield f"  and {report.more_samples} more"
    if trend:
        yield "left in the last runs, oldest first: " + ", ".join(str(p.left) for p in trend)
