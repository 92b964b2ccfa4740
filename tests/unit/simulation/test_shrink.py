"""A failing world becomes as small as it can be."""

from __future__ import annotations

from simulation.choosers import Script
from simulation.scheduler import Fate, Fault, Switch
from simulation.setup import BatchSpec, Edit, EditSpec, MessageSpec, Setup
from simulation.shrink import Case, shrunk


def test_only_what_makes_it_fail_is_left() -> None:
    batches = tuple(BatchSpec("k", f"b{n}", "a") for n in range(6))
    messages = tuple(MessageSpec(n, f"m{n}", "a", "b") for n in range(5))
    edits = tuple(EditSpec(f"b{n}", Edit.NAME, 0) for n in range(3))
    faults = tuple(Fault("run", n, Fate.DIES_AFTER) for n in range(7))
    switches = tuple(Switch("run", n, "lms") for n in range(9))
    case = Case(Setup(batches, messages, edits, runs=3), Script(switches, faults))

    def fails(c: Case) -> bool:
        return (
            batches[4] in c.setup.batches and messages[2] in c.setup.messages and faults[5] in c.script.faults
        )

    small = shrunk(case, fails)
    assert small == Case(Setup((batches[4],), (messages[2],), runs=1), Script((), (faults[5],)))
