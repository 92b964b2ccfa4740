from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ownership.domain.event import Transfer
from ownership.domain.lanes import phase, sources
from ownership.domain.plan import Given, Hop, Row, hops, map_owners, role
from tests.unit.replay import (
    USERS,
    folded_event,
    folded_row,
    gifts,
    mixed_events,
    mixed_rows,
    one_transfer,
    row,
    rows,
    transfers,
)

maps = st.dictionaries(st.sampled_from(USERS), st.sampled_from(USERS))
ALL_GIVEN = Given(frozenset(USERS), frozenset(USERS))


def assert_they_lead(steps: list[Hop], before: Row, after: Row) -> None:
    """The hops lead from `before` to `after`, each changes something, one for each event, in the events' order."""
    assert steps[0].before == before
    assert steps[-1].after.owners == after.owners
    for one, following in pairwise(steps):
        assert one.after == following.before
    assert all(s.before != s.after for s in steps)
    mids = [s.mid for s in steps]
    assert mids == sorted(set(mids))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(row("a"), row("b"), id="creator"),
        pytest.param(row("x", "a"), row("x", "b"), id="mentor"),
        pytest.param(row("a", "xa"), row("b", "xb"), id="creator and mentor"),
        pytest.param(row("x", "aya"), row("x", "by"), id="a mentor listed twice"),
        pytest.param(row("x", "yab"), row("x", "yb"), id="the new user is a mentor, behind"),
        pytest.param(row("x", "bya"), row("x", "by"), id="the new user is a mentor, before"),
        pytest.param(row("x", "yxy"), row("x", "yxy"), id="a list that is not concerned keeps its repeats"),
        pytest.param(row("a", "yxy"), row("b", "yxy"), id="also where the creator changes"),
        pytest.param(row(None, "a"), row(None, "b"), id="no creator"),
        pytest.param(row("x"), row("x"), id="nobody concerned"),
    ],
)
def test_a_transfer_changes_both_fields_and_keeps_the_order(before: Row, after: Row) -> None:
    assert map_owners({"a": "b", "b": "b"}, before) == after


@given(maps, rows, gifts)
def test_applying_an_idempotent_map_twice_is_applying_it_once(
    moves: dict[str, str], before: Row, kept: Given
) -> None:
    assume(all(moves.get(v, v) == v for v in moves.values()))
    once = map_owners(moves, before, kept)
    assert map_owners(moves, once, kept) == once


@given(maps, rows, gifts)
def test_mentors_whom_the_map_does_not_concern_are_not_touched(
    moves: dict[str, str], before: Row, kept: Given
) -> None:
    after = map_owners(moves, before, kept)
    moved = {u for u, v in moves.items() if u != v} - (kept.mentored - kept.shared)
    if not moved & set(before.mentors):
        assert after.mentors == before.mentors
    else:
        strangers = [m for m in dict.fromkeys(before.mentors) if m not in USERS]
        assert [m for m in after.mentors if m not in USERS] == strangers
    assert after.id == before.id
    assert after.status == before.status


@pytest.mark.parametrize(
    ("pairs", "before", "after", "found"),
    [
        pytest.param(["ab", "bc"], "a", "c", [("m00", "a", "b"), ("m01", "b", "c")], id="a chain"),
        pytest.param(["aB", "bC"], "A", "C", [("m00", "A", "B"), ("m01", "B", "C")], id="in two spellings"),
        pytest.param(["ab"], "a", "c", [("m00", "a", "c")], id="a later transfer was folded in"),
    ],
)
def test_a_change_is_reported_event_by_event(
    pairs: list[str], before: str, after: str, found: list[tuple[str, str, str]]
) -> None:
    steps = hops(transfers(*pairs), row(before), row(after))
    assert [(s.mid, s.before.created_by, s.after.created_by) for s in steps] == found


@pytest.mark.parametrize(
    ("pairs", "before", "after"),
    [
        pytest.param(["cd", "ab"], row("a", "c"), row("a", "d"), id="in one case"),
        pytest.param(["cD", "AB"], row("A", "C"), row("A", "D"), id="in another case"),
    ],
)
def test_a_change_is_not_reported_as_the_event_of_a_user_who_keeps_the_row(
    pairs: list[str], before: Row, after: Row
) -> None:
    steps = hops(transfers(*pairs), before, after, Given(created=frozenset("a")))
    assert [s.mid for s in steps] == ["m00"]


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
    assert row("a", status=status).live is live


