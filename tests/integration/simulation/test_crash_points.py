"""Deaths at some calls of the smallest worlds; and what the enumeration says when a guard is missing."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from sqlalchemy import Engine

from ownership.ledger.changes import Changes
from simulation.choosers import CrashAt
from simulation.crashpoints import SINGLE, Found, Point, Repair, Row, calls_of, play_point, single_points
from simulation.farm import Farm
from simulation.scheduler import Fate
from simulation.small_worlds import WORLDS

TRANSFER, POISON, APPROVAL = 0, 1, 7


def test_a_transfer_ends_as_ever_whatever_dies(farm: Farm) -> None:
    (found,) = farm.map(calls_of, [TRANSFER])
    calls, plain = found
    row = Row(WORLDS[TRANSFER].name, calls, plain)

    for n, of in enumerate(farm.map(play_point, list(single_points(farm, TRANSFER, calls))[::13])):
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
    assert all(f.calls > 14 for f in found)
    assert [f.end.violations for f in found] == [(), ()]


@pytest.mark.parametrize(
    ("world", "call", "line"),
    [
        (POISON, "kafka dead letter", "crash: a dead letter, not its message"),
        (APPROVAL, "ledger Queue.take_over", "crash: taken over by an order, not written"),
    ],
)
def test_a_line_that_seeds_seldom_reach_is_reached(farm: Farm, world: int, call: str, line: str) -> None:
    (found,) = farm.map(dying_after, [(world, call)])

    assert found.reached == {line}
    assert found.end.violations == ()


def dying_after(engine: Engine, where: tuple[int, str]) -> Found:
    """Play a world in which the process dies after the first such call."""
    world, begins = where
    chooser = CrashAt()
    WORLDS[world].world(chooser, engine).run()
    calls = [f"{store} {what}" for _, store, what in chooser.counted]
    n = next(n for n, call in enumerate(calls, 1) if call.startswith(begins))
    return play_point(engine, Point(world, (n,), Fate.DIES_AFTER, with_run=False))


def test_every_world_ends_as_it_must_without_a_death(farm: Farm) -> None:
    ends = [end for _, end in farm.map(calls_of, [job.world for job in SINGLE])]

    assert [e.violations for e in ends] == [()] * len(WORLDS)


def test_an_image_that_no_later_try_judges_is_found(farm: Farm) -> None:
    points = [Point(TRANSFER, (n,), Fate.DIES_AFTER, with_run=False) for n in range(40, 50)]

    found = list(farm.map(without_judging_images, points))

    wrong = [f for f in found if f.end.violations]
    assert 0 < len(wrong) < len(found)
    assert {v for f in wrong for v in f.end.violations} == {
        "m0 was completed, and an earlier image of b1 has no outcome",
        "an image of b1 has no outcome",
    }


def without_judging_images(engine: Engine, point: Point) -> Found:
    """Play a point, where a try does not look at the images that the one before has left without an outcome."""
    with patch.object(Changes, "undecided", lambda *_: []):
        return play_point(engine, point)
