"""Worlds of fixed seeds end as they must; and the same seed is the same world."""

from __future__ import annotations

from simulation.campaign import Report, report_of, run_seeds
from simulation.farm import Farm


def test_fixed_seeds_end_as_they_must(farm: Farm) -> None:
    totals = run_seeds(farm, range(1000, 1040))
    assert totals.failed == []
    assert totals.worlds == 40


def test_a_seed_is_the_same_world_in_every_process(farm: Farm) -> None:
    seeds = [7, 8, 9]
    played = [list(farm.map(report_of, seeds)) for _ in range(4)]
    assert all(p == played[0] for p in played)
    assert all(isinstance(r, Report) and r.calls > 50 for r in played[0])
