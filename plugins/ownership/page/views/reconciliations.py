"""The last reconciliations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ownership.domain.compare import LABELS
from ownership.domain.reconciliation import Point, Report
from ownership.page.views.chart import Bar, Chart, Series
from ownership.page.views.formats import Moment, counted, moment, number
from ownership.page.views.links import RunLink

TREND: Final = Chart(
    "Differences between rows and index, by run",
    (Series("left", "#b42318"), Series("repaired", "#2e7d32"), Series("in flight", "#7a8699")),
    "no run yet",
)


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
        chart=TREND.svg([bar(r.point) for r in reversed(reports)], name="reconcile-trend"),
        lines=[_line(r, runs) for r in reports],
        samples=[
            SampleLine(LABELS.get(s.kind, s.kind), s.course_id, s.batch_id, s.row, s.document, s.note)
            for s in (newest.samples if newest else ())
        ],
        more=number(newest.more_samples) if newest and newest.more_samples else "",
    )


def bar(point: Point) -> Bar:
    """A run in the trend."""
    values = (point.left, point.repaired, point.in_flight)
    return Bar(point.at_ms, values, point.run_id, "" if point.complete else "not ended")


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
