from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ownership.events import Transfer
from ownership.lanes import phase
from ownership.plan import Row, applied, hops, role
from tests.unit.replay import USERS, events, one_transfer, row, rows, transfers

maps = st.dictionaries(st.sampled_from(USERS), st.sampled_from(USERS))
keeps = st.frozensets(st.sampled_from(USERS), max_size=2)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(row("A"), row("B"), id="creator"),
        pytest.param(row("X", "A"), row("X", "B"), id="mentor"),
        pytest.param(row("A", "XA"), row("B", "XB"), id="creator and mentor"),
        pytest.param(row("X", "AYA"), row("X", "BY"), id="a mentor listed twice"),
        pytest.param(row("X", "YAB"), row("X", "YB"), id="the new user is a mentor, behind"),
        pytest.param(row("X", "BYA"), row("X", "BY"), id="the new user is a mentor, before"),
        pytest.param(row("X", "YXY"), row("X", "YXY"), id="a list that is not concerned keeps its repeats"),
        pytest.param(row("A", "YXY"), row("B", "YXY"), id="also where the creator changes"),
        pytest.param(row(None, "A"), row(None, "B"), id="no creator"),
        pytest.param(row("X"), row("X"), id="nobody concerned"),
    ],
)
def test_a_transfer_changes_both_fields_and_keeps_the_order(before: Row, after: Row) -> None:
    assert applied({"A": "B", "B": "B"}, before) == after


@given(maps, rows, keeps)
def test_applying_an_idempotent_map_twice_is_applying_it_once(
    moves: dict[str, str], before: Row, keep: frozenset[str]
) -> None:
    assume(all(moves.get(v, v) == v for v in moves.values()))
    once = applied(moves, before, keep)
    assert applied(moves, once, keep) == once


@given(maps, rows, keeps)
def test_mentors_whom_the_map_does_not_concern_are_not_touched(
    moves: dict[str, str], before: Row, keep: frozenset[str]
) -> None:
    after = applied(moves, before, keep)
    moved = {u for u, v in moves.items() if u != v} - keep
    if not moved & set(before.mentors):
        assert after.mentors == before.mentors
    else:
        strangers = [m for m in dict.fromkeys(before.mentors) if m not in USERS]
        assert [m for m in after.mentors if m not in USERS] == strangers
    assert after.id == before.id
    assert after.status == before.status


@given(maps, rows)
def test_users_to_keep_are_not_mapped(moves: dict[str, str], before: Row) -> None:
    assert applied(moves, before, frozenset(USERS)) == before


@given(events(proper=True), rows, keeps)
def test_hops_lead_from_before_to_after_and_each_changes_something(
    todo: list[Transfer], before: Row, keep: frozenset[str]
) -> None:
    chosen, moves = phase(todo, lambda _: False, most=100)
    after = applied(moves, before, keep)
    assume(chosen and after != before)
    steps = hops(chosen, before, after, keep)
    assert steps[0].before == before
    assert steps[-1].after.owners == after.owners
    for one, following in pairwise(steps):
        assert one.after == following.before
    assert all(s.before != s.after for s in steps)
    mids = [s.mid for s in steps]
    assert mids == sorted(set(mids))
    assert set(mids) <= {e.mid for e in chosen}


@given(events(proper=True), rows)
def test_each_hop_is_its_events_own_share(todo: list[Transfer], before: Row) -> None:
    chosen, moves = phase(todo, lambda _: False, most=100)
    after = applied(moves, before)
    assume(after != before)
    steps = hops(chosen, before, after)
    by_mid = {e.mid: e for e in chosen}
    if len(steps) > 1:
        assert all(one_transfer(by_mid[s.mid], s.before) == s.after for s in steps)


def test_a_chain_is_told_event_by_event() -> None:
    steps = hops(transfers("AB", "BC"), row("A"), row("C"))
    assert [(s.mid, s.before.created_by, s.after.created_by) for s in steps] == [
        ("m00", "A", "B"),
        ("m01", "B", "C"),
    ]


def test_a_change_that_a_later_transfer_was_folded_into_is_the_last_events() -> None:
    steps = hops(transfers("AB"), row("A"), row("C"))
    assert [(s.mid, s.before.created_by, s.after.created_by) for s in steps] == [("m00", "A", "C")]


def test_a_change_is_never_told_as_the_event_of_a_user_who_keeps_the_row() -> None:
    before, after = row("A", "C"), row("A", "D")
    assert hops(transfers("CD", "AB"), before, after, frozenset("A"))[0].mid == "m00"


@pytest.mark.parametrize(
    ("status", "live"),
    [
        pytest.param(0, True, id="upcoming"),
        pytest.param(1, True, id="ongoing"),
        pytest.param(2, False, id="completed"),
        pytest.param(None, False, id="none"),
    ],
)
def test_upcoming_and_ongoing_batches_are_live(status: int | None, live: bool) -> None:
    assert row("A", status=status).live is live


@pytest.mark.parametrize(
    ("who", "what"),
    [
        pytest.param("A", "created", id="creator"),
        pytest.param("M", "mentored", id="mentor"),
        pytest.param("AM", "created+mentored", id="both"),
        pytest.param("Z", "", id="neither"),
    ],
)
def test_the_role_of_users_is_told(who: str, what: str) -> None:
    batch = row("A", "MN")
    assert role(batch, set(who)) == what
    assert batch.names(set(who)) is bool(what)
