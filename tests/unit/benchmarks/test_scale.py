from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import PARTS, Cost, Counts, Measurement, Model, fitted, main, model, most_events, read

RESULTS = Path(__file__).parents[3] / "benchmarks/results"
OF_THE_DOCS = [RESULTS / f"20261127T{at}.json" for at in ("1815Z-flood", "2008Z", "2012Z-stream")]
"""See docs/scale.md."""
MANY = [
    Counts(1, 1, 1, 6), Counts(1, 1, 1, 5_000), Counts(1, 2, 200, 2_400), Counts(1, 2, 2_000, 24_000),
    Counts(90, 180, 12_000, 24_000),
]  # fmt: skip


def test_costs_that_made_the_measurements_are_found_again() -> None:
    true = Cost(0.7, 1.1, 0.002, 0.0003)
    found = fitted(MANY, [true.of(c) for c in MANY])
    assert found == pytest.approx(true, rel=0.01)


def test_no_cost_is_below_zero() -> None:
    costs = [1.0, 1.0, 0.5, 0.4, 90.0]  # the larger ones were cheaper: noise
    assert min(fitted(MANY, costs)) >= 0


def made(costs: Cost, alone_s: float = 2.5) -> Model:
    return Model({"tasks": costs}, alone_s)


def test_more_cores_make_the_content_quicker_and_not_the_steps() -> None:
    found = made(Cost(1, 1, 0, 0.001))
    whole = found.seconds(Counts(1, 1, 1, 10_001), cores=2)
    assert whole == pytest.approx(2.5 + 5)
    assert found.seconds(Counts(1, 1, 1, 10_001), cores=4) == pytest.approx(2.5 + 2.5)


def test_a_stream_is_kept_up_with_until_its_cores_are_busy() -> None:
    found = made(Cost(0, 0, 0.01, 0.005))  # 0.02 CPU seconds for an event of 2 batches
    assert found.cycle_s(50, 2, cores=2) == pytest.approx(2.5 / (1 - 50 * 0.02 / 2))
    assert found.cycle_s(100, 2, cores=2) is None


def test_the_most_events_are_those_whose_two_runs_end_in_time() -> None:
    found = made(Cost(0, 0, 0.01, 0.005))
    most = most_events(found, 2, cores=2, within_s=10)
    cycle = found.cycle_s(most, 2, cores=2)
    assert cycle is not None
    assert 1 + 2 * cycle == pytest.approx(10)


def test_a_model_needs_the_time_of_a_single_event() -> None:
    measured = Measurement("many", MANY[3], dict.fromkeys(PARTS, 1.0), 16.0, 2)
    with pytest.raises(ValueError, match="no measurement of one event"):
        model([measured])


def test_the_model_of_the_docs_is_near_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    measured = read(OF_THE_DOCS)
    found = model(measured)
    off = {m.title: found.cpu(m.counts) / sum(m.cpu.values()) for m in measured}
    assert {title: ratio for title, ratio in off.items() if not 0.8 < ratio < 1.25} == {}
    main([str(f) for f in OF_THE_DOCS])
    assert "Cores that are busy" in capsys.readouterr().out
