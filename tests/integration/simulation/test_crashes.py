"""A world of one's own, in which a process dies at a call that is named."""

from __future__ import annotations

from sqlalchemy import Engine

from simulation.choosers import CrashAt, Plain
from simulation.farm import Farm
from simulation.scheduler import Fate
from simulation.setup import BatchSpec, MessageSpec, Setup
from simulation.trial import play

SETUP = Setup((BatchSpec("k", "b", "a"),), (MessageSpec(1, "m0", "a", "b"),))


def crashed(engine: Engine, point: tuple[int, Fate]) -> tuple[str, ...]:
    return play(SETUP, CrashAt([point[0]], point[1]), engine).violations


def counted(engine: Engine, _: None) -> int:
    chooser = CrashAt()
    assert play(SETUP, chooser, engine).trace == play(SETUP, Plain(), engine).trace
    return len(chooser.counted)


def test_a_transfer_survives_a_crash_at_some_of_its_calls(farm: Farm) -> None:
    (count,) = farm.map(counted, [None])
    assert count > 40
    points = [(n, fate) for n in range(1, 40, 3) for fate in (Fate.DIES_BEFORE, Fate.DIES_AFTER)]
    assert [found for found in farm.map(crashed, points) if found] == []
