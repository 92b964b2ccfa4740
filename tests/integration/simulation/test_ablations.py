"""The worlds can fail: without a guard that all else rests on they go wrong."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine

from simulation.ablations import Ablated, ablated, report_without
from simulation.choosers import Strike, Struck
from simulation.farm import Farm
from simulation.scheduler import Fate
from simulation.setup import BatchSpec, Edit, EditSpec, MessageSpec, Setup
from simulation.trial import play

SEEDS = 60
"""Seeds within which each goes wrong."""

A_TO_B, THEN_B_TO_C = MessageSpec(1, "m0", "a", "b"), MessageSpec(12_000, "m1", "b", "c")
OWN = Setup((BatchSpec("k", "b", "a"),), (A_TO_B, THEN_B_TO_C))


def renamed(then: str, n: int = 1) -> Setup:
    """The LMS reads the row before the first transfer changes it, and writes the document during the second one."""
    edit = EditSpec("b", Edit.NAME, 60_000, "update rows read", then=then, then_n=n, shown=True)
    return OWN._replace(edits=(edit,))


WORLDS = {
    "the proof ends with a read": renamed("reindex index write", 2),
    "rows that were just given": renamed("lookup users read"),
    "later transfers are folded in": OWN._replace(
        messages=(MessageSpec(1, "m1", "b", "c"), MessageSpec(12_000, "m0", "a", "b", behind_ms=12_050))
    ),
    "sequence number before the row": OWN._replace(
        messages=(A_TO_B,),
        edits=(EditSpec("b", Edit.OWNER, 60_000, "reindex rows read", lag_ms=-1, shown=True),),
    ),
    "grace": OWN._replace(
        messages=(MessageSpec(500, "m1", "b", "c"), MessageSpec(1_400, "m0", "a", "b", behind_ms=950))
    ),
    "what was begun goes first": OWN._replace(
        messages=(MessageSpec(1, "m1", "a", "b"), MessageSpec(5_000, "m0", "b", "c", behind_ms=5_050))
    ),
    "status in the condition": OWN._replace(
        messages=(A_TO_B,), edits=(EditSpec("b", Edit.COMPLETE, 60_000, "ledger Changes.record", lag_ms=-1),)
    ),
    "undecided images are judged": OWN._replace(messages=(A_TO_B,)),
    "open changes are decided first": OWN._replace(messages=(A_TO_B,)),
    "events and offset in one transaction": OWN._replace(messages=(A_TO_B,)),
    "new token for each try": OWN._replace(messages=(A_TO_B,)),
}
"""By guard, a world of its own, in which nothing is drawn."""

STRIKES = {
    # Longer than the late event takes to come, and to be carried out by another run.
    "what was begun goes first": [
        Strike("run-1.reindex[0]#1", "ledger Changes.settle_moved", Fate.FREEZES_BEFORE, ms=15_000)
    ],
    "undecided images are judged": [Strike("run-1.update[0]#1", "rows b", Fate.DIES_AFTER)],
    "open changes are decided first": [Strike("run-1.update[0]#1", "rows b", Fate.DIES_LATE)],
    # Each try of the pull: a next one, and each run after it, would follow the group's offset back.
    "events and offset in one transaction": [
        Strike(f"run-1.pull#{n}", "ledger Arrivals.store", Fate.DIES_AFTER) for n in (1, 2, 3)
    ],
    # It wakes when the next try has judged its image, makes the change, and can tell nobody.
    "new token for each try": [
        Strike(
            "run-1.update[0]#1", "ledger Queue.held", Fate.FREEZES_BEFORE, 3, 200_000, "ledger Changes.record"
        ),
        Strike("run-1.update[0]#1", "rows b", Fate.DIES_AFTER),
    ],
}
"""By guard, what fails in its world; in the others nothing does."""


@pytest.mark.parametrize(
    "guard", ["the whole condition", "fence before each wave", "image before the change"]
)
def test_a_missing_guard_is_found(farm: Farm, guard: str) -> None:
    cases = (Ablated(guard, seed) for seed in range(15, 15 + SEEDS))
    assert any(report.violations for report in farm.map(report_without, cases))


def in_own_world(engine: Engine, guard: str) -> tuple[tuple[str, ...], ...]:
    """What is wrong in the guard's own world, with it and without it."""
    world, strikes = WORLDS[guard], STRIKES.get(guard, ())
    whole = play(world, Struck(*strikes), engine)
    with ablated(guard):
        return whole.violations, play(world, Struck(*strikes), engine).violations


@pytest.mark.parametrize("guard", WORLDS)
def test_a_guard_is_missed_in_a_world_of_its_own(farm: Farm, guard: str) -> None:
    ((whole, without),) = farm.map(in_own_world, [guard])

    assert whole == ()
    assert without
