"""What the phases of a run mean for a row, without any store."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ownership.domain.contracts import Phase
from ownership.domain.effects import Effect, TransferEffect, undo_effect
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.lanes import compose, lanes
from ownership.domain.phase_book import PhaseBook
from ownership.domain.plan import EVERYTHING, Hop, Row
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import BatchOutcome
from tests.unit.replay import mixed_rows, row, transfers


def phase(events: list[Transfer]) -> Phase:
    return Phase(events=tuple(ClaimedEvent(e, 7) for e in events), moves={})


def transfer_effect(events: list[Transfer]) -> Effect:
    moves: dict[str, str] = {}
    for e in events:
        moves = compose(moves, e)
    return TransferEffect(events, moves)


def book(*lane_pairs: str) -> PhaseBook:
    """A phase for each lane of the pairs, as in `transfers`."""
    phases = [(phase(events), transfer_effect(events)) for events in lanes(transfers(*lane_pairs))]
    return PhaseBook((p for p, _ in phases), {p.key: effect for p, effect in phases})


UNDO = Transfer(OrderKey(1000, 0, 0, "u"), "b", "a")
UNDOING = PhaseBook([phase([UNDO])], {"u": undo_effect([Hop("u", row("a", n=3), row("b", n=3))])})


def test_a_phase_is_named_after_its_first_event() -> None:
    assert [p.key for p in book("ab", "bc", "de").phases] == ["m00", "m02"]


def test_a_row_of_two_phases_gets_the_change_of_both_event_by_event() -> None:
    two = book("ab", "cd")
    before, after = row("a", "c"), row("b", "d")
    assert two.apply(before) == after
    assert two.hops(before, after) == [
        Hop("m00", before, row("b", "c")),
        Hop("m01", row("b", "c"), after),
    ]
    assert [p.key for p in two.phases_of(before)] == ["m00", "m01"]


def test_phases_of_the_same_users_are_told_apart_by_the_batch_that_each_is_about() -> None:
    todo = transfers("ab", "ac")
    rows = [row("a", n=n) for n in range(3)]
    effects = {
        e.mid: TransferEffect([e], compose({}, e), EVERYTHING._replace(batch_id=rows[n].id.batch_id))
        for n, e in enumerate(todo)
    }
    found = PhaseBook([phase([e]) for e in todo], effects)
    assert [found.apply(r).created_by for r in rows] == ["b", "c", "a"]
    assert [[p.key for p in found.phases_of(r)] for r in rows] == [["m00"], ["m01"], []]
    assert found.sources == {"a"}


def test_a_row_that_names_no_source_or_is_gone_is_up_to_date() -> None:
    found = book("ab")
    assert found.is_up_to_date(row("x", "b"))
    assert found.is_up_to_date(None)
    assert not found.is_up_to_date(row("x", "A"))
    assert found.phases_of(row("x", "b")) == []


def test_a_row_that_was_edited_meanwhile_is_one_hop_of_the_last_event() -> None:
    before, edited = row("a", "x"), row("b", "y")
    assert book("ab").hops(before, edited) == [Hop("m00", before, edited)]


@pytest.mark.parametrize(
    ("found", "document_users", "mids"),
    [
        pytest.param(row("a"), (), ["m00"], id="the row names a source"),
        pytest.param(row("x"), {"a"}, ["m00"], id="only its document does"),
        pytest.param(None, {"c"}, ["m01"], id="the row is gone"),
        pytest.param(row("a"), {"c"}, ["m00", "m01"], id="two phases"),
        pytest.param(row("x"), (), [], id="neither names one"),
    ],
)
def test_a_batch_is_planned_under_the_events_whose_source_row_or_document_names(
    found: Row | None, document_users: set[str], mids: list[str]
) -> None:
    batch = row("a").id
    planned = book("ab", "cd").planned_by(batch, found, frozenset(document_users))
    assert sorted(planned) == mids


def test_an_undo_concerns_the_batches_that_it_reverts_whoever_owns_them_now() -> None:
    assert set(UNDOING.ids) == {row("a", n=3).id}
    assert UNDOING.sources == frozenset()
    assert UNDOING.apply(row("b", n=3)) == row("a", n=3)
    assert UNDOING.planned_by(row("x", n=3).id, None, frozenset()) == ["u"]
    assert UNDOING.planned_by(row("x", n=4).id, row("b", n=4), frozenset()) == []
    assert UNDOING.is_undo("u")
    assert not book("ab").is_undo("m00")


def test_an_unmoved_batch_has_the_outcome_that_its_own_phase_sees() -> None:
    two = book("ab", "cd")
    assert two.unmoved_outcome("m00", row("b").id, row("b")) == BatchOutcome.ALREADY
    assert two.unmoved_outcome("m01", row("b").id, row("b")) == BatchOutcome.CHANGED_ELSEWHERE


def test_a_plan_that_is_kept_under_an_event_outside_the_book_is_judged_by_the_first_phase() -> None:
    assert book("ab", "cd").unmoved_outcome("earlier", row("b").id, row("b")) == BatchOutcome.ALREADY


def test_a_book_without_an_event_has_lost_the_whole_phase_and_nothing_else() -> None:
    found = book("ab", "bc", "de")
    left = found.without({"m01", "unknown"})
    assert [p.key for p in left.phases] == ["m02"]
    assert [e.mid for e in left.held] == ["m02"]
    assert left.sources == {"d"}
    assert left.apply(row("a", "d")) == row("a", "e")
    assert found.apply(row("a", "d")) == row("c", "e")  # the first book is as it was
    assert found.without(set()) is found


def test_a_book_knows_the_fencing_tokens_of_its_events() -> None:
    assert book("ab").fencing_tokens["m00"] == 7
    with pytest.raises(KeyError):
        book("ab").fencing_tokens["m01"]


@given(mixed_rows, st.sampled_from([("ab", "cd"), ("ab", "bc", "de"), ("ab",)]))
def test_applied_to_its_own_result_a_book_changes_nothing_and_its_hops_add_up(
    before: Row, pairs: tuple[str, ...]
) -> None:
    found = book(*pairs)
    after = found.apply(before)
    assert found.is_up_to_date(after)
    hops = found.hops(before, after)
    if hops:
        assert (hops[0].before, hops[-1].after) == (before, after)
        assert all(one.after == other.before for one, other in itertools.pairwise(hops))
    else:
        assert after == before
