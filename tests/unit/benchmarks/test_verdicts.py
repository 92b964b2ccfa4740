"""The bounds of `make bench`: hit and missed, each at its edge."""

from __future__ import annotations

import pytest

from benchmarks.bench import Measured, Sample
from benchmarks.stream import FINAL_WITHIN_S, MAX_AGE_S, SLICES, Stream
from benchmarks.verdicts import judge, judge_away
from benchmarks.waiting import Look
from benchmarks.workloads import WORKLOADS

AIRFLOW_S, STORES_S = 1.5, 0.5
BY_NAME = {w.name: w for w in WORKLOADS}


def measured(name: str, *seconds: float, peak_mb: float = 200, away: tuple[float, ...] = ()) -> Measured:
    def samples(values: tuple[float, ...]) -> list[Sample]:
        return [Sample(s, s, peak_mb, {}, 0, {}, 1) for s in values]

    return Measured(BY_NAME[name], samples(seconds), samples(away), [STORES_S], [AIRFLOW_S])


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("event", AIRFLOW_S + 0.3),
        ("owner", 1.45 * (AIRFLOW_S + STORES_S)),
        ("burst", 1.7 * (AIRFLOW_S + STORES_S)),
        ("tangle", 12),
        ("flood", 16),
        ("whale", 30),
    ],
)
def test_a_bound_is_met_up_to_its_limit_by_the_median(name: str, limit: float):
    hit = judge(measured(name, 0.1, limit, 99), {})
    missed = judge(measured(name, 0.1, limit + 0.01, 99), {})
    assert (hit.hit, missed.hit) == (True, False)
    assert hit.limit_s == pytest.approx(limit)


def test_the_largest_workload_is_bound_by_memory_too():
    assert judge(measured("whale", 1, peak_mb=250), {}).hit
    assert not judge(measured("whale", 1, peak_mb=251), {}).hit


def test_a_request_is_judged_beside_the_single_event_of_the_same_run():
    event = measured("event", 2.0)
    assert judge(measured("request", 2.7), {"event": event}).hit
    assert not judge(measured("request", 2.71), {"event": event}).hit
    assert judge(measured("request", 2.7), {}).hit is None


def test_with_the_stores_away_a_workload_may_take_a_tenth_longer():
    assert judge_away(measured("owner", 10.0, away=(11.0,))).hit
    assert not judge_away(measured("owner", 10.0, away=(11.1,))).hit


def stream(*ages: float, final_s: float | None = 1.0) -> Stream:
    looks = [Look(n, 1, age) for n, age in enumerate(ages)]
    return Stream(1, 3000, 60.0, final_s, looks, 9, {}, 0.0)


def test_the_stream_is_judged_by_its_oldest_message_and_by_its_end():
    assert stream(1, MAX_AGE_S, 2).hit
    assert not stream(1, MAX_AGE_S + 0.001, 2).hit
    assert not stream(1, 2, final_s=None).hit
    assert FINAL_WITHIN_S > 60


def test_the_picture_of_the_stream_keeps_every_peak():
    ages = [float(n % 7) for n in range(601)] + [99.0]
    slices = stream(*ages).slices
    assert len(slices) <= SLICES
    assert [s.age_s for s in slices][:-1] == [6.0] * (len(slices) - 1)
    assert slices[-1].age_s == 99.0
