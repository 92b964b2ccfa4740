"""The fault suite's world and oracle: the same for a seed, by hand where it matters, and one that can say no."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from chaos.oracle import Expected, expected, states, wrong_owners
from chaos.worlds import ORGANISATION, Edit, World, event_of, random_world
from local.demo.story import COMPLETED, REJECTED, SKIPPED, Message
from local.platform.stores import Owners
from local.platform.world import Batch, User, transfer_event

A, B, C, D = (User(f"User-{x}", ORGANISATION) for x in "ABCD")


GONE = User("User-A", ORGANISATION, deleted=True)


def transfer(old: User, new: User, expected: str = COMPLETED, **event: Any) -> Message:
    value = transfer_event(old, new, ORGANISATION, **event)
    return Message("a transfer", expected, value, old.user_id, new.user_id)


def of_batch(name: str) -> dict[str, str]:
    return {"objectType": "Course Batch", "identifier": name}


def world(batch: Batch, *messages: Message, edit: Edit | None = None) -> World:
    return World("t", [A, B, C, D], [batch], [list(messages)], {batch.batch_id: edit} if edit else {})


def batch(*mentors: str, created_by: str = "User-A", status: int = 1) -> Batch:
    return Batch("c", "b", created_by=created_by, mentors=mentors, status=status)


def owners_of(made: World) -> Expected:
    return expected(made)["b"]


@pytest.mark.parametrize(
    ("made", "created_by", "mentors"),
    [
        pytest.param(world(batch("User-C"), transfer(A, B)), "User-B", ("User-C",), id="one transfer"),
        pytest.param(world(batch(), transfer(A, B), transfer(B, C)), "User-C", (), id="a chain"),
        pytest.param(world(batch(), transfer(B, C), transfer(A, B)), "User-B", (), id="the other way round"),
        pytest.param(world(batch(), transfer(A, B), transfer(B, A)), "User-A", (), id="there and back"),
        pytest.param(
            world(batch("x", "User-A", "y", "User-B"), transfer(A, B)),
            "User-B",
            ("x", "User-B", "y"),
            id="once each",
        ),
        pytest.param(
            world(batch("x", "x"), transfer(A, B)), "User-B", ("x", "x"), id="repeats of others stay"
        ),
        pytest.param(world(batch(created_by="user-a"), transfer(A, B)), "User-B", (), id="case is ignored"),
        pytest.param(
            world(batch(), transfer(A, D, SKIPPED)), "User-A", (), id="an invalid one moves nothing"
        ),
        pytest.param(world(batch(status=2), transfer(A, B)), "User-A", (), id="a completed batch stays"),
        pytest.param(
            world(batch("User-A"), transfer(A, B), edit=Edit.OWNER),
            "lms-t",
            ("User-B",),
            id="the LMS's owner stays",
        ),
    ],
)
def test_a_replay_by_hand(made: World, created_by: str, mentors: tuple[str, ...]) -> None:
    assert owners_of(made) == Expected((Owners(created_by, mentors),))


@pytest.mark.parametrize(
    ("created_for", "moves"),
    [((), True), ((ORGANISATION,), True), (("other", ORGANISATION), True), (("other",), False)],
)
def test_a_deleted_users_batches_move_within_the_organisation(
    created_for: tuple[str, ...], moves: bool
) -> None:
    made = replace(batch(), created_for=created_for)
    for giver, expected_owner in ((GONE, "User-B" if moves else "User-A"), (A, "User-B")):
        one = replace(world(made, transfer(giver, B)), users=[giver, B])
        assert owners_of(one) == Expected((Owners(expected_owner, ()),))


def test_an_event_of_one_batch_moves_that_one_and_the_rest_waits_for_the_next() -> None:
    assert owners_of(world(batch(), transfer(A, B, asset=of_batch("another")))).owners == (
        Owners("User-A", ()),
    )
    assert owners_of(world(batch(), transfer(A, B, asset=of_batch("b")))).owners == (Owners("User-B", ()),)
    chain = world(batch(), transfer(A, B, asset=of_batch("another")), transfer(A, C))
    assert owners_of(chain).owners == (Owners("User-C", ()),)


def test_a_message_that_was_sent_twice_counts_once() -> None:
    first = transfer(A, B)
    assert owners_of(world(batch(), first, transfer(B, A), first)).owners == (Owners("User-A", ()),)


def test_a_batch_that_is_completed_meanwhile_may_be_as_after_any_event() -> None:
    made = world(batch(), transfer(A, B), transfer(B, C), edit=Edit.COMPLETE)
    assert set(owners_of(made).owners) == {Owners(f"User-{x}", ()) for x in "ABC"}


def test_a_batch_that_is_completed_meanwhile_may_be_as_after_any_events_that_share_no_user_with_earlier_ones() -> (
    None
):
    made = world(batch("User-C"), transfer(A, B), transfer(C, D), transfer(B, C), edit=Edit.COMPLETE)
    seen = {(o.created_by[-1], *(m[-1] for m in o.mentors)) for o in owners_of(made).owners if o.created_by}
    assert seen == {("A", "C"), ("B", "C"), ("A", "D"), ("B", "D"), ("C", "D")}


def test_a_deleted_batch_is_gone_from_both_stores() -> None:
    made = world(batch(), transfer(A, B), edit=Edit.DELETE)
    assert wrong_owners(made, {"b": None}, {"b": None}) == []
    (difference,) = wrong_owners(made, {"b": None}, {"b": Owners("User-A", ())})[:1]
    assert "document of b is back" in difference


def test_what_is_wrong_is_reported_for_each_store() -> None:
    made = world(batch(), transfer(A, B))
    right, stale = Owners("User-B", ()), Owners("User-A", ())
    assert wrong_owners(made, {"b": right}, {"b": right}) == []
    assert any("row of b has" in w for w in wrong_owners(made, {"b": stale}, {"b": right}))
    assert any("document of b has" in w for w in wrong_owners(made, {"b": right}, {"b": stale}))
    assert any("differ" in w for w in wrong_owners(made, {"b": right}, {"b": stale}))
    assert wrong_owners(made, {"b": None}, {"b": None})


@pytest.mark.parametrize("seed", [0, 7, 4711])
def test_a_seed_is_a_world(seed: int) -> None:
    one, other = random_world(seed), random_world(seed)
    assert (one.users, one.batches, one.edits) == (other.users, other.batches, other.edits)
    assert [(m.what, m.expected, m.from_user, m.to_user) for m in one.messages] == [
        (m.what, m.expected, m.from_user, m.to_user) for m in other.messages
    ]
    assert random_world(seed + 1).batches != one.batches


def test_worlds_have_everything_that_is_to_be_met() -> None:
    made = [random_world(seed) for seed in range(60)]
    kinds = Counter(m.expected for w in made for m in w.messages)
    assert set(kinds) == {COMPLETED, SKIPPED, REJECTED}
    assert kinds[COMPLETED] > kinds[SKIPPED] > kinds[REJECTED] > 0
    assert {e for w in made for e in w.edits.values()} == set(Edit)
    mids = [[event_of(m)["mid"] for m in w.messages if m.expected != REJECTED] for w in made]
    assert any(len(set(of_world)) < len(of_world) for of_world in mids)
    assert all(set(states(w)) == set(of_world) for w, of_world in zip(made, mids, strict=True))


def test_two_worlds_have_nobody_in_common() -> None:
    one, other = random_world(1), random_world(2)
    assert not {u.user_id for u in one.users} & {u.user_id for u in other.users}
    assert not {b.batch_id for b in one.batches} & {b.batch_id for b in other.batches}


def test_events_are_replayed_in_the_order_of_their_time_not_of_their_sending() -> None:
    first, second = transfer(A, B), transfer(B, C)
    made = replace(world(batch()), groups=[[second, first]])
    assert owners_of(made).owners == (Owners("User-C", ()),)
