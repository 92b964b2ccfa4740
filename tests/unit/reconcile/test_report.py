"""Throttle, order, report and trend."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.compare import LABELS, STALE_OWNER
from ownership.domain.conf import ConfError
from ownership.domain.plan import BatchId, Document, Row
from ownership.domain.reconciliation import (
    SAMPLES,
    SAMPLES_A_PART,
    PartDone,
    Report,
    Tally,
    failures,
    report_of,
    sample,
    text,
)
from ownership.domain.settings import Settings
from ownership.reconcile.pace import Pace
from ownership.reconcile.run import ReconcileConf


class Time:
    """A clock that goes on only by sleeping, and by what is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 3)), min_size=1), st.integers(1, 10_000))
def test_never_more_rows_a_second_than_the_pace_allows_but_for_the_last_page(
    pages: list[tuple[int, float]], per_second: int
) -> None:
    time = Time()
    pace = Pace(per_second, clock=time.clock, sleep=time.sleep)
    before = 0
    for rows, work in pages:
        pace.take(rows)
        assert before <= per_second * time.now + 1e-3
        before += rows
        time.now += work


def test_a_pace_of_nothing_is_no_limit() -> None:
    pace = Pace(0, clock=itertools.count().__next__, sleep=pytest.fail)  # type: ignore[arg-type]  # never called
    for _ in range(100):
        pace.take(10**6)


@pytest.mark.parametrize(
    "conf",
    [
        {"repare": True},
        {"repair": "yes"},
        {"rows_per_second": -1},
        {"ranges": 0},
        {"ranges": 1.5},
        {"days": 401},
    ],
)
def test_a_conf_that_is_not_understood_is_refused_with_what_is_known(conf: dict[str, Any]) -> None:
    with pytest.raises(ConfError, match="known are repair, rows_per_second, ranges, days") as caught:
        ReconcileConf.of(conf)
    assert next(iter(conf)) in str(caught.value)


def test_what_a_conf_leaves_out_follows_the_settings() -> None:
    settings = Settings.model_validate({"reconcile.ranges": 7, "reconcile.days": 0})
    assert ReconcileConf.of(None).following(settings) == ReconcileConf(rows_per_second=2000, ranges=7, days=0)
    assert ReconcileConf.of({"rows_per_second": 0, "repair": True}).following(settings).rows_per_second == 0


def part(**counts: int) -> PartDone:
    return PartDone(counts=counts, started_ms=1000, ended_ms=3000)


def of(*parts: PartDone, planned: int = 0, threshold: int = 0, repair: bool = False) -> Report:
    named = {f"range {n}": p for n, p in enumerate(parts)}
    return report_of("run", 500, named, planned=planned or len(parts), repair=repair, threshold=threshold)


def test_the_parts_of_a_run_add_up() -> None:
    report = of(
        part(rows=100, different=3, left=1, repaired=2, stale_owner=3, stale_mentors=1),
        part(documents=50, different=1, left=1, orphan_document=1, in_flight=4),
        planned=3,
    )
    assert (report.rows, report.documents, report.different, report.left, report.repaired, report.in_flight) == (
        100, 50, 4, 2, 2, 4,
    )  # fmt: skip
    assert report.counts == {"stale_owner": 3, "stale_mentors": 1, "orphan_document": 1}
    assert report.rows_per_second == 37.5
    assert (report.done, report.parts, report.complete) == (2, 3, False)
    assert (report.started_ms, report.ended_ms, report.more_samples) == (500, 3000, 5)


@pytest.mark.parametrize(
    ("report", "red"),
    [
        pytest.param(of(part(rows=1)), set(), id="nothing"),
        pytest.param(of(part(different=2, left=2, stale_owner=2)), {"differences"}, id="more than none"),
        pytest.param(of(part(different=2, left=2), threshold=2), set(), id="as many as are accepted"),
        pytest.param(of(part(different=9, repaired=9, stale_owner=9)), set(), id="all repaired"),
        pytest.param(of(part(in_flight=9)), set(), id="all in flight"),
        pytest.param(of(part(rows=1), planned=2), {"parts"}, id="not ended"),
    ],
)
def test_a_run_is_red_by_what_is_left_and_by_what_did_not_end(report: Report, red: set[str]) -> None:
    assert set(failures(report)) == red


def test_the_sentence_has_the_counts() -> None:
    report = of(part(different=3, left=2, repaired=1, stale_owner=2, orphan_document=1, in_flight=1))
    assert failures(report)["differences"] == (
        "2 batches differ, more than 0 (reconcile.alert.differences): 2 stale owner, 1 orphan document, "
        "1 repaired, 1 in flight, not counted"
    )


def test_samples_are_few_of_each_kind_and_the_rest_is_counted() -> None:
    parts = []
    for n in range(4):
        tally = Tally()
        for i in range(20):
            row = Row(BatchId(f"c{n}", f"b{i}"), "a", (), 1)
            tally.found(STALE_OWNER, row, Document(f"b{i}", "z", (), 1, 1, f"c{n}"))
        tally.counts["different"] = tally.counts["left"] = 20
        parts.append(tally.done(1, 2))
    assert [len(p.samples) for p in parts] == [SAMPLES_A_PART] * 4
    report = of(*parts)
    assert (len(report.samples), report.more_samples) == (SAMPLES, 80 - SAMPLES)
    lines = list(text(report, [report.point]))
    assert "  stale owner: c0 / b0  row a  document z" in lines
    assert f"  and {80 - SAMPLES} more" in lines


@given(st.text(), st.text(), st.one_of(st.text(), st.integers(), st.none()), st.data())
def test_a_sample_of_anything_is_printable_and_short(
    course: str, batch: str, creator: Any, data: st.DataObject
) -> None:
    row = Row(BatchId(course, batch), "a" * 9000, ("m" * 9000,), 1)
    document = Document(batch, creator, (creator, batch * 100), 1, 1, course)
    made = data.draw(st.sampled_from([sample("k", row, document, course), sample("k", None, document)]))
    for value in made.model_dump().values():
        assert len(value) <= 200
        assert value.isprintable()
    assert type(made).model_validate_json(made.model_dump_json()) == made


def test_a_report_survives_its_ledger() -> None:
    report = of(part(different=1, left=1, stale_owner=1))
    assert Report.model_validate_json(report.model_dump_json()) == report
    assert set(report.counts) <= set(LABELS)
