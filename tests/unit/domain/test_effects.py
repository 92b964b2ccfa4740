"""What a phase does to a row: move it on within its scope, or take earlier changes back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ownership.domain.effects import MAX_HOPS, TransferEffect, undo_effect
from ownership.domain.event import Transfer
from ownership.domain.lanes import compose, phase
from ownership.domain.options import PLAIN, Asset, Options
from ownership.domain.plan import EVERYTHING, BatchId, Given, Hop, Row, Scope, changed_role, hops, revert
from ownership.domain.states import BatchOutcome
from tests.unit.replay import events, gifts, mixed_events, mixed_rows, replay, row, rows, transfers

CREATED, MENTORED = frozenset({"created"}), frozenset({"mentored"})

statuses = st.sampled_from([0, 1, 2, None])
any_rows = st.builds(lambda found, status: found._replace(status=status), mixed_rows, statuses)
roles = st.sampled_from([CREATED, MENTORED, CREATED | MENTORED])
scopes = st.builds(
    Scope,
    roles,
    st.frozensets(st.sampled_from([0, 1]), min_size=1),
    st.sampled_from([frozenset(), frozenset({"course"}), frozenset({"other"})]),
    st.sampled_from([None, frozenset(), frozenset({row("a").id})]),
    st.sampled_from([None, row("a").id.batch_id, "other"]),
    st.none(),
)
given_later = st.dictionaries(st.just(row("a").id), gifts)
proper_events = mixed_events.map(lambda todo: [e for e in todo if len(e.users) == 2])


def transfer_effect(*pairs: str, **scope: Any) -> TransferEffect:
    todo = transfers(*pairs)
    moves: dict[str, str] = {}
    for e in todo:
        moves = compose(moves, e)
    return TransferEffect(todo, moves, Scope(**scope))


def hop(before: Row, after: Row, mid: str = "u") -> Hop:
    return Hop(mid, before, after)


def moving_together(todo: list[Transfer], scope: Scope = EVERYTHING, **more: Any) -> TransferEffect:
    """The effect of the first phase of `todo`."""
    chosen, moves = phase(todo, lambda _: False, limit=9)
    return TransferEffect(chosen, moves, scope, **more)


# --- moving, restricted


@pytest.mark.parametrize(
    ("scope", "after"),
    [
        pytest.param({}, row("b", "xb"), id="everything"),
        pytest.param({"roles": CREATED}, row("b", "xa"), id="created"),
        pytest.param({"roles": MENTORED}, row("a", "xb"), id="mentored"),
        pytest.param({"statuses": frozenset({1})}, row("b", "xb"), id="its status"),
        pytest.param({"statuses": frozenset({0})}, row("a", "xa"), id="another status"),
        pytest.param({"courses": frozenset({"course"})}, row("b", "xb"), id="its course"),
        pytest.param({"courses": frozenset({"other"})}, row("a", "xa"), id="another course"),
        pytest.param({"only": frozenset({row("a").id})}, row("b", "xb"), id="in the plan"),
        pytest.param({"only": frozenset()}, row("a", "xa"), id="not in the plan"),
    ],
)
def test_a_transfer_changes_a_row_within_its_scope_only(scope: dict[str, object], after: Row) -> None:
    effect = transfer_effect("ab", **scope)
    before = row("a", "xa")
    assert effect.apply(before) == after
    if after != before:
        assert effect.hops(before, after) == [Hop("m00", before, after)]
    assert effect.planned_by(before.id, before, ()) == (["m00"] if after != before else [])


def test_a_batch_is_planned_by_the_event_that_first_moves_it_also_if_only_its_document_names_the_old_user() -> (
    None
):
    effect = transfer_effect("ab", "bc")
    assert effect.planned_by(row("b").id, row("b"), ()) == ["m01"]
    assert effect.planned_by(row("x").id, row("x"), {"a"}) == ["m00"]
    assert effect.planned_by(row("x").id, None, {"a"}) == ["m00"]
    assert effect.planned_by(row("x").id, row("x"), {"y"}) == []


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (None, BatchOutcome.GONE),
        (row("a", status=2), BatchOutcome.NOT_LIVE),
        (row("b"), BatchOutcome.ALREADY),
        (row("B"), BatchOutcome.ALREADY),
        (row("x", "yb"), BatchOutcome.ALREADY),
        (row("x"), BatchOutcome.CHANGED_ELSEWHERE),
    ],
)
def test_what_a_planned_batch_is_where_a_transfer_changed_nothing(found: Row | None, outcome: str) -> None:
    for effect in (transfer_effect("ab"), transfer_effect("aB")):
        assert effect.unmoved_outcome("m00", BatchId("course", "batch-0"), found) == outcome


def test_a_batch_that_came_back_to_its_first_user_is_where_it_should_be() -> None:
    effect = transfer_effect("ab", "bc", "ca")
    assert effect.unmoved_outcome("m01", row("a").id, row("a")) == BatchOutcome.ALREADY
    assert effect.unmoved_outcome("m01", row("a").id, row("b")) == BatchOutcome.CHANGED_ELSEWHERE


def test_transfers_search_the_users_whose_batches_move_away_and_know_no_batch_beforehand() -> None:
    effect = transfer_effect("ab", "BA", "cA")
    assert effect.sources == {"b", "c"}
    assert not effect.ids


def test_options_say_the_scope_and_an_event_from_the_topic_has_no_bounds() -> None:
    assert PLAIN.scope == Options(dry_run=True).scope == Options(undo_of="m").scope == EVERYTHING
    options = Options(roles=("mentored",), statuses=(0,), course_ids=("c", "d"))
    assert options.scope == Scope(MENTORED, frozenset({0}), frozenset({"c", "d"}))


def test_an_asset_is_the_one_batch_that_its_options_reach() -> None:
    options = PLAIN.about(Asset(kind="Course Batch", batch_id="b1"))
    assert (options.whole, options.composable) == (False, True)
    assert Options(dry_run=True).about(options.asset).composable is False
    assert options.scope == EVERYTHING._replace(batch_id="b1")
    assert options.scope.reaches(BatchId("any course", "b1"))
    assert not options.scope.reaches(BatchId("any course", "b2"))
    assert Options.of(options.to_json()) == options
    assert options.about(None) == PLAIN
    assert options.scope.meets(EVERYTHING)
    assert not options.scope.meets(EVERYTHING._replace(batch_id="b2"))


@pytest.mark.parametrize(
    ("created_for", "covered"),
    [
        pytest.param((), True, id="none is named"),
        pytest.param(("",), True, id="an empty one"),
        pytest.param((" ", "\t"), True, id="blank ones"),
        pytest.param((" ", "another"), False, id="a blank one and another"),
        pytest.param(("org",), True, id="the event's"),
        pytest.param(("another", " ORG "), True, id="the event's among others, in another spelling"),
        pytest.param(("another",), False, id="another"),
        pytest.param(("organisation",), False, id="one that begins like it"),
    ],
)
def test_a_batch_of_another_organisation_is_out_of_a_scope_that_names_one(
    created_for: tuple[str, ...], covered: bool
) -> None:
    scope = EVERYTHING._replace(organisation="org")
    before = row("a")._replace(created_for=created_for)
    effect = moving_together(transfers("ab"), scope)
    assert scope.covers(before) is covered
    assert effect.apply(before).created_by == ("b" if covered else "a")
    assert effect.apply(before).created_for == created_for
    assert effect.planned_by(before.id, before, ()) == (["m00"] if covered else [])
    assert EVERYTHING.covers(before)


@given(proper_events, any_rows, scopes)
def test_a_restricted_phase_does_its_part_of_what_the_whole_one_does_and_nothing_else(
    todo: list[Transfer], before: Row, scope: Scope
) -> None:
    after, whole = (moving_together(todo, s).apply(before) for s in (scope, EVERYTHING))
    concerned = (
        before.status in scope.statuses
        and (not scope.courses or before.id.course_id in scope.courses)
        and (scope.only is None or before.id in scope.only)
        and scope.batch_id in (None, before.id.batch_id)
    )
    creator = whole.created_by if concerned and "created" in scope.roles else before.created_by
    mentors = whole.mentors if concerned and "mentored" in scope.roles else before.mentors
    assert after == before._replace(created_by=creator, mentors=mentors)
    if before.status not in (0, 1):
        assert whole == before


@given(proper_events, mixed_rows, roles, given_later)
def test_a_phase_in_any_role_is_idempotent_and_reported_step_by_step(
    todo: list[Transfer], before: Row, own: frozenset[str], kept: dict[BatchId, Given]
) -> None:
    effect = moving_together(todo, Scope(own), given=kept)
    after = effect.apply(before)
    assert effect.apply(after) == after
    if after == before:
        return
    steps = effect.hops(before, after)
    assert (steps[0].before, steps[-1].after) == (before, after)
    assert all(one.after == next_.before for one, next_ in pairwise(steps))
    for step in steps:
        assert set(changed_role(step).split("+")) <= own


def test_the_steps_of_a_restricted_chain_are_restricted_too() -> None:
    effect = transfer_effect("ab", "bc", roles=CREATED)
    before, between, after = row("a", "ab"), row("b", "ab"), row("c", "ab")
    assert effect.apply(before) == after
    assert effect.hops(before, after) == [Hop("m00", before, between), Hop("m01", between, after)]


def test_a_change_that_a_later_transfer_was_folded_into_is_reported_as_the_event_s_that_moves_the_batch() -> (
    None
):
    todo = transfers("ab", "de")
    effect = TransferEffect(todo, {"a": "c", "b": "b", "d": "e", "e": "e"})
    assert effect.hops(row("a"), row("c")) == [Hop("m00", row("a"), row("c"))]


def test_a_user_keeps_the_one_batch_that_a_later_transfer_gave() -> None:
    of_later, other = row("a", "ca"), row("a", "ca", n=1)
    moves = {"a": "b", "b": "b", "c": "d", "d": "d"}
    both = Given(created=frozenset("a"), mentored=frozenset("a"))
    effect = TransferEffect(transfers("cd", "ab"), moves, given={of_later.id: both})
    after = effect.apply(of_later)
    assert after == row("a", "da")
    assert effect.hops(of_later, after) == [Hop("m00", of_later, after)]
    assert effect.apply(other) == row("b", "db", n=1)
    # It is planned all the same, so that its outcome is made.
    assert effect.planned_by(of_later.id, row("a"), ()) == ["m01"]


@pytest.mark.parametrize(
    ("found", "named", "planned"),
    [
        pytest.param(row("a"), "", True, id="what it changes"),
        pytest.param(row("x", "a"), "", False, id="owned in another role"),
        pytest.param(row("x", "a"), "a", False, id="also as its document says"),
        pytest.param(row("b"), "a", True, id="moved already, with its document to follow"),
        pytest.param(None, "a", True, id="gone, with its document still there"),
        pytest.param(row("a", status=2), "a", True, id="no longer live"),
        pytest.param(row("x"), "y", False, id="a document of somebody else"),
    ],
)
def test_a_restricted_transfer_plans_what_it_changes_or_has_to_explain(
    found: Row | None, named: str, planned: bool
) -> None:
    for only in (None, frozenset({row("a").id})):
        effect = transfer_effect("ab", roles=CREATED, only=only)
        assert effect.planned_by(row("a").id, found, set(named)) == (["m00"] if planned else [])


@pytest.mark.parametrize(
    "scope",
    [
        pytest.param({"courses": frozenset({"other"})}, id="another course"),
        pytest.param({"only": frozenset({BatchId("course", "other")})}, id="not in the plan"),
    ],
)
def test_a_batch_out_of_reach_is_never_planned_whatever_its_row_and_document_say(
    scope: dict[str, object],
) -> None:
    for found in (None, row("a"), row("b"), row("a", status=2)):
        assert transfer_effect("ab", **scope).planned_by(row("a").id, found, {"a"}) == []


# --- taking back


@pytest.mark.parametrize(
    ("change", "back", "not_back"),
    [
        pytest.param(
            hop(row("a", "m"), row("b", "m")),
            [row("a", "m"), row("a", "n"), row("a", status=2)],
            [row("b", "m"), row("x", "m"), row("A", "m"), row(None, "m")],
            id="creator",
        ),
        pytest.param(
            hop(row("x", "ya"), row("x", "yb")),
            [row("x", "ya"), row("z", "ya")],
            [row("x", "yb"), row("x", "ay"), row("x", "y"), row("x", "yaz")],
            id="mentors",
        ),
        pytest.param(
            hop(row("a", "a"), row("b", "b")),
            [row("a", "a")],
            [row("a", "b"), row("b", "a"), row("b", "b"), row("x", "x")],
            id="creator and mentors",
        ),
    ],
)
def test_a_change_is_back_if_all_that_it_touched_is_as_before_it(
    change: Hop, back: list[Row], not_back: list[Row]
) -> None:
    effect = undo_effect([change])
    assert [
        r for r in (*back, *not_back) if effect.unmoved_outcome("u", r.id, r) == BatchOutcome.ALREADY
    ] == back


@pytest.mark.parametrize(
    ("after", "changed"),
    [(row("b", "x"), "created"), (row("a", "y"), "mentored"), (row("b", "y"), "created+mentored"), (row("a", "x", 0), "")],
)  # fmt: skip
def test_what_a_change_touched_is_reported_by_role(after: Row, changed: str) -> None:
    assert changed_role(hop(row("a", "x"), after)) == changed


@pytest.mark.parametrize(
    ("now", "then"),
    [
        pytest.param(row("b", "xb"), row("a", "xa"), id="as it was left"),
        pytest.param(row("c", "xb"), row("c", "xb"), id="another creator since"),
        pytest.param(row("b", "xbc"), row("b", "xbc"), id="another mentor since"),
        pytest.param(row("a", "xa"), row("a", "xa"), id="back already"),
        pytest.param(row("b", "xb", status=2), row("a", "xa", status=2), id="completed since"),
    ],
)
def test_a_change_is_taken_back_only_where_the_row_still_is_as_it_left_it(now: Row, then: Row) -> None:
    assert revert(hop(row("a", "xa"), row("b", "xb")), now) == then


@pytest.mark.parametrize(
    ("change", "now", "then", "changed"),
    [
        pytest.param((row("a", "x"), row("b", "x")), row("b", "xy"), row("a", "xy"), "created", id="creator"),
        pytest.param((row("x", "a"), row("x", "b")), row("y", "b"), row("y", "a"), "mentored", id="mentors"),
    ],
)
def test_what_the_change_did_not_touch_does_not_stand_in_its_way(
    change: tuple[Row, Row], now: Row, then: Row, changed: str
) -> None:
    assert changed_role(hop(*change)) == changed
    assert revert(hop(*change), now) == then


@given(rows, rows, rows)
def test_taking_back_restores_what_it_finds_and_twice_is_once(before: Row, after: Row, now: Row) -> None:
    assume(before.owners != after.owners)
    change = hop(before, after)
    assert revert(change, after).owners == before.owners
    then = revert(change, now)
    assert revert(change, then) == then or then == now
    assert all(getattr(then, f) in (getattr(now, f), getattr(before, f)) for f in ("created_by", "mentors"))


@given(events(5, proper=True), rows)
def test_the_hops_of_a_transfer_taken_back_newest_first_give_the_row_back(
    todo: list[Transfer], before: Row
) -> None:
    after = replay(todo, before)
    steps = hops(todo, before, after)
    effect = undo_effect(h._replace(mid=f"undo-{h.mid}") for h in reversed(steps))
    made = effect.hops(after, effect.apply(after))
    assert effect.apply(after) == before
    # Each undo has its own share, one after the other.
    assert [h.mid for h in made] == [f"undo-{h.mid}" for h in reversed(steps)]
    assert all(one.after == next_.before for one, next_ in pairwise(made))


@given(proper_events, mixed_rows, roles, given_later)
def test_whatever_a_phase_did_its_undos_give_back_to_the_letter(
    todo: list[Transfer], before: Row, own: frozenset[str], kept: dict[BatchId, Given]
) -> None:
    moved = moving_together(todo, Scope(own), given=kept)
    after = moved.apply(before)
    if after == before:
        return
    undo = undo_effect(reversed(moved.hops(before, after)))
    assert undo.apply(after) == before
    assert undo.apply(after._replace(status=2)) == before._replace(status=2)
    for mid in undo.planned_by(before.id, before, ()):
        assert undo.unmoved_outcome(mid, before.id, before) == BatchOutcome.ALREADY


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=4), rows)
def test_an_undo_writes_nothing_but_what_its_changes_found(changes: list[tuple[Row, Row]], now: Row) -> None:
    effect = undo_effect(hop(*pair, mid=f"u{n}") for n, pair in enumerate(changes))
    then = effect.apply(now)
    assert then.created_by in {now.created_by, *(before.created_by for before, _ in changes)}
    assert then.mentors in {now.mentors, *(before.mentors for before, _ in changes)}
    made = effect.hops(now, then)
    assert [made[0].before, made[-1].after] == [now, then] if made else now == then
    assert all(h.before != h.after for h in made)


A_TO_B, B_TO_C = hop(row("a"), row("b"), "u0"), hop(row("b"), row("c"), "u1")
CHAIN = undo_effect([B_TO_C, A_TO_B])
"""Two transfers, taken back newest first."""


@pytest.mark.parametrize(
    ("found", "then", "outcomes"),
    [
        pytest.param(row("c", "y"), row("a", "y"), {"u1": "moved", "u0": "moved"}, id="both as they were left"),
        pytest.param(row("b"), row("a"), {"u1": BatchOutcome.ALREADY, "u0": "moved"}, id="the newer one is back"),
        pytest.param(row("a"), row("a"), {"u1": BatchOutcome.ALREADY, "u0": BatchOutcome.ALREADY}, id="both are back"),
        pytest.param(row("x"), row("x"), {"u1": BatchOutcome.CHANGED_ELSEWHERE, "u0": BatchOutcome.CHANGED_ELSEWHERE}, id="somebody else's"),
    ],
)  # fmt: skip
def test_of_a_chain_each_undo_has_its_own_outcome(found: Row, then: Row, outcomes: dict[str, str]) -> None:
    assert CHAIN.apply(found) == then
    made = {h.mid for h in CHAIN.hops(found, then)}
    assert made == {mid for mid, outcome in outcomes.items() if outcome == "moved"}
    for mid, outcome in outcomes.items():
        assert mid in made or CHAIN.unmoved_outcome(mid, found.id, found) == outcome
        assert CHAIN.unmoved_outcome(mid, found.id, None) == BatchOutcome.GONE


def test_a_batch_that_somebody_changed_keeps_no_other_from_being_given_back() -> None:
    effect = undo_effect(hop(row("a", n=n), row("b", n=n), f"u{n % 2}") for n in range(3))
    now = [row("b"), row("x", n=1), row("b", n=2), row("b", n=3)]
    assert [effect.apply(r) for r in now] == [row("a"), row("x", n=1), row("a", n=2), row("b", n=3)]
    assert list(effect.ids) == [r.id for r in now[:3]]


def test_undos_of_the_creator_and_of_the_mentors_do_not_wait_for_each_other() -> None:
    effect = undo_effect([hop(row("a", "m"), row("b", "m"), "u0"), hop(row("b", "m"), row("b", "n"), "u1")])
    assert effect.apply(row("b", "n")) == row("a", "m")
    assert [h.mid for h in effect.hops(row("b", "x"), row("a", "x"))] == ["u0"]
    assert effect.unmoved_outcome("u1", row("b").id, row("a", "x")) == BatchOutcome.CHANGED_ELSEWHERE
    assert [h.mid for h in effect.hops(row("x", "n"), row("x", "m"))] == ["u1"]


def test_a_batch_is_planned_once_by_every_event_that_takes_a_change_of_it_back() -> None:
    effect = undo_effect(
        [B_TO_C, hop(row("x", "a"), row("x", "b"), "u1"), A_TO_B, hop(row("d", n=1), row("e", n=1))]
    )
    assert effect.planned_by(row("a").id, row("a"), {"a"}) == ["u1", "u0"]


def test_undos_are_done_in_one_go_only_if_they_are_idempotent_on_every_batch() -> None:
    again = [hop(row("b"), row("a"), "u0"), hop(row("a"), row("c"), "u1")]
    single = [hop(row("a", n=1), row("b", n=1), "u0")]
    assert undo_effect(single).is_idempotent()
    assert not undo_effect([*again, *single]).is_idempotent()
    assert not undo_effect([*single, *again]).is_idempotent()


def test_undos_that_would_go_on_only_from_a_mixture_of_their_values_are_not_done_in_one_go() -> None:
    # Creator b with mentor q occurs in none of them; there the second makes p of q, and the first goes on.
    walk = [hop(row("a", "o"), row("b", "p"), "u0"), hop(row("c", "p"), row("c", "q"), "u1")]
    assert [undo_effect(walk).apply(r) for r in (row("a", "o"), row("c", "q"))] == [
        row("a", "o"),
        row("c", "p"),
    ]
    assert not undo_effect(walk).is_idempotent()


def test_undos_of_which_a_second_try_would_do_more_are_not_done_in_one_go() -> None:
    walk = [hop(row("b"), row("a"), "u0"), hop(row("a"), row("c"), "u1")]  # c becomes a, and then b
    assert undo_effect(walk[:1]).is_idempotent()
    assert undo_effect(reversed(walk)).is_idempotent()
    assert not undo_effect(walk).is_idempotent()


@pytest.mark.parametrize(
    ("walk", "now"),
    [
        pytest.param(
            [
                (row("b", "q"), row("a", "p")),
                (row("a", "q"), row("b", "p")),
                (row("b", "q"), row("b", "pq")),
                (row("a", "pq"), row("a", "p")),
            ],
            row("x", "p"),
            id="an unknown creator",
        ),
        pytest.param(
            [
                (row("q", "b"), row("p", "a")),
                (row("q", "a"), row("p", "b")),
                (row("q", "b"), row("r", "b")),
                (row("r", "a"), row("p", "a")),
            ],
            row("p", "x"),
            id="unknown mentors",
        ),
    ],
)
def test_undos_are_not_done_in_one_go_where_a_second_try_would_do_more_to_a_row_that_none_of_them_knows(
    walk: list[tuple[Row, Row]], now: Row
) -> None:
    effect = undo_effect(hop(*pair, mid=f"u{n}") for n, pair in enumerate(walk))
    once = effect.apply(now)
    assert effect.apply(once) != once
    assert not effect.is_idempotent()


def test_too_many_changes_of_one_row_are_not_taken_back_in_one_go() -> None:
    chain = [hop(row(f"u{n}"), row(f"u{n + 1}")) for n in range(MAX_HOPS + 1)]
    assert undo_effect(reversed(chain[:-1])).is_idempotent()
    assert not undo_effect(reversed(chain)).is_idempotent()


def test_an_undo_searches_nobody_and_knows_its_batches() -> None:
    effect = undo_effect([hop(row("a"), row("b"))])
    assert effect.sources == frozenset()
    assert set(effect.ids) == {row("a").id}
    assert effect.planned_by(row("a").id, None, ()) == ["u"]
    assert effect.planned_by(BatchId("course", "other"), row("a"), ()) == []


def test_an_undo_whose_field_was_edited_is_a_conflict_although_another_s_change_is_back() -> None:
    effect = undo_effect([hop(row("a", "d"), row("c", "d"), "u2"), hop(row("a", "c"), row("a", "d"), "u1")])
    now = effect.apply(row("x", "d"))  # somebody gave the batch to x
    assert now == row("x", "c")
    assert effect.unmoved_outcome("u1", now.id, now) == BatchOutcome.ALREADY
    assert effect.unmoved_outcome("u2", now.id, now) == BatchOutcome.CHANGED_ELSEWHERE


def test_a_field_is_back_only_by_a_change_of_that_field() -> None:
    # Between the two transfers somebody gave the batch from z to a, and now it is z's again.
    effect = undo_effect([hop(row("a", "n"), row("b", "n"), "u2"), hop(row("z", "m"), row("z", "n"), "u1")])
    now = effect.apply(row("z", "n"))
    assert now == row("z", "m")
    assert effect.unmoved_outcome("u1", now.id, now) == BatchOutcome.ALREADY
    assert effect.unmoved_outcome("u2", now.id, now) == BatchOutcome.CHANGED_ELSEWHERE


def test_two_changes_that_one_event_made_to_a_row_are_one_share_of_its_undo() -> None:
    effect = undo_effect([hop(row("b", "a"), row("b", "b")), hop(row("a", "a"), row("b", "a"))])
    assert effect.hops(row("b", "b"), row("a", "a")) == [hop(row("b", "b"), row("a", "a"))]


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=4), rows)
def test_undos_that_are_done_together_are_idempotent_on_any_row(
    changes: list[tuple[Row, Row]], other: Row
) -> None:
    effect = undo_effect(hop(*pair, mid=f"u{n}") for n, pair in enumerate(changes))
    assume(effect.is_idempotent())
    for now in (other, *(r for pair in changes for r in pair)):
        once = effect.apply(now)
        assert effect.apply(once) == once


def test_an_event_that_changed_a_row_twice_is_back_only_if_both_changes_are() -> None:
    effect = undo_effect([hop(row("a", "y"), row("a", "z")), hop(row("a", "y"), row("b", "y"))])
    assert effect.unmoved_outcome("u", row("a").id, row("a", "y")) == BatchOutcome.ALREADY
    assert effect.unmoved_outcome("u", row("a").id, row("a", "w")) == BatchOutcome.CHANGED_ELSEWHERE
    assert effect.unmoved_outcome("u", row("a").id, row("x", "y")) == BatchOutcome.CHANGED_ELSEWHERE