@pytest.mark.parametrize(
    ("who", "what"),
    [
        pytest.param("a", "created", id="creator"),
        pytest.param("m", "mentored", id="mentor"),
        pytest.param("am", "created+mentored", id="both"),
        pytest.param("z", "", id="neither"),
    ],
)
def test_the_role_of_users_is_reported(who: str, what: str) -> None:
    batch = row("a", "mn")
    assert role(batch, set(who)) == what
    assert batch.names(set(who)) is bool(what)


# --- ids that differ in case only are one user


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(row("A"), row("B"), id="creator in upper case"),
        pytest.param(row("a"), row("B"), id="creator in lower case"),
        pytest.param(row("x", "XaYA"), row("x", "XBY"), id="mentors in both"),
        pytest.param(row("b", "x"), row("b", "x"), id="the new user keeps the spelling that is there"),
        pytest.param(row("x", "BYa"), row("x", "BY"), id="the new user is a mentor"),
        pytest.param(row("x", "bYa"), row("x", "bY"), id="the new user is a mentor in another case, before"),
        pytest.param(row("x", "aYb"), row("x", "BY"), id="the new user is a mentor in another case, behind"),
        pytest.param(row("x", "yYa"), row("x", "yB"), id="somebody else twice, in two cases"),
        pytest.param(row("a", "yYb"), row("B", "yYb"), id="a list that is not concerned keeps its repeats"),
    ],
)
def test_owners_are_found_in_any_case_and_written_as_the_event_spells_them(before: Row, after: Row) -> None:
    assert map_owners({"a": "B"}, before) == after


@given(mixed_events, mixed_rows)
def test_one_transfer_in_any_case_is_the_folded_transfer_of_the_folded_row(
    todo: list[Transfer], before: Row
) -> None:
    for event in todo:
        if event.source == event.target:
            continue
        after = map_owners({event.source: event.to_user}, before)
        assert folded_row(after) == one_transfer(folded_event(event), folded_row(before))
        assert {*after.named} - {*before.named} <= {event.to_user}
        before = after


@given(maps, mixed_rows, gifts)
def test_users_to_keep_are_kept_in_any_case(moves: dict[str, str], before: Row, kept: Given) -> None:
    moves = {u: v.upper() for u, v in moves.items()}
    after = map_owners(moves, before, kept)
    mentors = {u for u in folded_row(before).mentors if u in kept.mentored or u in kept.shared}
    assert mentors <= set(folded_row(after).mentors)
    if before.created_by and before.created_by.lower() in kept.created:
        assert after.created_by == before.created_by
    assert map_owners(moves, before, ALL_GIVEN) == before


@given(mixed_events, mixed_rows)
def test_applying_a_phase_twice_is_applying_it_once_in_any_case(todo: list[Transfer], before: Row) -> None:
    _, moves = phase(todo, lambda _: False, limit=100)
    moves = {u: moves[u] for u in sources(moves)}
    once = map_owners(moves, before)
    assert map_owners(moves, once) == once
    assert not once.names(moves)


@given(mixed_events, mixed_rows, gifts)
def test_hops_lead_from_before_to_after_in_any_case(todo: list[Transfer], before: Row, kept: Given) -> None:
    chosen, moves = phase([e for e in todo if len(e.users) == 2], lambda _: False, limit=100)
    after = map_owners({u: moves[u] for u in sources(moves)}, before, kept)
    assume(chosen and after != before)
    steps = hops(chosen, before, after, kept)
    assert_they_lead(steps, before, after)
    by_mid = {e.mid: e for e in chosen}
    if len(steps) > 1:
        assert all(
            one_transfer(folded_event(by_mid[s.mid]), folded_row(s.before)) == folded_row(s.after)
            for s in steps
            if by_mid[s.mid].source not in {*kept.created, *kept.mentored, *kept.shared}
        )


@given(mixed_rows, st.frozensets(st.sampled_from(USERS)))
def test_a_row_names_and_has_the_role_of_its_users_in_any_case(batch: Row, who: frozenset[str]) -> None:
    assert batch.names(who) is folded_row(batch).names(who) is bool(role(batch, who))
    assert role(batch, who) == role(folded_row(batch), who)
    assert batch.names(who) is any(u.lower() in who for u in [batch.created_by or "", *batch.mentors])
