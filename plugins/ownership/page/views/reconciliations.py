"""The last reconciliations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from ownership.domain.reconciliation import Point, Report
from ownership.page.views.chart import Bar, Chart, Series
from ownership.page.views.formats import counted, moment
from ownership.page.views.links import RunLink

TREND: Final = Chart(
    "Differences between rows and index, by run",
    (Series("left", "#b42318"), Series("repaired", "#2e7d32"), Series("in flight", "#7a8699")),
    "no run yet",
)


class ReconciliationLine(NamedTuple):
    """One reconciliation."""

    report: Report
    run: RunLink | None
    verdict: str
    """`agree`, `differ` (more are left than may be) or `unfinished`."""


class ReconciliationsView(NamedTuple):
    """The last reconciliations."""

    sentence: str
    chart: str
    """An SVG, in which every text is escaped."""
    lines: list[ReconciliationLine]
    newest: Report | None


def reconciliations_view(reports: Sequence[Report], runs: Mapping[str, RunLink]) -> ReconciliationsView:
    """The reports of the last runs, the newest first."""
    newest = reports[0] if reports else None
    return ReconciliationsView(
        sentence=newest_in_short(newest),
        chart=TREND.svg([bar(r.point) for r in reversed(reports)], name="reconcile-trend"),
        lines=[_line(r, runs) for r in reports],
        newest=newest,
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
    return ReconciliationLine(r, runs.get(r.run_id), verdict)
