"""What a reconciliation found: of a part of it, of a whole run, and of the runs before. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from ownership.domain.compare import KINDS, WORDS
from ownership.domain.plan import Document, Row

ROWS, DOCUMENTS, DIFFERENT, LEFT, IN_FLIGHT, REPAIRED = (
    "rows",
    "documents",
    "different",
    "left",
    "in_flight",
    "repaired",
)
"""Counts beside the kinds: rows and documents that were read; batches that a part found to differ, and that do so
at its end; batches whose difference a transfer under way explains; documents that were repaired and read again."""
SAMPLES_A_PART = 5
"""Samples of each kind that a part keeps."""
SAMPLES = 10
"""Samples of each kind in a report."""
TREND = 12
"""Runs in the trend of a report."""
_MOST = 200
"""Most characters of an id or of owners in a sample."""


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(_Contract):
    """One batch as an example of its kind, with owners as they were seen."""

    kind: str
    course_id: str
    batch_id: str
    row: str = ""
    document: str = ""
    note: str = ""


class PartDone(_Contract):
    """What a part of a run found. Times in epoch ms."""

    counts: dict[str, int] = {}
    samples: tuple[Sample, ...] = ()
    started_ms: int = 0
    ended_ms: int = 0


class Point(_Contract):
    """A run in the trend."""

    run_id: str
    at_ms: int
    """When it began."""
    left: int
    repaired: int
    in_flight: int
    complete: bool = True


class Report(_Contract):
    """What a run found."""

    run_id: str
    started_ms: int
    ended_ms: int
    repair: bool
    parts: int
    """Parts that there are: ranges of the ring, and the look at the ledger."""
    done: int
    """Parts that ended."""
    rows: int = 0
    documents: int = 0
    counts: dict[str, int] = {}
    """Batches by kind; one may be of two kinds."""
    different: int = 0
    """Batches that differ; once for each part that found it."""
    in_flight: int = 0
    repaired: int = 0
    left: int = 0
    """Batches that differ still."""
    threshold: int = 0
    rows_per_second: float = 0.0
    """Rows and documents by the seconds in which parts were under way."""
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
    """Counts and a few samples of each kind while a part is looked at."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._samples: dict[str, list[Sample]] = {}

    def found(self, kind: str, sample: Sample | None = None) -> None:
        """Count a batch; the first samples of each kind are kept."""
        self.counts[kind] += 1
        kept = self._samples.setdefault(kind, [])
        if sample is not None and len(kept) < SAMPLES_A_PART:
            kept.append(sample)

    def done(self, started_ms: int, ended_ms: int) -> PartDone:
        """As it is kept in the ledger."""
        return PartDone(
            counts={k: n for k, n in self.counts.items() if n},
            samples=tuple(s for some in self._samples.values() for s in some),
            started_ms=started_ms,
            ended_ms=ended_ms,
        )


def sample(kind: str, row: Row | None, document: Document | None, note: str = "") -> Sample:
    """A batch as an example; row or document is given."""
    course = row.id.course_id if row else (document.course_id or "") if document else ""
    batch = row.id.batch_id if row else document.batch_id if document else ""
    return Sample(
        kind=kind,
        course_id=cut(course),
        batch_id=cut(batch),
        row=_owners(row.owners) if row else "none",
        document=_owners(document.owners) if document else "none",
        note=cut(note),
    )


def _owners(owners: tuple[object, tuple[object, ...]]) -> str:
    creator, mentors = owners
    told = "nobody" if creator is None else str(creator)
    return cut(f"{told}; mentors {', '.join(map(str, mentors))}" if mentors else told)


def cut(text: str) -> str:
    """Text of a store as one printable line of bounded length."""
    some = text if len(text) <= _MOST else f"{text[: _MOST - 1]}…"
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in some)


def report(
    run_id: str, started_ms: int, parts: Mapping[str, PartDone], *, planned: int, repair: bool, threshold: int
) -> Report:
    """The parts of a run that are done, put together."""
    total: Counter[str] = Counter()
    for part in parts.values():
        total.update(part.counts)
    kinds = {k: total[k] for k in KINDS if total[k]}
    samples = _some(s for _, part in sorted(parts.items()) for s in part.samples)
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


def _some(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    kept: Counter[str] = Counter()
    found = []
    for s in samples:
        if kept[s.kind] < SAMPLES:
            kept[s.kind] += 1
            found.append(s)
    return tuple(found)


def failures(told: Report) -> dict[str, str]:
    """Why the run is red, by what failed; empty if it is green."""
    found = {}
    if not told.complete:
        found["parts"] = f"{told.done} of {told.parts} parts ended: clear the failed tasks, the rest goes on"
    if told.left > told.threshold:
        found["differences"] = (
            f"{told.left} batches differ, more than {told.threshold} (reconcile.alert.differences): "
            f"{by_kind(told)}"
        )
    return found


def by_kind(told: Report) -> str:
    """The counts in words."""
    said = [f"{n} {WORDS[k]}" for k, n in told.counts.items()]
    if told.repair or told.repaired:
        said.append(f"{told.repaired} repaired")
    if told.in_flight:
        said.append(f"{told.in_flight} in flight, not counted")
    return ", ".join(said) or "none"


def text(told: Report, trend: Sequence[Point]) -> Iterator[str]:
    """The report as lines of a log."""
    yield (
        f"{told.rows} rows and {told.documents} documents read, {told.rows_per_second:g} a second; "
        f"{told.done} of {told.parts} parts; {told.different} batches differ, {told.repaired} repaired, "
        f"{told.left} left, {told.in_flight} in flight"
    )
    yield f"by kind: {by_kind(told)}"
    for s in told.samples:
        note = f" ({s.note})" if s.note else ""
        kind = WORDS.get(s.kind, s.kind.replace("_", " "))
        yield f"  {kind}: {s.course_id or '-'} / {s.batch_id}  row {s.row}  document {s.document}{note}"
    if told.more_samples:
        yield f"  and {told.more_samples} more"
    if trend:
        yield "left in the last runs, oldest first: " + ", ".join(str(p.left) for p in trend)
