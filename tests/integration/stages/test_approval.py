"""A transfer above `approval.batches` waits for somebody, and for nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.conf import Approve, ConfError, Decline
from ownership.stages.approval_questions import awaits_a_question, questions
from ownership.stages.orders import approve, decline
from tests.integration.stages.transfer_world import World, opened_world, replaced

LIMIT = 3


@pytest.fixture(scope="module")
def approving(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses, **{"approval.batches": LIMIT}) as world:
        yield world


@pytest.fixture
def world(approving: World) -> Iterator[World]:
    approving.made, approving.hidden = [], set()
    yield approving
    approving.check_stores()
    assert approving.job.open_mids() == []


def _waiting(world: World, batches: int = LIMIT + 1) -> tuple[str, str, str, list[Any], str]:
    """Users, a transfer that awaits its approval with its batches, and its plan's digest."""
    a, b = world.users("a", "b")
    made = world.batches(batches, created_by=a)
    mid = world.transfer(a, b)
    summary = world.whole_run()
    assert summary.events == {"awaiting_approval": 1}
    (plan,) = summary.plans
    return a, b, mid, made, plan.digest


def _let_pass(world: World, mid: str) -> None:
    """The time for an approval is over."""
    passed = "UPDATE event SET awaits_until = to_timestamp(:ms / 1000.0) WHERE mid = :mid RETURNING id"
    assert len(world.execute(passed, ms=now_ms() - 1, mid=mid)) == 1
    world.make_due(mid)


def test_a_large_transfer_waits_after_planning_and_holds_nothing(world: World) -> None:
    a, _, mid, batches, digest = _waiting(world)

    event, row = world.read(mid), world.queued(mid)
    assert (event.state, event.digest) == ("awaiting_approval", digest)
    assert event.reason == f"{LIMIT + 1} batches are more than approval.batches = {LIMIT}"
    assert event.next_conf == f'{{"approve": {{"mid": "{mid}", "digest": "{digest}"}}}}'
    assert (row.awaits, row.holder) == ("approval", None)
    assert world.creators(batches) == [a] * 4
    assert world.run().pull(patient=False).pulled.waits[mid] == "awaits approval"

    world.whole_run(decline={"mid": mid, "reason": "over"})


def test_a_try_that_is_ended_leaves_alone_what_awaits_an_approval_since(world: World) -> None:
    """As at a SIGTERM after the plan: the try lets go of all events that it was given."""
    a, b = world.users("a", "b")
    world.batches(LIMIT + 1, created_by=a)
    mid = world.transfer(a, b)
    run = world.run().pull()
    claimed = [e for s in run.pulled.slices for e in s.events]
    run.lookup()
    before = world.queued(mid)
    assert before.awaits == "approval"

    queue = world.job.parts.queue
    queue.release(claimed, next_try_ms=0)
    queue.renew(claimed, run_id=run.run_id, lease_expires_ms=now_ms() + 60_000)
    queue.claim_again(claimed, run_id=run.run_id, lease_ms=60_000)
    world.job.parts.events.fail([(e, "an outage that came after it", 1) for e in claimed])

    assert world.queued(mid) == before
    assert world.state(mid) == "awaiting_approval"
    world.whole_run(decline={"mid": mid, "reason": "over"})


