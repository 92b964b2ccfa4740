"""The limit on rows a second."""

from __future__ import annotations

import pytest

from ownership.reconcile.pace import Pace


def paced(*rows: int, per_second: float = 100) -> list[float]:
    """What each of these takes slept for, on a clock that stands still."""
    slept: list[float] = []
    pace = Pace(per_second, clock=lambda: 0.0, sleep=slept.append)
    for n in rows:
        pace.take(n)
    return slept


def test_rows_are_paid_for_by_the_next_take() -> None:
    assert paced(50, 10, 1) == pytest.approx([0.5, 0.6])


def test_a_part_without_rows_neither_waits_nor_costs() -> None:
    assert paced(0, 50, 0, 0) == []
    assert paced(50, 0, 1) == pytest.approx([0.5])


def test_no_limit_never_waits() -> None:
    assert paced(10_000, 10_000, per_second=0) == []
