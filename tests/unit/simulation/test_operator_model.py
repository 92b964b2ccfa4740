"""The model of an operator's orders, on its own."""

from __future__ import annotations

from simulation.operator_model import Known, Model
from simulation.setup import BatchSpec

BATCHES = (BatchSpec("k", "b1", "a"), BatchSpec("k", "b2", "a", ("b",)))


def model(limit: int = 2) -> Model:
    return Model(BATCHES, ("a", "b", "c"), limit=limit)


def test_a_transfer_moves_all_and_its_undo_takes_it_back() -> None:
    m = model()
    m.add(Known("m0", "a", "b"))
    m.work()
    assert m.owners == {"b1": ("b", ()), "b2": ("b", ("b",))}

    assert m.undo("m0", "u", dry_run=False) == "is taken back as u"
    m.work()

    assert m.owners == {"b1": ("a", ()), "b2": ("a", ("b",))}
    assert m.states == {"m0": "completed", "u": "completed"}


def test_what_waits_for_an_approval_holds_back_its_users_alone() -> None:
    m = model(limit=1)
    m.add(Known("m0", "a", "b"))
    m.add(Known("m1", "b", "c"))
    m.work()
    assert m.states == {"m0": "awaiting_approval", "m1": "open"}

    assert m.approve("m0", m.events["m0"].plan) == "was approved by operator"
    m.work()

    assert m.states == {"m0": "completed", "m1": "awaiting_approval"}


def test_a_plan_is_applied_only_if_it_still_holds() -> None:
    m = model()
    m.add(Known("d", "a", "b", dry_run=True))
    m.add(Known("m0", "a", "c"))
    m.work()

    assert m.apply_plan("d", m.events["d"].plan, "e") == "is applied as e"
    m.work()

    assert m.states == {"d": "rehearsed", "m0": "completed", "e": "declined"}
