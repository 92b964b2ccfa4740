"""What an operator does about events that stand still: abandon them, or try them again."""

from __future__ import annotations

import pytest
from transfer_world import ORGANISATION, Faults, World

from ownership.conf import ConfError


def test_an_abandoned_event_is_final_and_frees_what_it_blocked(world: World, userorg: Faults) -> None:
    a, b, c = world.users("a", "b", "c")
    stays, moves = world.batch(created_by=a), world.batch(created_by=b)
    first, second = world.transfer(a, b), world.transfer(b, c)
    userorg.set("503", user=a)
    world.run().pull().lookup().settle()
    assert world.job.states([first, second]) == ["failed", "received"]

    run = world.run().pull(abandon={"mids": [first], "reason": "asked for by mistake"})

    assert run.pulled.told == {first: f"was abandoned; it blocked {second}"}
    assert run.finish().events == {"completed": 1}
    assert world.job.states([first, second]) == ["abandoned", "completed"]
    assert world.read(first).reason == "abandoned: asked for by mistake"
    assert world.owners(stays) == (a, ())
    assert world.owners(moves) == (c, ())


def test_an_event_is_abandoned_also_under_a_live_holder_which_then_writes_nothing(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    holder = world.run().pull().lookup()

    other = world.run().pull(abandon={"mids": [mid], "reason": "no"})
    holder.update().reindex()

    assert other.pulled.told == {mid: "was abandoned"}
    assert world.job.states([mid]) == ["abandoned"]
    assert world.owners(batch) == (a, ())
    assert holder.settle().events == {"abandoned": 1}


def test_what_is_final_or_unknown_is_not_abandoned(world: World) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()

    run = world.run().pull(abandon={"mids": [mid, "nobody's"], "reason": "no"})

    assert run.pulled.told == {mid: "is completed already", "nobody's": "is not in the ledger"}
    assert world.job.states([mid]) == ["completed"]


def test_a_skipped_event_is_redriven_as_a_new_one(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    stranger = f"stranger-{b}"
    mid = world.transfer(a, stranger)
    world.whole_run()
    assert world.job.states([mid]) == ["skipped"]
    world.platform.add_user(stranger, ORGANISATION)

    run = world.run().pull(redrive={"mids": [mid]})

    new = f"redrive:{run.run_id}:0"
    assert run.pulled.told == {mid: f"is tried again as {new}"}
    assert run.finish().events == {"completed": 1}
    assert world.job.states([mid, new]) == ["skipped", "completed"]
    assert world.owners(batch) == (stranger, ())
    # The same run pulled once more (a cleared task) adds nothing.
    again = world.job.run(run.run_id).pull(redrive={"mids": [mid]})
    assert (again.pulled.received, again.pulled.claimed) == (0, 0)


def test_a_failed_event_is_redriven_before_its_next_try_is_due(world: World, userorg: Faults) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    userorg.set("503", user=a)
    world.run().pull().lookup().settle()
    userorg.clear()
    assert world.run().pull().pulled.claimed == 0

    run = world.run().pull(redrive={"mids": [mid]}, patient=False)

    assert run.pulled.told == {mid: "is failed, and is tried by this run if nothing blocks it"}
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (b, ())


@pytest.mark.parametrize(
    ("conf", "sentence"),
    [
        pytest.param({"abandon": {"mids": ["m"]}}, "abandon: reason: Field required", id="no reason"),
        pytest.param({"abandon": {"mids": [], "reason": "x"}}, "abandon: mids", id="no event"),
        pytest.param(
            {"redrive": {"mid": "m"}}, "redrive: mids: Field required; mid: Extra", id="a typing error"
        ),
        pytest.param({"redrive": ["m"]}, "redrive: message: Input should be", id="no object"),
    ],
)
def test_an_order_that_cannot_be_read_is_refused(
    world: World, conf: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ConfError, match=sentence):
        world.run().pull(**conf)
