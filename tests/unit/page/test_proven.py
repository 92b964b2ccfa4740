"""The share that is proven, in words."""

from __future__ import annotations

import pytest

from ownership.domain.proven import ProvenCounts, RequestCounts
from ownership.page.views.proven import proven_in_short, proven_view, request_in_short, share


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        pytest.param(
            ProvenCounts(in_time=1204),
            "All 1,204 transfers due in the last day were proven within 30 min.",
            id="all",
        ),
        pytest.param(
            ProvenCounts(in_time=9999, late=1),
            "99.9 % of the 10,000 transfers due in the last day were proven within 30 min.",
            id="all but one",
        ),
        pytest.param(
            ProvenCounts(pending=7, asked=1, unproven=3),
            "No transfer of the last day was due to be proven.",
            id="none due",
        ),
    ],
)
def test_the_last_day_is_a_sentence_that_never_rounds_up(counts: ProvenCounts, sentence: str) -> None:
    assert proven_in_short(counts, 30) == sentence


def test_a_share_is_whole_only_where_it_is() -> None:
    assert [share(1, 1), share(9_999_999, 10_000_000), share(0, 3), share(1, 3)] == [
        "100 %", "99.9 %", "0 %", "33.3 %",
    ]  # fmt: skip


def test_periods_sum_their_days_up() -> None:
    days = [ProvenCounts(in_time=1, late=1), *[ProvenCounts(in_time=10)] * 6, *[ProvenCounts(overdue=1)] * 23]
    periods = proven_view(days, now_ms=0, deadline_minutes=30).periods
    assert [(name, share, c.accepted) for name, share, c in periods] == [
        ("day", "50 %", 2), ("7 days", "98.3 %", 62), ("30 days", "71.7 %", 85),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        pytest.param(
            RequestCounts(500, 500, 0, 0, 0),
            "500 of 500 proven in both stores: all that has arrived of this request.",
            id="complete",
        ),
        pytest.param(
            RequestCounts(499, 490, 7, 2, 1),
            "490 of 500 proven in both stores; 7 open, 2 ended without a proof, 1 rejected as no transfer.",
            id="incomplete",
        ),
    ],
)
def test_a_request_is_told_with_what_is_missing(counts: RequestCounts, sentence: str) -> None:
    assert request_in_short(counts) == sentence