def test_a_later_try_leaves_to_people_what_awaits_an_approval_though_its_plan_is_smaller_by_now(
    world: World,
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(LIMIT + 1, created_by=a)
    mid = world.transfer(a, b)
    run = world.run().pull()
    given = run.work
    run.lookup()  # its process dies before it has handed anything on
    before = world.read(mid), world.queued(mid)
    world.edit(batches[0], createdby=c)
    world.hidden.add(batches[0].batch_id)

    run.work = given
    run.again().lookup().update()

    assert (world.read(mid), world.queued(mid)) == before
    assert world.creators(batches[1:]) == [a] * LIMIT
    assert run.settle().events == {"awaiting_approval": 1}
    world.whole_run(decline={"mid": mid, "reason": "over"})


def test_a_refusal_that_was_slower_than_an_approval_does_not_end_what_has_begun(world: World) -> None:
    _, b, mid, batches, digest = _waiting(world)
    parts, run = world.job.parts, world.run()
    take_over = parts.queue.take_over

    def meanwhile(*args: Any, **more: Any) -> Any:
        with replaced(parts.queue, "take_over", take_over):
            run.pull(approve={"mid": mid, "digest": digest}).lookup().update()
        return take_over(*args, **more)

    with replaced(parts.queue, "take_over", meanwhile):
        note = decline(parts, Decline(mid=mid, reason="no"), run_id="slow", by="tester")

    assert note == "is applied and awaits no approval"
    assert run.reindex().settle().events == {"completed": 1}
    assert world.creators(batches) == [b] * 4


@pytest.mark.parametrize("all_of_it", [False, True])
def test_a_run_that_is_ended_before_it_declines_lets_go_of_what_it_claimed(
    world: World, *, all_of_it: bool
) -> None:
    _, _, mid, _, _ = _waiting(world)
    _let_pass(world, mid)
    run = world.run().pull()
    held, queue = world.queued(mid), world.job.parts.queue
    assert (held.holder, held.awaits) == (run.run_id, "approval")

    if all_of_it:
        queue.release_all(run.run_id)
    else:
        queue.release([e for s in run.pulled.slices for e in s.events], next_try_ms=0)

    assert world.queued(mid) == held._replace(holder=None, lease_expires_ms=0)
    assert world.whole_run().events == {"declined": 1}


def test_an_approved_transfer_goes_on_in_the_same_run(world: World) -> None:
    _, b, mid, batches, digest = _waiting(world)

    run = world.run().pull(approve={"mid": mid, "digest": digest})
    assert world.read(mid).next_conf is None
    summary = run.finish()

    assert run.pulled.notes == {mid: "was approved by tester"}
    assert summary.events == {"completed": 1}
    assert world.creators(batches) == [b] * 4
    assert world.run().pull(approve={"mid": mid, "digest": digest}).pulled.notes == {
        mid: "is completed already"
    }


def test_a_refusal_ends_it_with_who_and_why_and_frees_what_it_blocked(world: World) -> None:
    a, b, mid, batches, _ = _waiting(world)
    (c,) = world.users("c")
    own = world.batch(created_by=b)
    behind = world.transfer(b, c)
    assert world.run().pull().pulled.waits[behind] == f"waits for {mid}"

    run = world.run().pull(decline={"mid": mid, "reason": "wrong person", "by": "registrar"})
    summary = run.finish()

    assert run.pulled.notes == {mid: f"was declined by registrar; it blocked {behind}"}
    assert summary.notes == run.pulled.notes
    assert summary.events == {"completed": 1}
    assert (world.state(mid), world.read(mid).reason) == ("declined", "declined by registrar: wrong person")
    assert world.creators([*batches, own]) == [a] * 4 + [c]


def test_what_nobody_approves_in_time_is_declined(world: World) -> None:
    a, _, mid, batches, _ = _waiting(world)
    _let_pass(world, mid)

    summary = world.whole_run()

    assert summary.events == {"declined": 1}
    assert summary.failures == {}
    assert summary.notes[mid].startswith("declined: nobody approved it until ")
    assert world.state(mid) == "declined"
    assert world.creators(batches) == [a] * 4


def test_smaller_transfers_of_others_and_of_the_same_run_are_not_kept(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    large, small = world.batches(LIMIT + 1, created_by=a), world.batches(LIMIT, created_by=c)
    first, second = world.transfer(a, b), world.transfer(c, d)

    summary = world.whole_run()

    assert summary.events == {"awaiting_approval": 1, "completed": 1}
    assert world.job.states([first, second]) == ["awaiting_approval", "completed"]
    assert world.creators([*large, *small]) == [a] * 4 + [d] * 3
    world.whole_run(decline={"mid": first, "reason": "over"})


def test_in_a_lane_what_comes_before_the_large_one_goes_on_and_the_rest_waits(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    small, large = world.batch(created_by=a), world.batches(LIMIT + 1, created_by=c)
    first, big, after = world.transfer(a, b), world.transfer(c, b), world.transfer(b, d)
    world.whole_run()
    world.job.drain()

    assert world.job.states([first, big, after]) == ["completed", "awaiting_approval", "received"]
    assert world.creators([small, *large]) == [b] + [c] * 4
    digest = world.read(big).digest
    world.whole_run(approve={"mid": big, "digest": digest})
    # What B got is more than the limit too.
    world.job.drain()
    world.whole_run(approve={"mid": after, "digest": world.read(after).digest})
    assert world.creators([small, *large]) == [d] * 5


def test_a_plan_that_changed_after_its_approval_is_asked_about_again(world: World) -> None:
    a, b, mid, batches, digest = _waiting(world)
    run = world.run().pull(approve={"mid": mid, "digest": digest})
    more = world.batch(created_by=a)

    summary = run.finish()

    assert summary.events == {"awaiting_approval": 1}
    event = world.read(mid)
    assert event.digest != digest
    assert (event.reason or "").endswith("; the plan has changed since it was approved")
    world.whole_run(approve={"mid": mid, "digest": event.digest})
    assert world.creators([*batches, more]) == [b] * 5


def test_each_waiting_transfer_is_asked_about_once_and_again_by_a_run_that_is_cleared(world: World) -> None:
    a, b, mid, _, digest = _waiting(world)

    (question,) = asked(world, "asks")

    assert (question["mid"], question["digest"], question["label"]) == (mid, digest, f"{a} → {b}")
    assert question["subject"] == f"Approve: {LIMIT + 1} course batches, {a} → {b}"
    assert f"Digest `{digest}`" in question["body"]
    assert 0 < question["seconds"] <= world.job.settings.approval_hours * 3600
    assert asked(world, "another", alive="asks") == []
    assert asked(world, "asks")[0]["mid"] == mid
    world.whole_run(decline={"mid": mid, "reason": "over"})
    assert asked(world, "asks") == []


def asked(world: World, run_id: str, *, alive: str = "", limit: int = 100) -> list[dict[str, Any]]:
    """What a run of the approval DAG asks while that other one is there."""
    return questions(world.job.parts, run_id=run_id, asks=lambda run: run == alive, limit=limit)


def test_a_transfer_whose_run_was_deleted_before_the_answer_is_asked_about_again_once(world: World) -> None:
    _, _, mid, _, _ = _waiting(world)
    parts = world.job.parts
    assert awaits_a_question(parts, lambda _: True), "no run has asked yet"
    assert [q["mid"] for q in asked(world, "deleted")] == [mid]
    assert not awaits_a_question(parts, lambda run: run == "deleted")

    assert awaits_a_question(parts, lambda _: False)
    assert [q["mid"] for q in asked(world, "again")] == [mid]

    assert not awaits_a_question(parts, lambda run: run == "again")
    assert asked(world, "third", alive="again") == []
    world.whole_run(decline={"mid": mid, "reason": "over"})
    assert not awaits_a_question(parts, lambda _: False)


def test_a_transfer_that_is_about_to_be_declined_is_not_asked_about_again(world: World) -> None:
    _, _, mid, _, _ = _waiting(world)
    assert asked(world, "ended")
    world.execute(
        "UPDATE event SET awaits_until = to_timestamp(:ms / 1000.0) WHERE mid = :mid",
        ms=now_ms() - 1,
        mid=mid,
    )

    assert not awaits_a_question(world.job.parts, lambda _: False)

    world.make_due(mid)
    world.whole_run()


def test_more_transfers_than_airflow_maps_are_asked_about_by_one_run_after_the_other(world: World) -> None:
    first, second = _waiting(world)[2], _waiting(world)[2]

    assert [q["mid"] for q in asked(world, "one", limit=1)] == [first]
    assert [q["mid"] for q in asked(world, "one", limit=1)] == [first], "cleared, it asks the same"
    assert awaits_a_question(world.job.parts, lambda run: run == "one")
    assert [q["mid"] for q in asked(world, "two", alive="one", limit=1)] == [second]

    for mid in (first, second):
        world.whole_run(decline={"mid": mid, "reason": "over"})


def test_another_digest_is_no_approval(world: World) -> None:
    a, _, mid, batches, digest = _waiting(world)

    with pytest.raises(
        ConfError, match=f"approve: digest: is not that of the plan of {mid}, which is {digest}"
    ):
        world.run().pull(approve={"mid": mid, "digest": "0" * 20})

    assert world.state(mid) == "awaiting_approval"
    assert world.creators(batches) == [a] * 4
    world.whole_run(decline={"mid": mid, "reason": "over"})


def test_only_what_awaits_an_approval_is_approved_or_declined(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    run = world.run().pull().lookup()

    approved = world.run().pull(approve={"mid": mid, "digest": "0" * 20}).pulled
    declined = world.run().pull(decline={"mid": mid, "reason": "no"}).pulled
    assert approved.notes == declined.notes == {mid: "is planned and awaits no approval"}
    # It goes on, which is not what the second of them wants.
    assert (approved.refused, declined.refused) == ({}, declined.notes)
    # The holder was not disturbed.
    assert run.update().reindex().settle().events == {"completed": 1}
    assert world.owners(batch) == (b, ())


def test_a_dry_run_needs_no_approval_and_an_executed_plan_does(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(LIMIT + 1, created_by=a)
    run = world.run().pull(form=world.form(a, b, dry_run=True))
    (plan,) = run.finish().plans
    assert plan.state == "rehearsed"

    run = world.run().pull(execute_plan=plan.mid, digest=plan.digest)
    assert run.finish().events == {"awaiting_approval": 1}
    mid = f"execute:{run.run_id}"
    summary = world.whole_run(approve={"mid": mid, "digest": world.read(mid).digest})

    assert summary.events == {"completed": 1}
    assert world.creators(batches) == [b] * 4


def test_an_approval_whose_answer_is_lost_can_be_given_again(world: World) -> None:
    _, b, mid, batches, digest = _waiting(world)
    parts = world.job.parts
    order = Approve(mid=mid, digest=digest)
    assert approve(parts, order, run_id="dies", by="tester") == "was approved by tester"

    assert approve(parts, order, run_id="again", by="tester") == "is received and awaits no approval"

    assert world.whole_run().events == {"completed": 1}
    assert world.creators(batches) == [b] * 4
