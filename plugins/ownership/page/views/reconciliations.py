"""The last reconciliations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ownership.domain.compare import LABELS
from ownership.domain.reconciliation import Report
from ownership.page.views.formats import Moment, counted, moment, number
from ownership.page.views.links import RunLink
from ownership.reconcile.chart import trend_svg


class ReconciliationLine(NamedTuple):
    """One reconciliation."""

    when: Moment | None
    run_id: str
    run: RunLink | None
    repair: bool
    verdict: str
    """`agree`, `differ` (more are left than may be) or `unfinished`."""
    rows: str
    documents: str
    left: str
    repaired: str
    in_flight: str
    kinds: str


class SampleLine(NamedTuple):
    """A batch of the newest report, as an example."""

    kind: str
    course_id: str
    batch_id: str
    row: str
    document: str
    note: str


class ReconciliationsView(NamedTuple):
    """The last reconciliations."""

    sentence: str
    chart: str
    """An SVG, in which every text is escaped."""
    lines: list[ReconciliationLine]
    samples: list[SampleLine]
    more: str
    """How many of the newest report's batches have no sample; empty if all have."""


def reconciliations_view(reports: Sequence[Report], runs: Mapping[str, RunLink]) -> ReconciliationsView:
    """The reports of the last runs, the newest first."""
    newest = reports[0] if reports else None
    return ReconciliationsView(
        sentence=newest_in_short(newest),
        chart=trend_svg([r.point for r in reversed(reports)]),
        lines=[_line(r, runs) for r in reports],
        samples=[
            SampleLine(LABELS.get(s.kind, s.kind), s.course_id, s.batch_id, s.row, s.document, s.note)
            for s in (newest.samples if newest else ())
        ],
        more=number(newest.more_samples) if newest and newest.more_samples else "",
    )


def newest_in_short(report: Report | None) -> str:
    """The newest report as a sentence."""
    if report is None:
        return "Rows and index have not been compared yet."
    at = moment(report.ended_ms)
    when = f" on {at.text[:10]}" if at else ""
    if not report.complete:
        return f"The comparison of rows and index{when} did not end."
    if report.left:
        return f"{counted(report.left, 'difference')} between rows and index{when}."
    return f"Rows and index agreed{when}."


def _line(r: Report, runs: Mapping[str, RunLink]) -> ReconciliationLine:
    verdict = "unfinished" if not r.complete else "differ" if r.left > r.threshold else "agree"
    return ReconciliationLine(
        moment(r.started_ms), r.run_id, runs.get(r.run_id), r.repair, verdict, number(r.rows), number(r.documents),
        number(r.left), number(r.repaired), number(r.in_flight),
        ", ".join(f"{number(n)} {LABELS.get(k, k)}" for k, n in r.counts.items()),
    )  # fmt: skip
