"""Orders that Hypothesis draws come to what a plain model says; and a model that is wrong is found."""

from __future__ import annotations

from functools import partial
from unittest.mock import patch

from sqlalchemy import Engine

from simulation.farm import Farm
from simulation.operator import play
from simulation.operator_model import Known, Model


def test_orders_come_to_what_the_model_says(farm: Farm) -> None:
    (wrong,) = farm.map(partial(play, examples=6), [1])

    assert not wrong


def test_a_difference_is_told_as_the_shortest_story(farm: Farm) -> None:
    (wrong,) = farm.map(without_approvals, [1])

    steps = [line for line in wrong.splitlines() if "= state." in line]
    assert len(steps) == 1
    assert "old='a'" in steps[0]
    assert "'awaiting_approval'}, and should be " in wrong


def without_approvals(engine: Engine, number: int) -> str:
    """Play beside a model that knows of no limit."""
    take = Model._take

    def unlimited(self: Model, event: Known) -> None:
        self._limit = 1000
        take(self, event)

    with patch.object(Model, "_take", unlimited):
        return play(engine, number, examples=5, steps=3)
