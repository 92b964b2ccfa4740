"""Deaths at some calls of the smallest worlds; and what the enumeration says when a guard is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from sqlalchemy import Engine

from ownership.ledger.arrivals import Arrivals
from simulation.crashpoints import SINGLE, Found, Point, Repair, Row, calls_of, play_point, single_points
from simulation.farm import Farm
from simulation.scheduler import Fate
from simulation.small_worlds import WORLDS

TRANSFER, POISON = 0, 1


def test_a_transfer_ends_as_ever_whatever_dies(farm: Farm) -> None:
    (found,) = farm.map(calls_of, [TRANSFER])
    calls, plain = found
    row = Row(WORLDS[TRANSFER].name, calls, plain)

    for n, of in enumerate(farm.map(play_point, list(single_points(TRANSFER, calls))[::9])):
        row.count(of)
        assert of.died == 1, n

    assert calls > 50
    assert plain.states == {"m0": "completed"}
    assert row.wrong == []
    assert {Repair.RETRY, Repair.READ_AGAIN, Repair.TAKEOVER} <= set(row.repairs)


def test_two_deaths_strike_the_second_in_what_repairs_the_first(farm: Farm) -> None:
    points = [Point(POISON, (4, n), Fate.DIES_BEFORE, with_run=False) for n in (5, 9)]

    found = list(farm.map(play_point, points))

    assert [f.died for f in found] == [2, 2]
    assert [f.end.violations for f in found] == [(), ()]


def test_every_world_ends_as_it_must_without_a_death(farm: Farm) -> None:
    ends = [end for _, end in farm.map(calls_of, [job.world for job in SINGLE])]

    assert [e.violations for e in ends] == [()] * len(WORLDS)


def test_an_offset_that_is_stored_before_its_messages_is_found(farm: Farm) -> None:
    points = [Point(POISON, (n,), Fate.DIES_AFTER, with_run=False) for n in range(1, 15)]

    found = list(farm.map(without_one_transaction, points))

    assert [f.point.calls for f in found if f.end.violations]
    assert "is not rejected with a dead letter" in next(v for f in found for v in f.end.violations)


def without_one_transaction(engine: Engine, point: Point) -> Found:
    """Play a point, with the next offset of a partition in a transaction before that of its messages."""
    store = Arrivals.store

    def apart(
        self: Arrivals, arrivals: Sequence[Any], rejected: Sequence[Any], consumed: Sequence[Any]
    ) -> Any:
        if arrivals or rejected:
            store(self, [], [], consumed)
        return store(self, arrivals, rejected, consumed)

    with patch.object(Arrivals, "store", apart):
        return play_point(engine, point)
