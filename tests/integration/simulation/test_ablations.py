"""The worlds can fail: without a guard that all else rests on they go wrong."""

from __future__ import annotations

import pytest

from simulation.ablations import Ablated, report_without
from simulation.farm import Farm

SEEDS = 60
"""Seeds within which each goes wrong."""


@pytest.mark.parametrize(
    ("guard", "first"),
    [("the whole condition", 1), ("fence before each wave", 40), ("image before the change", 1)],
)
def test_a_missing_guard_is_found(farm: Farm, guard: str, first: int) -> None:
    cases = (Ablated(guard, seed) for seed in range(first, first + SEEDS))
    assert any(report.violations for report in farm.map(report_without, cases))
