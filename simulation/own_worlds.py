"""For some guards a world in which nothing is drawn, and which goes wrong without it: drawn worlds seldom miss them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Engine

from simulation.ablations import ablated
from simulation.choosers import Strike, Struck
from simulation.scheduler import Fate
from simulation.setup import BatchSpec, Edit, EditSpec, MessageSpec, Setup
from simulation.trial import play


class OwnWorld(NamedTuple):
    """A world, and what fails in it."""

    setup: Setup
    strikes: tuple[Strike, ...] = ()


_A_TO_B, _THEN_B_TO_C = MessageSpec(1, "m0", "a", "b"), MessageSpec(12_000, "m1", "b", "c")
_CHAIN = Setup((BatchSpec("k", "b", "a"),), (_A_TO_B, _THEN_B_TO_C))
_ONE = _CHAIN._replace(messages=(_A_TO_B,))
_EDITED_AFTERWARDS = EditSpec("b", Edit.MENTOR, 60_000, "ledger Changes.settle_images", n=2, lag_ms=-1)
"""When the second try has written what became of its change."""


def _renamed(then: str, n: int = 1) -> OwnWorld:
    """The LMS reads the row before the first transfer changes it, and writes the document during the second one."""
    edit = EditSpec("b", Edit.NAME, 60_000, "update rows read", then=then, then_n=n, shown=True)
    return OwnWorld(_CHAIN._replace(edits=(edit,)))


OWN_WORLDS: Mapping[str, OwnWorld] = {
    "the proof ends with a read": _renamed("reindex index write", 2),
    "rows that were just given": _renamed("lookup users read"),
    "later transfers are folded in": OwnWorld(
        _CHAIN._replace(
            messages=(MessageSpec(1, "m1", "b", "c"), MessageSpec(12_000, "m0", "a", "b", behind_ms=12_050))
        )
    ),
    "sequence number before the row": OwnWorld(
        _ONE._replace(edits=(EditSpec("b", Edit.OWNER, 60_000, "reindex rows read", lag_ms=-1, shown=True),))
    ),
    "grace": OwnWorld(
        _CHAIN._replace(
            messages=(MessageSpec(500, "m1", "b", "c"), MessageSpec(1_400, "m0", "a", "b", behind_ms=950))
        )
    ),
    "what was begun goes first": OwnWorld(
        _CHAIN._replace(
            messages=(MessageSpec(1, "m1", "a", "b"), MessageSpec(5_000, "m0", "b", "c", behind_ms=5_050))
        ),
        # Longer than the late event takes to come, and to be carried out by another run.
        (Strike("run-1.reindex[0]#1", "ledger Changes.settle_moved", Fate.FREEZES_BEFORE, ms=15_000),),
    ),
    # What c gets from a by way of b goes on to d.
    "whom a late event reaches": OwnWorld(
        _CHAIN._replace(
            messages=(
                MessageSpec(1, "m1", "b", "c"),
                MessageSpec(12_000, "m0", "a", "b", behind_ms=12_050),
                MessageSpec(12_001, "m2", "c", "d"),
            )
        ),
        (Strike("run-2.update[0]#1", "ledger Changes.record", Fate.FREEZES_BEFORE, ms=3_000),),
    ),
    # In one phase the batch would pass on from c to b.
    "idempotent phases": OwnWorld(
        _CHAIN._replace(messages=(MessageSpec(1, "m0", "c", "b"), MessageSpec(2, "m1", "a", "c")))
    ),
    "status in the condition": OwnWorld(
        _ONE._replace(edits=(EditSpec("b", Edit.COMPLETE, 60_000, "ledger Changes.record", lag_ms=-1),))
    ),
    "undecided images are judged": OwnWorld(_ONE, (Strike("run-1.update[0]#1", "rows b", Fate.DIES_AFTER),)),
    # The change is made when the next try has judged its image; the next stage cannot see it any more.
    "open changes are decided first": OwnWorld(
        _ONE._replace(edits=(_EDITED_AFTERWARDS,)),
        (Strike("run-1.update[0]#1", "rows b", Fate.DIES_LATE),),
    ),
    "new token for each try": OwnWorld(
        _ONE._replace(edits=(_EDITED_AFTERWARDS,)),
        # The first try wakes when the next one has judged its image, makes the change, and can tell nobody. The next
        # stage cannot see the change any more.
        (
            Strike(
                "run-1.update[0]#1",
                "ledger Queue.held",
                Fate.FREEZES_BEFORE,
                n=3,
                ms=200_000,
                until="ledger Changes.record",
            ),
            Strike("run-1.update[0]#1", "rows b", Fate.DIES_AFTER),
        ),
    ),
    "events and offset in one transaction": OwnWorld(
        _ONE,
        # Each try of the pull: a next one, and each run after it, would follow the group's offset back.
        tuple(Strike(f"run-1.pull#{n}", "ledger Arrivals.store", Fate.DIES_AFTER) for n in (1, 2, 3)),
    ),
}
"""By guard."""


def violations_in_own_world(engine: Engine, guard: str) -> tuple[tuple[str, ...], ...]:
    """What is wrong in the guard's own world, with the guard and without it."""
    world = OWN_WORLDS[guard]
    whole = play(world.setup, Struck(*world.strikes), engine)
    with ablated(guard):
        return whole.violations, play(world.setup, Struck(*world.strikes), engine).violations
