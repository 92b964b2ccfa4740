"""What a phase does to a row: move it on within its scope, or take earlier changes back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ownership.effects import MOST_HOPS, Moving, undoing
from ownership.events import Transfer
from ownership.lanes import compose
from ownership.plan import (
    ALREADY,
    CHANGED_ELSEWHERE,
    GONE,
    NOT_LIVE,
    BatchId,
    Hop,
    Row,
    Scope,
    changed_role,
    hops,
    is_back,
    taken_back,
)
from tests.unit.replay import events, replay, row, rows, transfers

CREATED, MENTORED = frozenset({"created"}), frozenset({"mentored"})


def moving(*pairs: str, **scope: object) -> Moving:
    todo = transfers(*pairs)
    moves: dict[str, str] = {}
    for e in todo:
        moves = compose(moves, e)
    return Moving(todo, moves, Scope(**scope))  # type: ignore[arg-type]


def hop(before: Row, after: Row, mid: str = "u") -> Hop:
    return Hop(mid, before, after)


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
    effect = moving("ab", **scope)
    before = row("a", "xa")
    assert effect.after(before) == after
    if after != before:
        assert effect.steps(before, after) == [Hop("m00", before, after)]
    assert effect.planned_by(before.id, before, ()) == (["m00"] if after != before else [])


def test_a_batch_is_planned_by_the_event_that_first_moves_it_also_if_only_its_document_names_the_old_user() -> (
    None
):
    effect = moving("ab", "bc")
    assert effect.planned_by(row("b").id, row("b"), ()) == ["m01"]
    assert effect.planned_by(row("x").id, row("x"), {"a"}) == ["m00"]
    assert effect.planned_by(row("x").id, None, {"a"}) == ["m00"]
    assert effect.planned_by(row("x").id, row("x"), {"y"}) == []


@pytest.mark.parametrize(
    ("found", "outcome"),
    [(None, GONE), (row("a", status=2), NOT_LIVE), (row("b"), ALREADY), (row("x"), CHANGED_ELSEWHERE)],
)
def test_what_a_planned_batch_is_where_a_transfer_changed_nothing(found: Row | None, outcome: str) -> None:
    assert moving("ab").unmoved("m00", BatchId("course", "batch-0"), found) == outcome


# --- taking back


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
    assert taken_back(hop(row("a", "xa"), row("b", "xb")), now) == then


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
    assert taken_back(hop(*change), now) == then


@given(rows, rows, rows)
def test_taking_back_restores_what_it_finds_and_twice_is_once(before: Row, after: Row, now: Row) -> None:
    assume(before.owners != after.owners)
    change = hop(before, after)
    assert taken_back(change, after).owners == before.owners
    assert is_back(change, before)
    then = taken_back(change, now)
    assert then == now or is_back(change, then)


@given(events(5, proper=True), rows)
def test_the_hops_of_a_transfer_taken_back_newest_first_give_the_row_back(
    todo: list[Transfer], before: Row
) -> None:
    after = replay(todo, before)
    steps = hops(todo, before, after)
    effect = undoing(h._replace(mid=f"undo-{h.mid}") for h in reversed(steps))
    told = effect.steps(after, effect.after(after))
    assert effect.after(after) == before
    # Each undo has its own share, one after the other.
    assert [h.mid for h in told] == [f"undo-{h.mid}" for h in reversed(steps)]
    assert all(one.after == next_.before for one, next_ in pairwise(told))


@given(st.lists(st.tuples(rows, rows), min_size=1, max_size=4))
def test_undos_that_are_done_together_are_idempotent_on_every_value_that_they_know(
    changes: list[tuple[Row, Row]],
) -> None:
    effect = undoing(hop(*pair, mid=f"u{n}") for n, pair in enumerate(changes))
    assume(effect.closed())
    for seen in (r for pair in changes for r in pair):
        once = effect.after(seen)
        assert effect.after(once) == once


def test_undos_of_which_a_second_try_would_do_more_are_not_done_in_one_go() -> None:
    walk = [hop(row("b"), row("a"), "u0"), hop(row("a"), row("c"), "u1")]  # c becomes a, and then b
    assert undoing(walk[:1]).closed()
    assert undoing(reversed(walk)).closed()
    assert not undoing(walk).closed()


def test_too_many_changes_of_one_row_are_not_taken_back_in_one_go() -> None:
    chain = [hop(row(f"u{n}"), row(f"u{n + 1}")) for n in range(MOST_HOPS + 1)]
    assert undoing(reversed(chain[:-1])).closed()
    assert not undoing(reversed(chain)).closed()


@pytest.mark.parametrize(
    ("found", "outcome"),
    [(None, GONE), (row("a"), ALREADY), (row("x"), CHANGED_ELSEWHERE), (row("b", "y"), CHANGED_ELSEWHERE)],
)
def test_what_a_batch_is_where_an_undo_changed_nothing(found: Row | None, outcome: str) -> None:
    effect = undoing([hop(row("a"), row("b"))])
    assert effect.unmoved("u", row("a").id, found) == outcome


def test_an_undo_searches_nobody_and_knows_its_batches() -> None:
    effect = undoing([hop(row("a"), row("b"))])
    assert effect.sources == frozenset()
    assert set(effect.ids) == {row("a").id}
    assert effect.planned_by(row("a").id, None, ()) == ["u"]
    assert effect.planned_by(BatchId("course", "other"), row("a"), ()) == []
