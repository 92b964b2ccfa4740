"""The share of the accepted transfers that is proven, of the last days and of one request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from ownership.domain.clock import DAY_MS, MINUTE_MS, duration
from ownership.domain.proven import ProvenCounts, RequestCounts
from ownership.page.views.chart import MAX_BARS, Bar, Chart, Series
from ownership.page.views.formats import counted, number

DAYS: Final = MAX_BARS
"""Days of the chart, and of the longest period."""
CHART: Final = Chart(
    "Transfers by day of their acceptance, and whether they were proven within their deadline",
    (Series("in time", "#2e7d32"), Series("late", "#b26a00"), Series("overdue", "#b42318")),
    "no transfer yet",
)
_PERIODS: Final = (("day", 1), ("7 days", 7), ("30 days", 30))


class ProvenView(NamedTuple):
    """The last days."""

    sentence: str
    deadline: str
    chart: str
    """An SVG, in which every text is escaped."""
    periods: list[tuple[str, str, ProvenCounts]]
    """Those that end now: name, share of what was due (empty where nothing was), and counts."""


def proven_view(days: Sequence[ProvenCounts], *, now_ms: int, deadline_minutes: int) -> ProvenView:
    """The counts of the last days, the newest first."""
    bars = [
        Bar(now_ms - n * DAY_MS, (d.in_time, d.late, d.overdue)) for n, d in reversed(list(enumerate(days)))
    ]
    return ProvenView(
        sentence=proven_in_short(days[0], deadline_minutes),
        deadline=duration(deadline_minutes * MINUTE_MS),
        chart=CHART.svg(bars, name="proven"),
        periods=[
            (name, share(c.in_time, c.due) if c.due else "", c)
            for name, n in _PERIODS
            for c in [ProvenCounts.sum_of(days[:n])]
        ],
    )


def proven_in_short(day: ProvenCounts, deadline_minutes: int) -> str:
    """The last day as a sentence."""
    if not day.due:
        return "No transfer of the last day was due to be proven."
    within = duration(deadline_minutes * MINUTE_MS)
    if day.in_time == day.due:
        return f"All {counted(day.due, 'transfer')} due in the last day were proven within {within}."
    return (
        f"{share(day.in_time, day.due)} of the {counted(day.due, 'transfer')} due in the last day were proven "
        f"within {within}."
    )


def share(part: int, of: int) -> str:
    """A share in percent, rounded down: 100 % is all of them."""
    return f"{math.floor(part * 1000 / of) / 10:g} %"


def request_in_short(counts: RequestCounts) -> str:
    """How far a request is, as a sentence."""
    found = f"{number(counts.proven)} of {number(counts.arrived)} proven in both stores"
    if counts.complete:
        return f"{found}: all that has arrived of this request."
    missing = [
        (counts.open, "open"),
        (counts.ended, "ended without a proof"),
        (counts.rejected, "rejected as no transfer"),
    ]
    return f"{found}; {', '.join(f'{number(n)} {words}' for n, words in missing if n)}."
