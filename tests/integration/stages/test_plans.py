"""Restricted transfers, dry runs, and plans that are applied exactly or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ownership.domain.conf import ConfError
from ownership.domain.plan_report import PlanReport, text
from ownership.stages import settle
from tests.integration.stages.transfer_world import Faults, World, replaced


def _dry_run(world: World, from_user: str, to_user: str, **fields: Any) -> tuple[str, Any]:
    run = world.run().pull(form=world.form(from_user, to_user, dry_run=True, **fields))
    summary = run.finish()
    (plan,) = summary.plans
    return f"manual:{run.run_id}:0", plan


@pytest.mark.parametrize(
    ("fields", "moved"),
    [
        pytest.param({"roles": ["created"]}, {"own", "own-late", "both"}, id="created"),
        pytest.param({"roles": ["mentored"]}, {"mentored", "both"}, id="mentored"),
        pytest.param({"statuses": [0]}, {"own-late"}, id="upcoming"),
        pytest.param({"statuses": [1], "roles": ["created"]}, {"own", "both"}, id="ongoing and created"),
    ],
)
def test_a_restricted_transfer_moves_what_it_names_and_nothing_else(
    world: World, fields: dict[str, Any], moved: set[str]
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = {
        "own": world.batch(created_by=a, status=1),
        "own-late": world.batch(created_by=a, status=0),
        "mentored": world.batch(created_by=c, mentors=[a, c], status=1),
        "both": world.batch(created_by=a, mentors=[c, a], status=1),
    }
    before = {n: world.owners(x) for n, x in batches.items()}
    run = world.run().pull(form=world.form(a, b, **fields))

    summary = run.finish()

    assert summary.events == {"completed": 1}
    assert summary.batches == {"moved": len(moved)}
    assert {n for n, x in batches.items() if world.owners(x) != before[n]} == moved
    roles = fields.get("roles", ["created", "mentored"])
    both = (b if "created" in roles else a, (c, b) if "mentored" in roles else (c, a))
    if "both" in moved:
        assert world.owners(batches["both"]) == both
    assert set(world.outcomes(f"manual:{run.run_id}:0").values()) == {"moved"}


def test_a_transfer_restricted_to_courses_leaves_the_others(world: World) -> None:
    a, b = world.users("a", "b")
    here, there = world.batch(created_by=a), world.batch(created_by=a)

    summary = world.whole_run(form=world.form(a, b, course_ids=[here.course_id]))

    assert summary.batches == {"moved": 1}
    assert world.creators([here, there]) == [b, a]


def test_a_restricted_transfer_and_a_later_one_take_effect_in_their_order(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    created, mentored = world.batch(created_by=a), world.batch(created_by=b, mentors=[a])
    forms = [
        world.form(a, b, roles=["created"]),
        world.form(b, c),
        world.form(a, b),
    ]
    run = world.run().pull(form={"events": forms})
    run.finish()
    world.job.drain(patient=False)

    # A's created batch goes to B, then everything of B to C, then what is left of A to B.
    assert world.owners(created) == (c, ())
    assert world.owners(mentored) == (c, (b,))


def test_a_second_proof_leaves_what_a_restricted_transfer_left(world: World) -> None:
    a, b = world.users("a", "b")
    created, mentored = world.batch(created_by=a), world.batch(created_by=b, mentors=[a])
    world.whole_run(form=world.form(a, b, roles=["mentored"]))

    summary = world.run().pull(window=world.window())

    assert (summary.pulled.follow_ups, summary.pulled.claimed) == (0, 0)
    assert world.owners(created) == (a, ())
    assert world.owners(mentored) == (b, (b,))


def test_a_dry_run_tells_its_plan_and_leaves_both_stores_as_they_were(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [*world.batches(9, created_by=a), world.batch(created_by=c, mentors=[a])]
    elsewhere = world.batch(created_by=a)
    world.edit(elsewhere, createdby=c)
    world.hidden.add(elsewhere.batch_id)
    before = world.platform.as_written([*batches, elsewhere])

    mid, plan = _dry_run(world, a, b, reason="rehearsal")

    assert world.platform.as_written([*batches, elsewhere]) == before
    event = world.read(mid)
    assert (event.state, event.request_reason, event.requested_by) == ("rehearsed", "rehearsal", "tester")
    assert event.counts == {"moved": 10, "changed_elsewhere": 1}
    assert (plan.batches, plan.conflicts, plan.roles) == (10, 1, {"created": 9, "mentored": 1})
    assert sum(plan.courses.values()) == 10
    assert len(plan.first) == 10
    assert {(line.before, line.after) for line in plan.first} == {
        (f"created by {a}", f"created by {b}"),
        (f"created by {c}, mentors {a}", f"created by {c}, mentors {b}"),
    }
    assert json.loads(plan.next_conf) == {"execute_plan": mid, "digest": plan.digest}
    assert event.next_conf == plan.next_conf
    assert f"digest {plan.digest}" in text(plan)
    # The plan is in the ledger, batch by batch, before and after.
    rows = list(world.job.parts.changes.read_plan(mid))
    assert {r.hop.after.created_by for r in rows if r.hop and r.hop.before.created_by == a} == {b}
    assert len(rows) == 11


def _digest_of_rows(world: World, mid: str) -> str:
    """What the plan names that stands in the ledger, batch by batch."""
    report = PlanReport(world.read(mid).transfer)
    for row in world.job.parts.changes.read_plan(mid):
        if row.hop:
            report.add_change(row.hop)
    return report.digest


@pytest.mark.parametrize("alive", [False, True])
def test_a_dry_run_that_is_planned_again_shows_its_last_plan_alone(world: World, *, alive: bool) -> None:
    """Its first try died after the plan, or froze before it and comes late."""
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(2, created_by=a)
    run = world.run().pull(form=world.form(a, b, dry_run=True))
    mid, given, changes = f"manual:{run.run_id}:0", run.work, world.job.parts.changes
    plan = changes.plan

    def planned(*args: Any, **more: Any) -> None:
        if not alive:
            plan(*args, **more)
        world.edit(batches[0], createdby=c)
        world.platform.put_document(batches[0].batch_id, createdBy=c)
        with replaced(changes, "plan", plan):
            again = world.job.run(run.run_id)
            again.work = given
            again.again().lookup()
        if alive:
            plan(*args, **more)

    with replaced(changes, "plan", planned):
        run.lookup()

    assert [(r.planned.id.batch_id, r.planned.outcome) for r in changes.read_plan(mid)] == [
        (batches[1].batch_id, "moved")
    ]
    assert _digest_of_rows(world, mid) == world.read(mid).digest
    assert world.creators(batches) == [c, a]


def test_a_dry_run_does_not_stand_in_the_way_and_gives_nothing_back(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    _dry_run(world, a, c)

    assert world.whole_run(form=world.form(a, b)).events == {"completed": 1}
    assert world.owners(batch) == (b, ())


def test_an_event_that_was_rehearsed_before_it_came_is_carried_out_when_it_comes(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    event = world.event(a, b)
    assert world.whole_run(form={"events": [event], "dry_run": True}).events == {"rehearsed": 1}

    world.platform.emit(event)

    assert [s.events for s in world.job.drain()] == [{"completed": 1}]
    assert world.owners(batch) == (b, ())


def test_dry_runs_of_one_lane_are_planned_at_once_and_each_by_itself(world: World) -> None:
    a, b, c, new = world.users("a", "b", "c", "new")
    shared = world.batch(created_by=a, mentors=[b])
    world.batch(created_by=c)
    alone = {user: _dry_run(world, user, new)[1] for user in (a, b, c)}

    forms = [world.form(user, new) for user in (a, b, c)]
    run = world.run().pull(form={"events": forms, "dry_run": True}).lookup()

    assert [w.waiting for w in run.work] == [()], "none is left to a later phase"
    summary = run.settle()
    assert summary.events == {"rehearsed": 3}
    plans = {plan.from_user: plan for plan in summary.plans}
    assert {user: plan.digest for user, plan in plans.items()} == {u: p.digest for u, p in alone.items()}
    assert world.owners(shared) == (a, (b,))


def test_a_transfer_waits_for_the_dry_runs_before_it_and_goes_in_their_run(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    forms = [world.form(a, b, dry_run=True), world.form(a, b)]
    summary = world.whole_run(form={"events": forms})
    assert summary.events == {"rehearsed": 1, "completed": 1}
    assert world.owners(batch) == (b, ())


def test_a_dry_run_of_an_unknown_user_is_skipped_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "MAX_REPORTED", 1)
    (a,) = world.users("a")
    world.transfer(a, f"stranger-{a}")
    run = world.run().pull(form=world.form(a, f"nobody-{a}", dry_run=True))

    summary = run.finish()
    (mid,) = run.pulled.own
    assert summary.events == {"skipped": 2}
    assert summary.notes == {mid: f"skipped: user 'nobody-{a}' is unknown to User-Org"}
    assert list(summary.next_conf) == list(summary.users) == [mid]


def test_a_plan_is_executed_as_it_was_shown(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [*world.batches(3, created_by=a), world.batch(created_by=c, mentors=[a])]
    mid, plan = _dry_run(world, a, b, roles=["created"])

    run = world.run().pull(execute_plan=mid, digest=plan.digest)
    summary = run.finish()

    assert run.pulled.notes == {mid: f"is applied as execute:{run.run_id}"}
    assert summary.events == {"completed": 1}
    assert summary.batches == {"moved": 3}
    assert world.creators(batches) == [b, b, b, c]
    assert world.owners(batches[3]) == (c, (a,))
    assert len(world.trail(f"execute:{run.run_id}")) == 3
    # Once more: its rows are no longer as they were.
    again = world.whole_run(execute_plan=mid, digest=plan.digest)
    assert "no longer holds" in next(iter(again.failures.values()))


@pytest.mark.parametrize("change", ["owner", "mentors", "status", "deleted", "new"])
def test_a_plan_is_refused_when_rows_have_changed_since(world: World, change: str) -> None:
    a, b, c = world.users("a", "b", "c")
    first, second = world.batches(2, created_by=a)
    mid, plan = _dry_run(world, a, b)
    said = {
        "owner": f"batch {first.batch_id} of course {first.course_id} was created by {a} and is created by {c}",
        "mentors": f"is created by {a}, mentors {c}",
        "status": "had status 1 and has 2",
        "deleted": f"batch {first.batch_id} of course {first.course_id} is gone",
        "new": "it had 2 batches, now there are 3",
    }[change]
    if change == "owner":
        world.edit(first, createdby=c)
    elif change == "mentors":
        world.edit(first, mentors=[c])
    elif change == "status":
        world.edit(first, status=2)
    elif change == "deleted":
        world.platform.delete_row(first.course_id, first.batch_id)
    else:
        world.batch(created_by=a)
    world.hidden.add(first.batch_id)

    run = world.run().pull(execute_plan=mid, digest=plan.digest)
    before = world.platform.as_written([first, second])
    summary = run.finish()

    new = f"execute:{run.run_id}"
    assert summary.events == {"declined": 1}
    assert f"the plan of {mid} no longer holds: " in summary.failures[new]
    assert said in summary.failures[new]
    assert world.state(new) == "declined"
    assert world.platform.as_written([first, second]) == before


def test_a_batch_that_appears_while_a_plan_is_executed_is_not_in_it(world: World) -> None:
    a, b = world.users("a", "b")
    planned = world.batch(created_by=a)
    mid, plan = _dry_run(world, a, b)
    run = world.run().pull(execute_plan=mid, digest=plan.digest).lookup()
    late = world.batch(created_by=a)

    summary = run.update().reindex().settle()

    assert summary.events == {"completed": 1}
    assert world.creators([planned, late]) == [b, a]


def test_a_batch_that_a_plan_names_as_unchanged_stays_when_it_could_move_meanwhile(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    planned, elsewhere = world.batch(created_by=a), world.batch(created_by=a)
    world.edit(elsewhere, createdby=c)
    world.hidden.add(elsewhere.batch_id)
    mid, plan = _dry_run(world, a, b)
    assert (plan.batches, plan.conflicts) == (1, 1)
    run = world.run().pull(execute_plan=mid, digest=plan.digest).lookup()
    world.edit(elsewhere, createdby=a)

    summary = run.update().reindex().settle()

    assert summary.events == {"completed": 1}
    assert world.creators([planned, elsewhere]) == [b, a]
    assert set(world.outcomes(f"execute:{run.run_id}").values()) == {"moved", "changed_elsewhere"}


def test_a_plan_whose_execution_was_cut_off_goes_on(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(3, created_by=a)
    mid, plan = _dry_run(world, a, b)
    run = world.run().pull(execute_plan=mid, digest=plan.digest).lookup().update()
    new = f"execute:{run.run_id}"
    world.expire(new)

    assert world.whole_run().events == {"completed": 1}
    assert world.creators(batches) == [b, b, b]
    assert world.state(new) == "completed"


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        pytest.param({"execute_plan": "nobody's", "digest": "0" * 20}, "is not in the ledger", id="unknown"),
        pytest.param({"digest": "0" * 20}, "digest: is not that of the plan", id="another digest"),
    ],
)
def test_a_plan_that_is_none_is_refused_before_anything_is_queued(
    world: World, conf: dict[str, Any], words: str
) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    mid, _ = _dry_run(world, a, b)

    with pytest.raises(ConfError, match=words):
        world.run().pull(**{"execute_plan": mid, **conf})


def test_a_completed_transfer_has_no_plan_to_execute(world: World) -> None:
    a, b = world.users("a", "b")
    world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()

    with pytest.raises(ConfError, match=f"event {mid} is completed, and no dry run"):
        world.run().pull(execute_plan=mid, digest="0" * 20)


def test_a_dry_run_with_an_outage_is_tried_again_like_any_other(world: World, userorg: Faults) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    userorg.set("503", user=a)
    run = world.run().pull(form=world.form(a, b, dry_run=True)).lookup()
    assert run.settle().events == {"failed": 1}
    userorg.clear()

    (plan,) = world.whole_run(patient=False).plans

    assert plan.batches == 1
    assert world.state(f"manual:{run.run_id}:0") == "rehearsed"
    assert world.owners(batch) == (a, ())
