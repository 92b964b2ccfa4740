"""What the simulation has found in the product, each as the smallest world in which it went wrong."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from sqlalchemy import Engine

from simulation.choosers import Strike, Struck
from simulation.farm import Farm
from simulation.scheduler import Fate
from simulation.setup import BatchSpec, MessageSpec, OrderSpec, Setup
from simulation.trial import play


class Found(NamedTuple):
    """A world and what strikes it."""

    setup: Setup
    strikes: tuple[Strike, ...]


ONE = Setup((BatchSpec("k", "b", "a"),), (MessageSpec(1, "m0", "a", "b"),))

FOUND = {
    # A try that froze between its second fence and its compare-and-set said *late* of what its successor had done.
    "a refused change of a frozen try is not its own": Found(
        ONE, (Strike("run-1.update[0]#1", "ledger Queue.held", Fate.FREEZES_AFTER, n=3, ms=40_000),)
    ),
    # The same where a wave before it is still to be settled when the fence of the next one finds the claim lost.
    "a claim that is lost stays lost for the wave before": Found(
        Setup(tuple(BatchSpec("k", f"b{n}", "a") for n in range(3)), (MessageSpec(1, "m0", "a", "b"),)),
        (Strike("run-1.update[0]#1", "rows b", Fate.FREEZES_BEFORE, ms=25_000),),
    ),
    # Of two lanes of a slice one was lost: its change, made afterwards, was *applied* like the other's.
    "a lane that is lost leaves late changes": Found(
        Setup(
            (BatchSpec("k", "b0", "a"), BatchSpec("l", "b1", "c")),
            (MessageSpec(1, "m0", "a", "b"), MessageSpec(2, "m1", "c", "d")),
            orders=(OrderSpec(5_000, "manual", {"abandon": {"mids": ["m1"], "reason": "found"}}),),
            settings={"max_mapped": 1, "parallelism": 1},
        ),
        (Strike("run-1.update[0]#1", "rows b0", Fate.FREEZES_BEFORE, ms=8_000),),
    ),
    # A try that froze in its commit judged the plan by rows that were moved: *already* instead of *moved*.
    "a frozen commit leaves the plan as it was proven": Found(
        ONE, (Strike("run-1.reindex[0]#1", "ledger Changes.settle_moved", Fate.FREEZES_AFTER, ms=40_000),)
    ),
    # A try that froze after its compare-and-set read a row that a later transfer had changed back: *refused*.
    "a frozen try does not overrule what its successor has judged": Found(
        Setup(
            (BatchSpec("k", "b", "a", ("a",)),),
            (MessageSpec(1, "m0", "a", "b"), MessageSpec(12_000, "m1", "b", "a")),
        ),
        (Strike("run-1.update[0]#1", "rows b", Fate.FREEZES_AFTER, ms=80_000),),
    ),
    # Seed 5731: a later try that judges the first one's change froze itself, and woke after the row was given back.
    "what a frozen try would judge is left as its successor has judged it": Found(
        Setup(
            (BatchSpec("k", "b", "x", ("a",)),),
            (MessageSpec(1, "m0", "a", "b"), MessageSpec(30_000, "m1", "b", "a")),
        ),
        (
            Strike("run-1.update[0]#1", "rows b", Fate.DIES_AFTER),
            Strike("run-1.update[0]#2", "rows read", Fate.FREEZES_BEFORE, ms=80_000),
        ),
    ),
    # Seed 96: a try read a row, then an earlier one woke and changed it: the refusal passed for the try's own success.
    "a refusal without a time-out is no success, whatever the row shows": Found(
        ONE,
        (Strike("run-1.update[0]#1", "rows b", Fate.FREEZES_BEFORE, ms=90_000, until="rows read", nth=2),),
    ),
    # A change that some nodes had agreed on was judged *superseded* by a read that could not see it, and made after that.
    "a change whose answer was lost is made or ruled out before it is judged": Found(
        ONE, (Strike("run-1.update[0]#1", "rows b", Fate.DIES_LATE),)
    ),
    "the same where no try of the statement is answered": Found(
        ONE,
        (
            Strike("run-1.update[0]#1", "rows b", Fate.LOST_LATE),
            Strike("run-1.update[0]#1", "rows b", Fate.OUTAGE, ms=60_000),
        ),
    ),
}


def violations(engine: Engine, name: str) -> tuple[str, ...]:
    setup, strikes = FOUND[name]
    return play(setup, Struck(*strikes), engine).violations


@pytest.mark.parametrize("name", FOUND)
def test_it_ends_as_it_must(farm: Farm, name: str) -> None:
    assert list(farm.map(violations, [name])) == [()]
