"""The worlds can fail: without a guard that all else rests on they go wrong."""

from __future__ import annotations

import pytest

from simulation.ablations import Ablated, report_without
from simulation.farm import Farm
from simulation.own_worlds import OWN_WORLDS, violations_in_own_world

SEEDS = 60
"""Seeds within which each goes wrong."""


@pytest.mark.parametrize(
    "guard", ["the whole condition", "fence before each wave", "image before the change"]
)
def test_a_missing_guard_is_found(farm: Farm, guard: str) -> None:
    cases = (Ablated(guard, seed) for seed in range(15, 15 + SEEDS))
    assert any(report.violations for report in farm.map(report_without, cases))


@pytest.mark.parametrize("guard", OWN_WORLDS)
def test_a_guard_is_missed_in_a_world_of_its_own(farm: Farm, guard: str) -> None:
    ((whole, without),) = farm.map(violations_in_own_world, [guard])

    assert whole == ()
    assert without
